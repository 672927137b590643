"""Seeded changes of bytes and of JSON values."""

from __future__ import annotations

import copy
import random
from typing import Any

INTERESTING: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**18, 10**40, -(10**18), 0.0, -0.5, 1e-320, 1e308, "", " ", "0", "null",
    "x" * 300, "x" * 70_000, "../../etc/passwd", "/", "~nosuchuser", "a\0b", "\x1b[2J", "é\u0301", "\ud800", "😀" * 40,
    "models://..", "dataset://", "10Gi", "1e3", "2026-02-31", "${oc.env:HOME}", "{{ 7*7 }}", "a: b: c", [], {}, [[]],
    [None], {"": ""}, {"a": {"a": {"a": {}}}}, ["x"] * 2000,
)  # fmt: skip
"""Values that are at, or beyond, the edge of what some field takes."""
PIECES = (
    b"\0", b"\xff" * 4, b"\n", b"{", b"[" * 3000, b'"', b"&a [*a]", b"<<: *x", b"!!python/object:os.system", b"---\n",
    b"\xef\xbb\xbf", b"\xff\xfe", b"%s%n", b"1" * 5000, b"-0", b"\x80\x04", b"cos\nsystem\n(S'id'\ntR.",
)  # fmt: skip
MAX_BYTES = 4 << 20


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """A copy with one to eight changes: bits, bytes, numbers, pieces put in, taken out, repeated or exchanged."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        _change(data, rng)
    return bytes(data[:MAX_BYTES])


def _change(data: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    length = rng.choice((1, 2, 4, 8, 64, 1000))
    match rng.randrange(8):
        case 0 if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        case 1:
            data[at : at + length] = rng.randbytes(length)
        case 2:
            del data[at : at + length]
        case 3:
            del data[at:]
        case 4:
            data[at:at] = rng.choice(PIECES)
        case 5:
            data[at:at] = data[at : at + length] * rng.choice((1, 2, 30))
        case 6:
            number = rng.choice((0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62))
            data[at : at + 8] = number.to_bytes(8, rng.choice(("big", "little")))
        case _:
            other = rng.randrange(len(data) + 1)
            data[at : at + length], data[other : other + length] = (
                data[other : other + length],
                data[at : at + length],
            )


def mutate_value(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one to four changes of its parts: other types, bounds, names, repetitions."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 4))):
        parents = list(_containers(value))
        parent = rng.choice(parents)
        if isinstance(parent, list):
            _change_list(parent, rng)
        else:
            _change_mapping(parent, rng, parents)
    return value


def _containers(value: Any) -> Any:
    if isinstance(value, dict | list):
        yield value
        for one in value.values() if isinstance(value, dict) else value:
            yield from _containers(one)


def _change_list(parent: list[Any], rng: random.Random) -> None:
    if not parent or rng.random() < 0.3:
        parent.append(copy.deepcopy(rng.choice(INTERESTING)))
    elif rng.random() < 0.3:
        parent[:] = [] if rng.random() < 0.3 else _repeated(parent, rng.choice((2, 40)))
    else:
        parent[rng.randrange(len(parent))] = copy.deepcopy(rng.choice(INTERESTING))


def _repeated(values: list[Any], times: int) -> list[Any]:
    """The values several times, each a value of its own, as in JSON."""
    return [copy.deepcopy(one) for one in values * times]


def _change_mapping(parent: dict[str, Any], rng: random.Random, others: list[Any]) -> None:
    names = list(parent)
    if not names or rng.random() < 0.1:
        parent[rng.choice(("x", "", "extra field", "__class__", "a" * 300))] = rng.choice((1, {}))
        return
    name = rng.choice(names)
    match rng.randrange(6):
        case 0:
            del parent[name]
        case 1:
            parent[name + rng.choice(("s", " ", "\0"))] = parent.pop(name)
        case 2:
            parent[name] = copy.deepcopy(rng.choice(others))
        case 3 if isinstance(parent[name], int | float):
            parent[name] = parent[name] * rng.choice((-1, 0, 1000, 10**12)) + rng.choice(
                (0, 1, 0.5)
            )
        case 4 if isinstance(parent[name], str):
            parent[name] = mutate_text(parent[name], rng)
        case _:
            parent[name] = copy.deepcopy(rng.choice(INTERESTING))


def mutate_text(text: str, rng: random.Random) -> str:
    """A copy of a text with one change."""
    at = rng.randrange(len(text) + 1)
    piece = rng.choice(("", "\0", "\n", "/..", " ", "-" * 70, "é", "\x1b", "=", "%", "1" * 30, "A"))
    return text[:at] + piece + text[at + rng.choice((0, 1, 4)) :]
