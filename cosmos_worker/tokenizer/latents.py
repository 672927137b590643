"""Latents on disk: safetensors shards keyed by window, written whole or not at all, read memory-mapped."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.storage.volumes import atomic_write

SHARD_PATTERN = "latents-*.safetensors"
WINDOWS_PER_SHARD = 256
HEADER = "latents"
"""Metadata entry of a shard: JSON of its fingerprint, the SHA-256 of its latents, the CRC-32 of each, and a checksum
of this entry itself; shards of earlier versions have the first two."""
CHECK = "check"
"""Entry of the header with its own checksum."""
REMEDY = "delete the file and run cache-latents again"


def shard_path(folder: Path, number: int) -> Path:
    """Path of a shard by its number."""
    return folder / f"latents-{number:05d}.safetensors"


def shard_number(path: Path) -> int:
    """Number of a shard by the path of its file, or of its temporary file; DataError for other names."""
    match = re.match(r"\.?latents-(\d+)\.", path.name)
    if match is None:
        raise DataError(f"{path}: not named by cache-latents; remove it from the folder")
    return int(match[1])


def count_shards(folder: Path) -> int:
    """Number of complete shards in a folder."""
    return sum(1 for _ in folder.glob(SHARD_PATTERN))


class LatentStore:
    """Latents of a folder, mapped into memory shard by shard; the object can be given to worker processes."""

    def __init__(self, folder: Path) -> None:
        """Read the headers of all shards.

        Raises:
            DataError: no shards, a damaged shard, a window in two shards, or shards of different fingerprints.
        """
        self._folder = folder
        self._shards: dict[str, Path] = {}
        self._open: dict[Path, Any] = {}
        self._headers: dict[Path, dict[str, Any]] = {}
        for path in sorted(folder.glob(SHARD_PATTERN)):
            self._add_shard(path)
        if not self._headers:
            raise DataError(f"{folder}: no {SHARD_PATTERN}; run cache-latents first")

    def _add_shard(self, path: Path) -> None:
        shard = self._shard(path)
        metadata = shard.metadata() or {}
        if HEADER not in metadata:
            raise DataError(
                f"{path}: not written by cache-latents, or its header is damaged; remove it and run cache-latents again"
            )
        self._headers[path] = _read_header(path, metadata[HEADER])
        if self._headers[path]["fingerprint"] != self.fingerprint:
            raise DataError(
                f"{path}: made from another dataset, tokenizer or video size than the shards before it; {REMEDY}"
            )
        for window_id in shard.keys():  # noqa: SIM118 - safe_open is not a mapping
            if window_id in self._shards:
                raise DataError(
                    f"{path}: window {window_id} is also in {self._shards[window_id].name}; {REMEDY}"
                )
            self._shards[window_id] = path

    def __getstate__(self) -> dict[str, Any]:
        """Without open files, which cannot go to another process."""
        return {**self.__dict__, "_open": {}}

    def __contains__(self, window_id: object) -> bool:
        return window_id in self._shards

    def __len__(self) -> int:
        return len(self._shards)

    @property
    def num_shards(self) -> int:
        """Number of shards that were found."""
        return len(self._headers)

    @property
    def window_ids(self) -> list[str]:
        """Ids of the windows in the order of the shards, sorted inside a shard."""
        return list(self._shards)

    @property
    def fingerprint(self) -> str:
        """Digest of dataset, tokenizer and video size from which the latents were made, as the writer was given it."""
        return str(next(iter(self._headers.values()))["fingerprint"])

    @property
    def digest(self) -> str:
        """SHA-256 over window ids and latents, from the digests that the shards recorded, 64 hex digits."""
        whole = hashlib.sha256(self.fingerprint.encode())
        for header in self._headers.values():
            whole.update(header["sha256"].encode())
        return whole.hexdigest()

    def get(self, window_id: str) -> Tensor:
        """Read the latent of a window: (C, T, H, W), in the type in which it was stored.

        Raises:
            DataError: unknown window, unreadable shard, other values than were written, NaN or infinite values.
        """
        path = self._shards.get(window_id)
        if path is None:
            raise DataError(
                f"{self._folder}: no latent of window {window_id} among {len(self)}; "
                "run cache-latents again for this dataset"
            )
        latent: Tensor = self._shard(path).get_tensor(window_id)
        expected = self._headers[path].get("crc32", {}).get(window_id)
        if expected is not None and _crc32(latent) != expected:
            raise DataError(
                f"{path}: the latent of window {window_id} fails its checksum; {REMEDY}"
            )
        if not bool(torch.isfinite(latent).all()):
            raise DataError(f"{path}: window {window_id}: NaN or infinite values; {REMEDY}")
        return latent.clone()  # a change to the caller's copy must not be seen by the next reader

    def verify(self, first: int = 0, step: int = 1) -> None:
        """Read shards whole and compare them with the digests that they recorded.

        Args:
            first: number of the first shard to read, among those that were found.
            step: difference to the next one, so that several processes can share the work.

        Raises:
            DataError: a shard has other latents than were written.
        """
        for path in list(self._headers)[first::step]:
            shard = self._shard(path)
            latents = {window_id: shard.get_tensor(window_id) for window_id in shard.keys()}  # noqa: SIM118
            if _digest(latents) != self._headers[path]["sha256"]:
                raise DataError(
                    f"{path}: is not what cache-latents wrote, by its SHA-256; {REMEDY}"
                )

    def _shard(self, path: Path) -> Any:  # noqa: ANN401 - safe_open has no types
        if path not in self._open:
            try:
                self._open[path] = safetensors.safe_open(path, framework="pt")
            except safetensors.SafetensorError as error:
                raise DataError(f"{path}: damaged or truncated ({error}); {REMEDY}") from None
            except FileNotFoundError:
                raise DataError(
                    f"{path}: the shard has disappeared; run cache-latents again"
                ) from None
        return self._open[path]


class LatentWriter:
    """Adds latents to a folder, shard by shard; the shards that an interrupted writer has completed stay.

    Use as a context manager: leaving it without an error writes the last, shorter shard. Several processes may fill
    one folder, each with a writer of its own rank: writer r of w takes the shards r, r + w, r + 2w ..
    """

    def __init__(
        self,
        folder: Path,
        fingerprint: str,
        windows_per_shard: int = WINDOWS_PER_SHARD,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Open a folder, new or with shards of the same fingerprint.

        Args:
            folder: is created.
            fingerprint: digest of dataset, tokenizer and video size, from which the latents are made.
            windows_per_shard: windows of a full shard.
            rank: number of this writer among those of the folder, from 0.
            world_size: number of writers of the folder.

        Raises:
            DataError: the folder holds latents with another fingerprint, or a damaged shard.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._fingerprint = fingerprint
        self._windows_per_shard = windows_per_shard
        self._rank, self._world_size = rank, world_size
        self._pending: dict[str, Tensor] = {}
        for rest in folder.glob(f".{SHARD_PATTERN}.*.tmp"):
            if shard_number(rest) % world_size == rank:
                rest.unlink()  # of a writer that was killed
        paths = sorted(folder.glob(SHARD_PATTERN))
        self._done: set[str] = set()
        if paths:
            store = LatentStore(folder)
            if store.fingerprint != fingerprint:
                raise DataError(
                    f"{folder}: holds latents of another dataset, tokenizer or video size; "
                    "delete the folder or choose another target_uri"
                )
            self._done = set(store.window_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.flush()

    @property
    def done(self) -> frozenset[str]:
        """Ids of the windows whose shards are complete on disk."""
        return frozenset(self._done)

    def begin_shards(self, windows_per_shard: int) -> None:
        """Write the queued latents as a shard, then begin shards of this many windows, such as of another size."""
        self.flush()
        self._windows_per_shard = windows_per_shard

    def add(self, window_id: str, latent_CTHW: Tensor) -> None:
        """Queue one latent; a full shard is written at once.

        Raises:
            DataError: NaN or infinite values, or a window that was added before.
            RetryableError: disk full.
        """
        if window_id in self._done or window_id in self._pending:
            raise DataError(f"{self._folder}: window {window_id} was added twice")
        if not bool(torch.isfinite(latent_CTHW).all()):
            raise DataError(
                f"window {window_id}: its latent has NaN or infinite values; check this stretch of the clip, or "
                "encode with tokenizer.dtype=float32"
            )
        self._pending[window_id] = latent_CTHW.detach().cpu().contiguous()
        if len(self._pending) >= self._windows_per_shard:
            self.flush()

    def flush(self) -> None:
        """Write the queued latents as one shard.

        Raises:
            RetryableError: disk full.
        """
        if not self._pending:
            return
        header: dict[str, Any] = {
            "fingerprint": self._fingerprint,
            "sha256": _digest(self._pending),
            "crc32": {window_id: _crc32(latent) for window_id, latent in self._pending.items()},
        }
        header[CHECK] = _header_check(header)
        # One entry: safetensors writes several in random order, and equal latents shall give equal files.
        metadata = {HEADER: json.dumps(header, sort_keys=True)}
        path = self._free_path()
        content = save(self._pending, metadata)
        try:
            with atomic_write(path) as stream:
                stream.write(content)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise RetryableError(
                f"{path}: disk full while writing {len(content)} bytes; free space and run again, "
                f"{len(self._done)} windows are kept"
            ) from None
        self._done.update(self._pending)
        self._pending = {}

    def _free_path(self) -> Path:
        """Path of this writer's first shard that does not exist, so that a deleted one is written again there."""
        numbers = itertools.count(self._rank, self._world_size)
        paths = (shard_path(self._folder, number) for number in numbers)
        return next(path for path in paths if not path.exists())


def _read_header(path: Path, text: str) -> dict[str, Any]:
    """The header of a shard.

    Raises:
        DataError: it is damaged.
    """
    try:
        header = json.loads(text)
        is_whole = isinstance(header["fingerprint"], str) and isinstance(header["sha256"], str)
        if CHECK in header or "crc32" in header:
            is_whole = is_whole and header.get(CHECK) == _header_check(header)
    except (ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise DataError(f"{path}: its header is damaged; {REMEDY}")
    return dict(header)


def _header_check(header: dict[str, Any]) -> str:
    """First 16 hex digits of the SHA-256 of a header without its own checksum."""
    rest = {name: value for name, value in header.items() if name != CHECK}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def _crc32(latent: Tensor) -> int:
    """CRC-32 of the bytes of a latent."""
    return zlib.crc32(latent.contiguous().view(torch.uint8).numpy().data)


def _digest(latents: dict[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and values, sorted by name."""
    whole = hashlib.sha256()
    for window_id, latent in sorted(latents.items()):
        whole.update(f"{window_id} {latent.dtype} {tuple(latent.shape)}\n".encode())
        whole.update(latent.view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


def write_latents(
    folder: Path, latents: Iterable[tuple[str, Tensor]], fingerprint: str
) -> LatentStore:
    """Write all (window_id, latent) pairs and open the result."""
    with LatentWriter(folder, fingerprint) as writer:
        for window_id, latent in latents:
            writer.add(window_id, latent)
    return LatentStore(folder)
