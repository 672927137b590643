"""The termination message has the last lines of the log, as long as they fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosmos_worker.runtime import last_lines
from cosmos_worker.runtime.outcome import (
    TERMINATION_BYTES,
    TERMINATION_VARIABLE,
    build_termination_message,
    write_termination_message,
)

logger = logging.getLogger("cosmos_worker.test")


@pytest.fixture
def kept() -> Iterator[None]:
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.INFO)
    last_lines.install()
    yield
    root = logging.getLogger()
    root.setLevel(level)
    for handler in list(root.handlers):
        if isinstance(handler, last_lines.LastLines):
            root.removeHandler(handler)


def test_message_has_the_last_lines(
    kept: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "message"
    monkeypatch.setenv(TERMINATION_VARIABLE, str(target))
    for number in range(5):
        logger.info("line %d", number)
    write_termination_message("Succeeded", "done")

    lines = json.loads(target.read_text())["lines"]
    assert [line[-6:] for line in lines] == ["line 2", "line 3", "line 4"]


def test_lines_are_short_and_whole(kept: None) -> None:
    logger.info("first\n%s", "x" * 1000)

    assert last_lines.last_lines() == ["x" * last_lines.MAX_LINE], "the last line of a text"


def test_nothing_is_kept_without_a_log() -> None:
    assert last_lines.last_lines() == []


def test_lines_go_before_results() -> None:
    result = {"windows": "w" * 3000}
    text = build_termination_message("Succeeded", "done", {"lines": ["l" * 2000], "result": result})

    assert len(text) <= TERMINATION_BYTES
    assert json.loads(text) == {"reason": "Succeeded", "message": "done", "result": result}
