"""The YAML of job files and of overrides as ``kubectl`` and the API server read it, with the line of each value.

PyYAML splits the text into events; what they mean is decided here, because its own values are not those of
Kubernetes: ``1e3`` is a text there, ``on`` as a key stays a boolean, a repeated key is lost without a word; and a few
lines of aliases and merges are gigabytes. So the number of values is bounded, and an override, which is one line, has
neither aliases nor merges. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from cosmos_worker.config.yaml_scalars import key_text, plain_value, tagged_value

MAX_DEPTH = 64
MAX_VALUES = 100_000
"""Bound on the values of a file, those that aliases and merges repeat included."""
MAX_VALUE_DEPTH = 8
"""Levels of a value on one line; no option has more than three."""
MAX_KEY = 1024
"""Characters of a key."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""LibYAML where PyYAML has it: the parser that Kubernetes' own was translated from."""

Location = tuple[str | int, ...]


class WrongYaml(ValueError):  # noqa: N818 - it says what is wrong
    """A text that is not YAML, or not as Kubernetes reads it; the message begins with the line."""


@dataclass(frozen=True)
class Document:
    """One document of a file."""

    value: Any
    """Its value, as JSON has it."""
    line: int
    """Line on which it begins, from 1."""
    lines: dict[Location, int] = field(default_factory=dict)
    """Place of a value → the line of its key, or of an item of a list."""

    def line_of(self, location: Location) -> int:
        """Line of a value, or of the nearest one around it."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, self.line)


def read_documents(text: str) -> list[Document]:
    """The documents of a text that are not empty.

    Raises:
        WrongYaml: with the line and what is wrong there.
    """
    with _said_with_line(text):
        return list(_Reader(text).documents())


def read_value(text: str) -> Any:  # noqa: ANN401 - any YAML value
    """The value of a text on its own, such as that of an override: without anchors, aliases and merges.

    Raises:
        WrongYaml: with the line and what is wrong there.
    """
    with _said_with_line(text):
        found = list(_Reader(text, is_plain=True).documents())
    if len(found) > 1:
        raise WrongYaml(f"line {found[1].line}: a second document; give one value")
    return found[0].value if found else None


@contextmanager
def _said_with_line(text: str) -> Iterator[None]:
    """A block in which errors of the parser become :class:`WrongYaml` with their line."""
    try:
        yield
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise WrongYaml(f"{where}not YAML: {_sentence(error)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise WrongYaml(f"line {line}: not YAML: {error.reason}: #x{error.character:04x}") from None
    except yaml.YAMLError as error:
        raise WrongYaml(f"not YAML: {' '.join(str(error).split())}") from None
    except UnicodeEncodeError:  # half of a pair of UTF-16
        raise WrongYaml("not YAML: a character that UTF-8 does not have; remove it") from None


def _sentence(error: yaml.MarkedYAMLError) -> str:
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    if "\\t" in problem or "cannot start any token" in problem or "tab" in problem:
        problem += (
            " (YAML is indented with spaces; a text that begins with such a character needs quotes)"
        )
    return problem


class _Reader:
    """Builds the values of one text from its events.

    Args:
        text: the text.
        is_plain: anchors, aliases and merges are refused.
    """

    def __init__(self, text: str, *, is_plain: bool = False) -> None:
        self.is_plain = is_plain
        self.max_depth = MAX_VALUE_DEPTH if is_plain else MAX_DEPTH
        # a byte order mark, and the line ends of Windows, mean nothing
        self.events: Iterator[yaml.Event] = yaml.parse(text.removeprefix("\ufeff"), Loader=LOADER)
        self.anchors: dict[str, Any] = {}
        self.lines: dict[Location, int] = {}
        self.num_values = 0

    def documents(self) -> Iterator[Document]:
        """All documents, one after the other."""
        for event in self.events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self.anchors, self.lines = {}, {}
            first = next(self.events)
            value = self._value(first, ())
            if value is not None:
                yield Document(value, _line(first), self.lines)

    def _value(self, event: yaml.Event, at: Location) -> Any:  # noqa: ANN401 - any YAML value
        self._count(event, 1)
        if len(at) > self.max_depth:
            raise _wrong(
                event,
                f"more than {self.max_depth} levels of blocks; no resource and no option has so many",
            )
        if self.is_plain and getattr(event, "anchor", None):
            raise _wrong(event, "has an anchor or an alias (& or *); write the value itself")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, at)
        if isinstance(event, yaml.ScalarEvent):
            value: Any = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(at)
        else:
            value = self._mapping(at)
        if anchor := getattr(event, "anchor", None):
            self.anchors[anchor] = value
        return value

    def _alias(self, event: yaml.AliasEvent, at: Location) -> Any:  # noqa: ANN401 - any YAML value
        if event.anchor not in self.anchors:
            raise _wrong(event, f"*{event.anchor} has no anchor &{event.anchor} before it")
        value = self.anchors[event.anchor]
        self._count(event, _size(value))
        if len(at) + _depth(value) > MAX_DEPTH:
            raise _wrong(
                event,
                f"more than {MAX_DEPTH} levels of blocks with what *{event.anchor} stands for",
            )
        return value

    def _sequence(self, at: Location) -> list[Any]:
        items: list[Any] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            place = (*at, len(items))
            self.lines[place] = _line(event)
            items.append(self._value(event, place))
        return items

    def _mapping(self, at: Location) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: list[dict[str, Any]] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            if _is_merge(event):
                if self.is_plain:
                    raise _wrong(event, "merges another mapping (<<); write the values themselves")
                merged += _merged_mappings(event, self._value(next(self.events), (*at, "<<")))
                continue
            key = self._key(event, at)
            if key in found:
                first = self.lines[(*at, key)]
                raise _wrong(event, f"key {key!r} is given twice, first on line {first}; keep one")
            place = (*at, key)
            self.lines[place] = _line(event)
            found[key] = self._value(next(self.events), place)
        for block in merged:
            for key, value in block.items():
                found.setdefault(key, value)
        return found

    def _key(self, event: yaml.Event, at: Location) -> str:
        if isinstance(event, yaml.SequenceStartEvent | yaml.MappingStartEvent):
            raise _wrong(event, "a key is a list or a mapping; give a text")
        key = self._value(event, at)
        if isinstance(key, dict | list):
            raise _wrong(event, "a key is a list or a mapping; give a text")
        try:
            text = key_text(key)
            if len(text) > MAX_KEY:
                raise ValueError(
                    f"a key of {len(text)} characters; no resource has longer ones than {MAX_KEY}"
                )
            return text
        except ValueError as error:
            raise _wrong(event, str(error)) from None

    def _count(self, event: yaml.Event, number: int) -> None:
        self.num_values += number
        if self.num_values > MAX_VALUES:
            raise _wrong(event, f"more than {MAX_VALUES} values, those of aliases included")


def _scalar(event: yaml.ScalarEvent) -> Any:  # noqa: ANN401 - any YAML value
    plain, _ = event.implicit
    try:
        if plain:
            return plain_value(event.value)
        if event.tag in (None, "!"):
            return event.value
        return tagged_value(event.value, event.tag)
    except ValueError as error:
        raise _wrong(event, str(error)) from None


def _is_merge(event: yaml.Event) -> bool:
    return isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]


def _merged_mappings(event: yaml.Event, value: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    """The mappings that ``<<`` names, those that win first."""
    blocks = value if isinstance(value, list) else [value]
    if not all(isinstance(block, dict) for block in blocks):
        raise _wrong(event, "<< takes a mapping, or a list of them; give an alias of one")
    return blocks


def _size(value: Any) -> int:  # noqa: ANN401 - any YAML value
    """Number of values in a value."""
    if isinstance(value, dict):
        return 1 + sum(map(_size, value.values()))
    return 1 + sum(map(_size, value)) if isinstance(value, list) else 1


def _depth(value: Any) -> int:  # noqa: ANN401 - any YAML value
    """Levels of blocks of a value; 0 for a scalar."""
    if not isinstance(value, dict | list):
        return 0
    items = value.values() if isinstance(value, dict) else value
    return 1 + max(map(_depth, items), default=0)


def _line(event: yaml.Event) -> int:
    """Line on which an event begins, from 1."""
    return 1 if event.start_mark is None else event.start_mark.line + 1


def _wrong(event: yaml.Event, text: str) -> WrongYaml:
    return WrongYaml(f"line {_line(event)}: {text}")
