"""The parts of the benchmark in the order of their worth, as data. No torch here.

Each part is one measurement: a function, its arguments, and the seconds that it takes on an H100, compiling and the
loading of weights included. The seconds are **estimates by counting**, not measured: what a part has really taken is
written beside them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MODULES = "benchmarks.gpu"
VECTOR_WORDS = ("net", "train", "sampler", "tokenizer", "rope", "scalars", "res")
"""First words of the names in tests/data/vectors, see ``vectors.py``."""


@dataclass(frozen=True)
class Part:
    """One measurement.

    Attributes:
        table: heading of the table that its rows belong to.
        name: of the part, unique among those of its table.
        seconds: estimate of how long it takes.
        function: ``module:function`` below this package; takes a ``Job`` and the arguments.
        arguments: of the function, by name.
    """

    table: str
    name: str
    seconds: float
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Table and name, by which parts are chosen on the command line."""
        return f"{self.table}: {self.name}"


MACHINE = Part("machine", "facts", 15, "device:tell_facts")
"""The first part, without which the others are not begun."""

# --- the training step --------------------------------------------------------------------------

STEP = "training step"
SHORT, LONG = "short", "long"
"""Windows: 57 frames of 256x320, and 121 of 704x1280; see ``sizes.py``."""


def _step(seconds: float, window: str = SHORT, **variant: str | int | bool) -> Part:
    """A row of the training step: what differs from compiled, no checkpointing, one sample, PyTorch's attention."""
    words = [f"{key}={value}" for key, value in variant.items()]
    name = f"{window}, {', '.join(words) or 'as it is'}"
    return Part(STEP, name, seconds, "steps:measure", {"window": window, "options": variant})


def _video(seconds: float, window: str, compiled: bool) -> Part:
    name = f"{window}, {'compiled' if compiled else 'eager'}"
    arguments = {"window": window, "compiled": compiled}
    return Part("seconds per video", name, seconds, "video:measure", arguments)


def _whole(seconds: float, kind: str, saves: bool) -> Part:
    does = "save, continue" if saves else "three steps, sample"
    arguments = {"kind": kind, "saves": saves}
    return Part("the whole network", f"{kind}: {does}", seconds, "whole:measure", arguments)


def _tokenizer(seconds: float, window: str) -> Part:
    return Part("tokenizer network", window, seconds, "tokenizer:measure", {"window": window})


def all_parts() -> Iterator[Part]:
    """All parts, the most valuable first."""
    for word in VECTOR_WORDS:
        yield Part("vectors", word, 4, "vectors:measure", {"word": word})
    yield Part("rates of this GPU", "matrix products and memory", 5, "rates:measure")
    yield Part("attention kernels", SHORT, 8, "attention:measure", {"window": SHORT})
    yield _step(12, compiled=False)
    yield _step(50)
    yield _tokenizer(15, SHORT)
    yield _video(60, SHORT, compiled=True)
    yield _whole(90, "LoRA", saves=False)
    yield _whole(120, "all weights", saves=False)
    yield _step(50, checkpointing="selective")
    yield _step(50, attention="cudnn")
    yield _step(60, linear="float8")
    yield _step(45, samples=4)
    yield _step(70, LONG, checkpointing="block")
    yield _step(70, LONG, checkpointing="selective")
    yield _tokenizer(30, LONG)
    yield _video(70, LONG, compiled=True)
    yield _whole(60, "LoRA", saves=True)
    yield _whole(260, "all weights", saves=True)
    yield _video(25, SHORT, compiled=False)
    yield Part("attention kernels", LONG, 15, "attention:measure", {"window": LONG})
    yield _step(45, checkpointing="block")
    yield _step(45, samples=2)
    yield _step(50, attention="flash")
    yield _step(50, attention="flash3")
    yield _step(50, attention="efficient")
    yield _step(70, LONG)
    yield _step(70, LONG, checkpointing="block", linear="float8")
    yield _step(15, compiled=False, checkpointing="selective")
    yield _step(15, compiled=False, checkpointing="block")
    yield _step(15, compiled=False, linear="float8")
    yield _step(15, compiled=False, attention="math")
    yield _step(30, LONG, compiled=False, checkpointing="block")
