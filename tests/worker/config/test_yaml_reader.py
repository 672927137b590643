"""YAML as kubectl reads it. The values are those that kubectl 1.36 gave for these texts."""

from __future__ import annotations

import pytest
import yaml

from cosmos_worker.config import yaml_reader
from cosmos_worker.config.yaml_reader import WrongYaml, read_documents, read_value

SCALARS = [
    *((text, True) for text in ("y", "Y", "yes", "on", "ON", "true", "TRUE", '!!bool "yes"')),
    *((text, False) for text in ("n", "No", "off", "False")),
    *((text, None) for text in ("null", "~", "Null", "NULL", "")),
    *((text, text) for text in ("tRue", "nULL", "0x", "0b12", "0o9", "_1", "1e400", "1.2.3", ".", "+", "e5")),
    *((text, text) for text in ("2024-01-01", "2024-01-01T00:00:00Z", "12:30:45", "1:30.5", "1,000", "0xG")),
    ("0100", 64), ("0o100", 64), ("-010", -8), ("0x1F", 31), ("+0x1F", 31), ("0X1F", 31), ("0b101", 5),
    ("-0b11", -3), ("08", 8), ("007", 7), ("00", 0), ("0_1", 1), ("1_000", 1000), ("1_", 1), ("+5", 5),
    ("1e3", 1000), ("1.0", 1), ("5.", 5), (".5", 0.5), ("-.5", -0.5), ("1e-2", 0.01), ("1.5e3", 1500),
    ("1.10", 1.1), ("-0.0", 0), ("3240286e-210077", 0), ("1e21", 1e21), ("1e20", 10**20), ("1_000.5", 1000.5),
    ("123456789012345678901234567890", 1.2345678901234568e29),
    ("!!str 5", "5"), ("!!int '5'", 5), ("!!float 5", 5), ("!foo 5", "5"), ("!!binary aGVsbG8=", "hello"),
    ("'on'", "on"), ('"1e3"', "1e3"), ("!!timestamp 2024-01-01", "2024-01-01"),
]  # fmt: skip


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers that PyYAML may have."""
    if not hasattr(yaml, request.param):
        pytest.skip(f"this PyYAML has no {request.param}")
    monkeypatch.setattr(yaml_reader, "LOADER", getattr(yaml, request.param))


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text for text, _ in SCALARS])
def test_scalars(loader: None, text: str, value: object) -> None:
    (found,) = read_documents(f"v: {text}\n")

    assert found.value == {"v": value}
    assert type(found.value["v"]) is type(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{1: a, on: b, 1.5: c, 0x10: d, 1e3: e}", {"1": "a", "true": "b", "1.5": "c", "16": "d", "1000": "e"}),
        ("<<: {a: 1, b: 2}\nb: 3\n", {"a": 1, "b": 3}),
        ("<<: [{a: 1}, {a: 2, c: 3}]\n", {"a": 1, "c": 3}),
        ("x: &x [1, on]\nz: *x\n", {"x": [1, True], "z": [1, True]}),
        ("\ufeffa: b\r\nc:\r\n- d\r\n", {"a": "b", "c": ["d"]}),
        ("!!set {a}", {"a": None}),
    ],
)  # fmt: skip
def test_mappings(loader: None, text: str, value: object) -> None:
    assert [one.value for one in read_documents(text)] == [value]


def test_empty_documents_are_left_out() -> None:
    assert [one.value for one in read_documents("---\n---\na: 1\n---\n# none\n---\nb: 2\n")] == [
        {"a": 1},
        {"b": 2},
    ]


def test_line_of_a_value_or_of_what_is_around_it() -> None:
    first, second = read_documents("# head\na:\n  b: 1\n  c:\n  - x\n  - y: 2\n---\n\nd: 3\n")

    places: tuple[tuple[str | int, ...], ...] = (
        ("a",), ("a", "b"), ("a", "c", 1), ("a", "c", 1, "y"), ("a", "none", "deep"), ("none",)
    )  # fmt: skip
    assert [first.line_of(place) for place in places] == [2, 3, 6, 6, 2, 2]
    assert (second.line, second.line_of(("d",))) == (9, 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' is given twice, first on line 1; keep one"),
        ("a: {1: x, '1': y}\n", "line 1: key '1' is given twice"),
        ("a: .inf\n", "line 1: .inf is no number that Kubernetes has"),
        ("a: !!int x\n", "line 1: 'x' is no !!int"),
        ("a: !!null x\n", "line 1: 'x' is no !!null"),
        ("{[a]: 1}\n", "line 1: a key is a list or a mapping"),
        ("{null: 1}\n", "line 1: a key is empty"),
        ("a: b\nc: *d\n", r"line 2: \*d has no anchor &d before it"),
        ("a: &a [*a]\n", r"line 1: \*a has no anchor &a before it"),
        ("<<: 5\n", "line 1: << takes a mapping"),
        ("a: b: c\n", "line 1: not YAML"),
        ("a:\n\tb: c\n", "line 2: not YAML: .*indented with spaces"),
        ("a: [\n", r"line \d: not YAML"),
        ("a: 1\nb: x\x07y\n", "line 2: not YAML"),
        ("a: " + "{a: " * 70 + "}" * 70, "line 1: more than 64 levels"),
        ("a: " + "[" * 5000, "line 1: (more than 64 levels|not YAML)"),
        ("a: " + "{" * 5000, "line 1: (a key is a list or a mapping|not YAML)"),
        ("a: " + "{<<: " * 5000, "line 1: more than 64 levels"),
        ("? " * 5000 + "a", "line 1: a key is a list or a mapping"),
        (
            "\n".join(
                ["a0: &a0 [x]"]
                + [f"a{n}: &a{n} {'[' * 40}*a{n - 1}{']' * 40}" for n in range(1, 30)]
            ),
            "line 3: more than 64 levels of blocks with what",
        ),
        ("k" * 1100 + ": 1", "line 1: (a key of 1100 characters|not YAML)"),
        ("? " + "k" * 1100 + "\n: 1", "line 1: a key of 1100 characters"),
    ],
)
def test_wrong_texts(loader: None, text: str, message: str) -> None:
    with pytest.raises(WrongYaml, match=message):
        read_documents(text)


def test_aliases_that_repeat_aliases_are_bounded(loader: None) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]

    with pytest.raises(WrongYaml, match="more than 100000 values"):
        read_documents("\n".join(lines))


def test_merges_that_repeat_merges_are_bounded(loader: None) -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 12)]

    assert read_documents("\n".join(lines[:4]))[0].value["a3"] == {"x": 1}
    with pytest.raises(WrongYaml, match="more than 100000 values"):
        read_documents("\n".join([*lines, *(f"b{n}: *a11" for n in range(50_000))]))


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), ("5", 5), ("1e-4", 0.0001), ("[1, 2]", [1, 2]), ("{a: {b: x}}", {"a": {"b": "x"}}),
     ("2001-99-99", "2001-99-99"), ("9" * 5000, "9" * 5000), ("0x" + "f" * 5000, "0x" + "f" * 5000)],
)  # fmt: skip
def test_single_values(loader: None, text: str, value: object) -> None:
    assert read_value(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[&a {x: 1}, {<<: *a}]", "line 1: has an anchor or an alias"),
        ("&a 5", "line 1: has an anchor or an alias"),
        ("*a", "line 1: has an anchor or an alias"),
        ("{<<: {a: 1}}", r"line 1: merges another mapping \(<<\)"),
        ("{<<: [{a: 1}]}", r"line 1: merges another mapping"),
        ("[" * 20 + "]" * 20, "line 1: more than 8 levels"),
        ("{" * 400, "line 1: a key is a list or a mapping"),
        ("1\n--- 2", "line 2: a second document"),
        ("!!int abc", "line 1: 'abc' is no !!int"),
        ("!!float .nan", r"line 1: \.nan is no number"),
        ("!!bool 7", "line 1: '7' is no !!bool"),
        ("!!binary /w==", "line 1: !!binary is no text in base64"),
        ("!x!y 5", "line 1: not YAML"),
        ("!<", "line 1: not YAML"),
        ("a\0b", "line 1: not YAML"),
        ("\ud800", "not YAML: .*character"),
        (".inf", r"line 1: \.inf is no number"),
        ("{a: 1, a: 2}", "line 1: key 'a' is given twice"),
    ],
)
def test_wrong_single_values(loader: None, text: str, message: str) -> None:
    with pytest.raises(WrongYaml, match=message):
        read_value(text)
