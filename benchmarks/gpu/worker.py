"""The process that measures: parts one after the other on one device, each with its failures told and cleaned up.

It is a process of its own, so that a part that hangs, crashes or breaks the GPU's context ends with it alone.
"""

from __future__ import annotations

import gc
import importlib
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.parts import MODULES, Part
from benchmarks.gpu.sizes import Sizes


class NotHere(Exception):  # noqa: N818 - no error: the part is left out
    """This machine lacks what the part measures."""


Row = dict[str, Any]
"""Cells of a table's row by column: texts, and numbers in the unit that the column names."""


@dataclass
class Job:
    """Inputs of a part, and the place for its results.

    Attributes:
        device: to measure.
        sizes: of networks and videos.
        folder: an empty folder on the disk, removed afterwards.
        figures: numbers that earlier parts have found for later ones, by name.
        tell: sends a kind of message (row, figure, problem, note) and its value.
    """

    device: torch.device
    sizes: Sizes
    folder: Path
    figures: dict[str, float]
    tell: Callable[[str, Any], None]

    def row(self, **cells: object) -> None:
        """Add a row to the part's table."""
        self.tell("row", cells)

    def figure(self, name: str, value: float) -> None:
        """Remember a number for later parts."""
        self.figures[name] = value
        self.tell("figure", (name, value))

    def problem(self, text: str) -> None:
        """Say that something is not as it must be: the part counts as failed, and goes on."""
        self.tell("problem", text)

    def note(self, text: str) -> None:
        """Add a line below the part's table."""
        self.tell("note", text)


def serve(connection: Connection, sizes: Sizes, folder: Path) -> None:
    """Carry out the parts that arrive, until None does.

    Args:
        connection: receives (part, figures); sends (kind, value) of :class:`Job`, and in the end of
            each part ("end", why it failed or None), or ("broken", the same) after which the device cannot be used.
        sizes: of all parts.
        folder: on the disk, where parts may write.
    """
    device = torch.device(sizes.device_type)
    if device.type == "cpu":  # tiny sizes, for trial: compiling would take most of the time
        torch.compiler.set_stance("force_eager")
    while (request := connection.recv()) is not None:
        part, figures = request
        job = Job(device, sizes, folder, figures, lambda *message: connection.send(message))
        failure = carry_out(part, job)
        if not _clean_up(device):
            connection.send(("broken", failure))
            return
        connection.send(("end", failure))


def carry_out(part: Part, job: Job) -> str | None:
    """Run a part; returns why it failed, or None; what is not here is told as an absence."""
    module, _, function = part.function.partition(":")
    try:
        getattr(importlib.import_module(f"{MODULES}.{module}"), function)(job, **part.arguments)
    except NotHere as absence:
        job.tell("absence", str(absence))
    except Exception as error:  # whatever it is, the others are still to be measured
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split()) or "no message"
        if len(reason) > 600:
            reason = f"{reason[:400]} ... {reason[-180:]}"
        return f"{type(error).__name__}: {reason} ({Path(frame.filename).name}:{frame.lineno})"
    return None


def _clean_up(device: torch.device) -> bool:
    """Forget what the part has compiled and allocated; False if the device is broken."""
    torch.compiler.reset()
    gc.collect()
    if device.type != "cuda":
        return True
    try:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    except RuntimeError:
        return False
    return True
