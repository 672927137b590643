"""Names that several modules use have one definition."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cosmos_operator

PACKAGE = Path(cosmos_operator.__file__).parent


@pytest.mark.parametrize(
    ("pattern", "place"),
    [
        (r"^Manifest = ", "kube/kinds.py"),
        (r"^\w*Key = tuple\[str, str\]", "kube/kinds.py"),
        (r"app\.kubernetes\.io/managed-by", "api/labels.py"),
        (r"app\.kubernetes\.io/part-of", "api/labels.py"),
        (r"batch\.kubernetes\.io/", "api/labels.py"),
        (r"kueue\.x-k8s\.io/queue-name", "api/labels.py"),
        (r"\{GROUP\}/(job|stage|key|attempt|role|depends-on|template)\b", "api/labels.py"),
        (r"cosmos\.dev/(job|stage|key|attempt|role)\b", None),
    ],
)
def test_definition_has_one_place(pattern: str, place: str | None) -> None:
    found = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert found == ({place} if place else set())
