"""Whatever a worker's termination message says, it is read without an error, and as what the status can hold."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmos_operator.kube.termination import MAX_COUNT, count_of, read_message, shown

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def test_message_of_a_worker_is_read():
    said = {
        "reason": "UserError", "message": "no such file", "step": 7, "checkpoint": 5, "node": "n1", "lines": ["a", "b"],
        "result": {"videos": 2, "share": 0.5, "name": "x", "kept": [1], "omitted": True},
    }  # fmt: skip

    found = read_message(json.dumps(said))

    assert found is not None
    assert (found.reason, found.message, found.node) == ("UserError", "no such file", "n1")
    assert (found.step, found.checkpoint, found.lines) == (7, 5, ("a", "b"))
    assert found.result == said["result"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 4000,
        "{" * 4000,
        '{"a":' * 700,
        "9" * 4090,
        "[]",
        "5",
        "null",
        "NaN",
        '"x"',
        "{'a': 1}",
        "\ud800",
    ],
)
def test_text_that_is_no_message_is_none(text):
    assert read_message(text) is None


@pytest.mark.parametrize(
    "value", ["5", -1, True, 1.5, 10**13, 10**4000, None, [], {}, float("inf"), "\ud800"]
)
def test_what_is_no_count_is_left_out(value):
    found = read_message(
        json.dumps({"step": value, "checkpoint": value, "result": {"videos": value}})
    )

    assert found is not None
    assert (found.step, found.checkpoint) == (None, None)
    assert count_of((found.result or {}).get("videos")) is None


@pytest.mark.parametrize("value", [5, "x", None, {}, [[["deep"]]], True])
def test_lines_of_another_type_are_left_out_or_said(value):
    found = read_message(
        json.dumps({"lines": value, "message": value, "reason": value, "node": value})
    )

    assert found is not None
    assert all(
        isinstance(one, str) for one in (*found.lines, found.message, found.reason, found.node)
    )


def test_texts_are_one_line_without_control_characters():
    hostile = "a\nforged line\x1b[31m\x9b\u202e\ud800\0"
    found = read_message(
        json.dumps({"message": hostile, "lines": [hostile], "result": {hostile: hostile}})
    )

    assert found is not None
    for text in (
        found.message,
        *found.lines,
        *(found.result or {}),
        *(found.result or {}).values(),
    ):
        assert text.isprintable()
        text.encode()
    assert shown(hostile) == "a forged line\\x1b[31m\\x9b\\u202e\\ud800\\x00"


@given(JSON)
def test_no_message_is_an_error(value):
    found = read_message(json.dumps(value))

    if found is not None:
        json.dumps(found.result, allow_nan=False).encode()
        assert all(
            step is None or 0 <= step <= MAX_COUNT for step in (found.step, found.checkpoint)
        )
