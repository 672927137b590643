"""One file of tensors, whatever its name: known by its content, or refused by what it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import (
    SAFETENSORS,
    TORCH_ZIP,
    describe_pointer,
    is_pointer,
    recognise,
)
from cosmos_worker.weights.forms import INDEX_SUFFIX
from cosmos_worker.weights.safetensors import (
    LazyTensors,
    find_tensors,
)
from cosmos_worker.weights.tensors import Prefer
from cosmos_worker.weights.torch_file import read_torch_file


def open_tensors(
    path: Path, is_known: bool = False, prefer: Prefer = "average"
) -> Mapping[str, Tensor]:
    """Tensors of a file, or of the shards of an index, under the names in it; each is read when it is asked for.

    Args:
        path: of torch.save or safetensors.
        is_known: whether its content is known to be right, so that checksums need not be compared.
        prefer: what is taken of a file that has the network and its average apart.

    Raises:
        CheckpointError: a damaged file, or one of another kind, which is named.
    """
    if is_pointer(path):
        raise CheckpointError(describe_pointer(path))
    if path.name.endswith(INDEX_SUFFIX):
        return LazyTensors(find_tensors(path))
    kind = recognise(path) if path.is_file() else None
    if kind == SAFETENSORS or (kind is None and path.suffix == ".safetensors"):
        return LazyTensors(find_tensors(path))
    if kind in (TORCH_ZIP, None) or kind.startswith("a pickle"):
        return read_torch_file(path, is_known, prefer)
    remedy = (
        "fetch it again"
        if kind.startswith(("an empty", "an HTML page"))
        else "give the network's weights as torch.save or safetensors writes them, whole"
    )
    raise CheckpointError(f"{path}: {kind}, which holds no weights that can be read here; {remedy}")


def read_metadata(path: Path) -> dict[str, str]:
    """Texts that a safetensors file has about itself; none of other files."""
    try:
        with safe_open(path, framework="pt") as content:
            return dict(content.metadata() or {})
    except (SafetensorError, OSError):
        return {}
