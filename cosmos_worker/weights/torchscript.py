"""The tensors of a TorchScript file by name, as its state_dict() would give them, without running any of its program.

A TorchScript file is a zip file: ``code/`` holds a program, ``data.pkl`` the module with its submodules as objects
whose attributes are tensors and numbers, and ``data/`` the values of the tensors. The program is never opened. The
pickle is read by :mod:`.torch_pickle`, which calls nothing that it names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.torch_file import PICKLE, TorchTensors, read_content
from cosmos_worker.weights.torch_pickle import Inert, TensorRef
from cosmos_worker.weights.torch_zip import read_records

PROGRAM = "code/"
"""Folder of the program."""
MAX_DEPTH = 64
"""Modules in each other, far above those of any network."""
MAX_NAMES = 100_000
"""Attributes of all modules together, far above those of any network."""


class _Module(Inert):
    """Stands for a module: an object of a class of the program, which keeps its attributes and does nothing."""

    attributes: Mapping[str, object]

    def __setstate__(self, state: object) -> None:
        if isinstance(state, Mapping):
            self.attributes = state


def read_script_tensors(path: Path, remedy: str) -> Mapping[str, Tensor]:
    """Parameters, buffers and other tensors of a TorchScript module under their names, memory-mapped when asked for.

    Args:
        path: written by torch.jit.save.
        remedy: ends the messages, such as ``run fetch-model again``.

    Raises:
        CheckpointError: no such file, a damaged one, or one of another kind.
    """
    records = read_records(path, remedy, left_out=(PROGRAM,))
    whole = None if PICKLE not in records else read_content(path, records, _Module)
    if not isinstance(whole, _Module):
        raise CheckpointError(f"{path}: not a TorchScript file: it holds no module; {remedy}")
    refs = {}
    for number, (name, value) in enumerate(_attributes(whole, "", 0)):
        if number >= MAX_NAMES:
            raise CheckpointError(f"{path}: its modules have over {MAX_NAMES} attributes; {remedy}")
        if isinstance(value, TensorRef):
            refs[name] = value
    return TorchTensors(path, refs, records, is_known=False)


def _attributes(module: _Module, prefix: str, depth: int) -> Iterator[tuple[str, object]]:
    """(name, value) of all attributes of a module and of its submodules."""
    for name, value in getattr(module, "attributes", {}).items():
        yield f"{prefix}{name}", value
        if isinstance(value, _Module) and depth < MAX_DEPTH:
            yield from _attributes(value, f"{prefix}{name}.", depth + 1)
