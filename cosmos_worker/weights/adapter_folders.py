"""Where adapters lie: beside exports of a run, and in ``adapter/`` of a published model; each is whole or absent."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.volumes import (
    ADAPTER_FOLDER,
    adapter_name,
    sync_folder,
)
from cosmos_worker.weights.files import (
    has_adapter,
    locate,
)
from cosmos_worker.weights.forms import TRAINER_FILE


@contextmanager
def replacing_folder(target: Path) -> Iterator[Path]:
    """A new folder under a temporary name that takes the place of another if the block succeeds."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
    try:
        temporary.mkdir()
        yield temporary
        sync_folder(temporary)
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find_adapter(source: Path) -> Path:
    """The folder of the corrections that weights contain.

    Args:
        source: ``iter_*_model.pt`` of a run, its folder ``checkpoints``, a published model, or the adapter itself.

    Raises:
        CheckpointError: no weights, or weights without an adapter.
    """
    if has_adapter(source):
        return source
    file = locate(source)
    match = TRAINER_FILE.match(file.name)
    beside = ADAPTER_FOLDER if match is None else adapter_name(int(match[1]), match[2] or "ema")
    if not has_adapter(file.parent / beside):
        raise CheckpointError(
            f"{source}: {file.name} has no adapter ({file.parent / beside} is not there); a training with lora.rank "
            "writes one for each of its checkpoints, and publish takes it over with outputs.adapter: true"
        )
    return file.parent / beside
