"""Embeddings of captions: a store on disk for each encoder, facts of the captions beside it, and padding to a batch.

Files of the store are ``embeddings-<digest>.safetensors`` with embeddings and ``captions-<digest>.json`` with facts.
A file is named after its content, written whole or not at all, and never changed, so any number of processes may add
to one folder, and an interrupted one leaves nothing but valid files. The index is rebuilt from the headers of the
shards when the folder is opened. The encoder is not known here.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import atomic_write, sha256_of_file
from cosmos_worker.text.tokens import TextFacts

SHARD_PATTERN = "embeddings-*.safetensors"
FACTS_PATTERN = "captions-*.json"
METADATA_KEY = "embeddings"
"""Metadata entry of a shard with all its facts as one JSON text: safetensors writes several entries in random order."""
UNSTATED_ENCODER = "unstated"
REMEDY = "delete the file and run embed-text again"

Embedding = NDArray[np.float16]
"""Hidden states of one caption, shape (L, D), no padding, the end token included."""


def caption_key(caption: str) -> str:
    """Name of a caption in the store: SHA-256 of its UTF-8 text."""
    return hashlib.sha256(caption.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class _Entry:
    """Shard of one embedding, its number of tokens and its CRC-32."""

    shard: Path
    length: int
    checksum: int


class EmbeddingStore:
    """The embeddings of one encoder in one folder.

    Args:
        folder: made when something is added; a folder that does not exist is an empty store.
        encoder: identity of the encoder whose embeddings belong here (``t5.encoder_identity``);
            None to read whatever encoder the folder belongs to.

    Raises:
        DataError: the folder belongs to another encoder, or a shard is damaged.
    """

    def __init__(self, folder: Path, encoder: str | None = None) -> None:
        self.folder = folder
        self.encoder = encoder
        self.dim: int | None = None
        self._entries: dict[str, _Entry] = {}
        self._known_shards: set[str] = set()
        self.refresh()

    def __len__(self) -> int:
        """Number of captions."""
        return len(self._entries)

    def __contains__(self, caption: object) -> bool:
        """Say whether a caption has an embedding."""
        return isinstance(caption, str) and caption_key(caption) in self._entries

    def refresh(self) -> None:
        """Read the headers of shards that other processes have added since.

        Raises:
            DataError: as the constructor.
        """
        for shard in sorted(self.folder.glob(SHARD_PATTERN)):
            if shard.name not in self._known_shards:
                self._scan(shard)
                self._known_shards.add(shard.name)

    def missing(self, captions: Iterable[str]) -> list[str]:
        """The distinct captions without an embedding, in the order given."""
        return [caption for caption in dict.fromkeys(captions) if caption not in self]

    def add(self, embeddings: Mapping[str, Embedding]) -> None:
        """Store embeddings as one new shard; they are durable when this returns.

        Args:
            embeddings: caption → float16 (L, D), L >= 1, D as everything else in the store.

        Raises:
            DataError: an embedding of another type, shape or width, or one that is not finite.
        """
        self.refresh()
        if not embeddings:
            return
        self._check(embeddings)
        tensors = {caption_key(caption): array for caption, array in embeddings.items()}
        facts = {
            "encoder": self.encoder or UNSTATED_ENCODER,
            "captions": {caption_key(caption): caption for caption in embeddings},
            "crc32": {key: _checksum(array) for key, array in tensors.items()},
        }
        content = save(
            {key: np.ascontiguousarray(array) for key, array in tensors.items()},
            {METADATA_KEY: json.dumps(facts, sort_keys=True)},
        )
        name = SHARD_PATTERN.replace("*", hashlib.sha256(content).hexdigest()[:16])
        with atomic_write(self.folder / name) as stream:
            stream.write(content)
        self.refresh()

    def get(self, caption: str) -> Embedding:
        """The embedding of a caption, float16 (L, D).

        Raises:
            DataError: the caption was never embedded, or its shard is damaged.
        """
        key = caption_key(caption)
        entry = self._entries.get(key)
        if entry is None:
            raise DataError(
                f"{self.folder}: no embedding of the caption {caption!r}; run embed-text on the "
                "dataset or list the text in extra_captions"
            )
        try:
            with safe_open(entry.shard, framework="numpy") as shard:
                array: Embedding = shard.get_tensor(key)
        except (SafetensorError, FileNotFoundError) as error:
            raise DataError(f"{entry.shard}: damaged shard ({error}); {REMEDY}") from None
        if _checksum(array) != entry.checksum:
            raise DataError(
                f"{entry.shard}: the embedding of {caption!r} fails its checksum; {REMEDY}"
            )
        return array

    def length(self, caption: str) -> int:
        """Number of tokens L of a caption that the store has, without reading its embedding."""
        return self._entries[caption_key(caption)].length

    def equal(self, captions: Iterable[str]) -> list[list[str]]:
        """Groups of distinct captions that have the same embedding to the last bit, in the order given.

        Raises:
            DataError: as :meth:`get`; only embeddings with equal checksums are read.
        """
        alike: dict[tuple[int, int], list[str]] = {}
        for caption in dict.fromkeys(captions):
            entry = self._entries[caption_key(caption)]
            alike.setdefault((entry.length, entry.checksum), []).append(caption)
        groups: dict[bytes, list[str]] = {}
        for members in alike.values():
            if len(members) > 1:
                for caption in members:
                    groups.setdefault(self.get(caption).tobytes(), []).append(caption)
        return [group for group in groups.values() if len(group) > 1]

    def verify(self, first: int = 0, step: int = 1) -> None:
        """Read the files of the folder whole and compare them with the digests in their names.

        Args:
            first: number of the first file to read, in the order of their names.
            step: difference to the next one, so that several processes can share the work.

        Raises:
            DataError: a file has another content than was written.
        """
        files = [*self.folder.glob(SHARD_PATTERN), *self.folder.glob(FACTS_PATTERN)]
        for path in sorted(files)[first::step]:
            if not sha256_of_file(path).startswith(path.stem.rpartition("-")[2]):
                raise DataError(
                    f"{path}: is not what embed-text wrote, by the SHA-256 in its name; {REMEDY}"
                )

    def _scan(self, shard: Path) -> None:
        try:
            with safe_open(shard, framework="numpy") as handle:
                facts = json.loads((handle.metadata() or {})[METADATA_KEY])
                shapes = {key: handle.get_slice(key).get_shape() for key in handle.keys()}  # noqa: SIM118
            encoder, checksums = facts["encoder"], facts["crc32"]
            entries = {
                key: _Entry(shard, length, checksums[key]) for key, (length, _) in shapes.items()
            }
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{shard}: damaged shard ({error}); {REMEDY}") from None
        self._adopt_encoder(shard, encoder)
        for _, dim in shapes.values():
            self._adopt_dim(str(shard), dim)
        for key, entry in entries.items():
            self._entries.setdefault(key, entry)

    def _adopt_encoder(self, shard: Path, encoder: str) -> None:
        if self.encoder is None:
            self.encoder = encoder
        elif self.encoder != encoder:
            raise DataError(
                f"{shard}: made by encoder {encoder}, expected {self.encoder}; "
                "use a folder of its own for each encoder and max_length, or delete the file"
            )

    def _adopt_dim(self, where: str, dim: int) -> None:
        if self.dim is None:
            self.dim = dim
        elif self.dim != dim:
            raise DataError(
                f"{where}: embedding of width {dim}, the store {self.folder} has width {self.dim}; "
                "use a folder of its own for each encoder"
            )

    def _check(self, embeddings: Mapping[str, Embedding]) -> None:
        for caption, array in embeddings.items():
            where = f"embedding of {caption!r}"
            if array.dtype != np.float16 or array.ndim != 2 or array.shape[0] == 0:
                raise DataError(
                    f"{where}: got {array.dtype} {array.shape}, expected float16 (L, D) with L >= 1"
                )
            if not np.isfinite(array).all():
                raise DataError(f"{where}: not finite; the encoder overflows float16, use another")
            self._adopt_dim(where, array.shape[1])


def _checksum(array: Embedding) -> int:
    return zlib.crc32(array.tobytes())


class CaptionFacts:
    """The facts of captions (tokens, unknown share), in files beside the store of their embeddings.

    Args:
        folder: of the store; a folder that does not exist has no facts.
        encoder: identity of the encoder (``t5.encoder_identity``); None to read whatever encoder the folder belongs to.

    Raises:
        DataError: a file is damaged, or belongs to another encoder.
    """

    def __init__(self, folder: Path, encoder: str | None = None) -> None:
        self.folder, self.encoder = folder, encoder
        self._facts: dict[str, TextFacts] = {}
        for path in sorted(folder.glob(FACTS_PATTERN)):
            self._facts |= self._read(path)

    def get(self, caption: str) -> TextFacts | None:
        """The facts of a caption; None = none are stored, as of captions that an earlier version embedded."""
        return self._facts.get(caption_key(caption))

    def missing(self, captions: Iterable[str]) -> list[str]:
        """The distinct captions without facts, in the order given."""
        return [caption for caption in dict.fromkeys(captions) if self.get(caption) is None]

    def add(self, facts: Mapping[str, TextFacts]) -> None:
        """Store the facts of captions as one new file; it is durable when this returns."""
        if not facts:
            return
        own = {caption_key(caption): one for caption, one in facts.items()}
        values = {key: [one.tokens, one.unknown] for key, one in own.items()}
        text = json.dumps({"encoder": self.encoder, "captions": values}, sort_keys=True)
        name = FACTS_PATTERN.replace("*", hashlib.sha256(text.encode()).hexdigest()[:16])
        with atomic_write(self.folder / name, "w") as stream:
            stream.write(text)
        self._facts |= own

    def _read(self, path: Path) -> dict[str, TextFacts]:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            encoder = document["encoder"]
            found = {
                key: TextFacts(int(tokens), float(unknown))
                for key, (tokens, unknown) in document["captions"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error}); {REMEDY}") from None
        if self.encoder is not None and encoder != self.encoder:
            raise DataError(
                f"{path}: made by encoder {encoder}, expected {self.encoder}; "
                "use a folder of its own for each encoder and max_length, or delete the file"
            )
        return found


def pad_text(
    embeddings: Sequence[NDArray[np.float16]], max_length: int, padding: Literal["pad", "trim"]
) -> Tensor:
    """Stack embeddings with zero rows behind the shorter ones; the network has no text mask.

    Args:
        embeddings: B arrays (L, D), L <= max_length, one D.
        max_length: tokens that the network is given at most.
        padding: pad: S = max_length, as pre-training and inference of the reference;
            trim: S = the longest L of the batch, as the reference's post-training (batch of one).

    Returns:
        float32 (B, S, D) on the CPU.

    Raises:
        DataError: an embedding that is longer than max_length, or two widths.
        ValueError: no embedding.

    Source: cosmos_predict1/auxiliary/t5_text_encoder.py (pad), scripts/get_t5_embeddings.py (trim).
    """
    if not embeddings:
        raise ValueError("pad_text: no embedding given")
    dim = embeddings[0].shape[1]
    for array in embeddings:
        if array.shape[1] != dim:
            raise DataError(
                f"text embeddings of widths {dim} and {array.shape[1]} in one batch; "
                "embed all captions with one encoder"
            )
        if array.shape[0] > max_length:
            raise DataError(
                f"text embedding of {array.shape[0]} tokens, text.max_length allows {max_length}; "
                "raise text.max_length or embed with the smaller one"
            )
    size = max_length if padding == "pad" else max(len(array) for array in embeddings)
    batch_BSD = torch.zeros(len(embeddings), size, dim)
    for row_SD, array in zip(batch_BSD, embeddings, strict=True):
        row_SD[: len(array)] = torch.from_numpy(array.astype(np.float32))
    return batch_BSD
