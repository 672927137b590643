"""docs/security.md: each claim names tests, and each test that it names exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)`")
MENTIONS = sorted(set(NAMED.findall(PAGE)))
CLAIMS = re.findall(r"^\| claim \| test \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", PAGE, re.M)


def functions_of(path: Path) -> set[str]:
    """Names of the functions of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize(("path", "name"), MENTIONS)
def test_named_test_exists(path: str, name: str) -> None:
    assert name.startswith("test_")
    assert name in functions_of(ROOT / path)


def test_each_claim_names_a_test() -> None:
    rows = [row for table in CLAIMS for row in table.splitlines()]

    assert len(rows) > 30
    assert [row for row in rows if not NAMED.search(row)] == []
