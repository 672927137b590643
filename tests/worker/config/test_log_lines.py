"""Names and texts of anybody's files in the log: no forged lines, no terminal escapes, no endless lines."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmos_worker.config.log_lines import (
    MAX_LINE_BYTES,
    LineFormatter,
    cut,
    escaped,
    escaped_lines,
)

FORMATTER = LineFormatter("%(levelname)s rank=0 %(name)s %(message)s")
FORGED = "INFO rank=0 x step=9/9 loss=0.0"


def lines_of(message: str, *arguments: object, error: BaseException | None = None) -> list[str]:
    info = None if error is None else (type(error), error, None)
    record = logging.LogRecord("x", logging.INFO, "f", 1, message, arguments, info)
    return FORMATTER.format(record).split("\n")


def test_plain_line_stays_as_it_is():
    assert lines_of("step=%d/%d café 猫 emoji 🐈", 1, 2) == [
        "INFO rank=0 x step=1/2 café 猫 emoji 🐈"
    ]


@pytest.mark.parametrize(
    "end", ["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"]
)
def test_no_name_begins_a_line_that_looks_like_a_record(end: str):
    found = lines_of("clip %s is bad", f"a{end}{FORGED}")

    assert not any(line.startswith("INFO") for line in found[1:])
    assert not any(set(line) & set("\r\v\f\x1c\x85\u2028\u2029") for line in found)


def test_lines_of_an_error_are_indented():
    found = lines_of("failed", error=ValueError(f"a\n{FORGED}"))

    assert found[-1] == f"    {FORGED}"


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b31m", "\x07", "\x00", "\u202e", "\ud800", "\x7f"])
def test_control_characters_are_escaped(text: str):
    (line,) = lines_of("name %s", text)

    assert line.isprintable()
    assert line.endswith(text.encode("unicode_escape").decode())


@pytest.mark.parametrize("text", ["a" * 100_000, "猫" * 100_000, "\x1b" * 100_000])
def test_line_has_at_most_4_kib(text: str):
    (line,) = lines_of("%s", text)

    assert len(line.encode()) <= MAX_LINE_BYTES
    assert line.endswith("characters)")


@given(st.text())
def test_every_text_becomes_safe_lines(text: str):
    assert escaped(text).isprintable()
    for line in lines_of("%s", text):
        assert line.isprintable()
        assert len(cut(line).encode()) <= MAX_LINE_BYTES
    assert all(line.isprintable() for line in escaped_lines(text).split("\n"))


def test_log_line_shows_no_password_of_an_address(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_API_KEY", "hunter2hunter2")
    found = lines_of(
        "tracker=%s",
        "http://u:hunter2@h/?s=hunter2",
        error=ValueError("key hunter2hunter2 https://h/?hunter2"),
    )

    assert "hunter2" not in "\n".join(found)
