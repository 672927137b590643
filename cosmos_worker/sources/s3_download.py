"""Download objects of a bucket into a folder: several at a time, large ones in pieces that survive an interruption.

Beside the folder lies the state that the next attempt resumes from: ``parts/`` with large objects that are not complete
and the numbers of their complete pieces, and ``objects.jsonl`` with a line for each complete object.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

from cosmos_worker.errors import RetryableError
from cosmos_worker.sources.download_progress import TransferRate
from cosmos_worker.sources.s3_bucket import (
    Bucket,
    StoredObject,
)
from cosmos_worker.sources.s3_digests import (
    Digests,
    digest_file,
    expected_digests,
)
from cosmos_worker.storage.volumes import write_json
from cosmos_worker.storage.web_page import refuse_page

logger = logging.getLogger(__name__)

NUM_CONNECTIONS = 8
PIECE_BYTES = 32 << 20
"""Objects of more bytes are fetched in pieces of so many, each of which an interruption loses at most."""
WAITING = 4 * NUM_CONNECTIONS
"""Most pieces that wait for a thread."""
OBJECTS_FILE = "objects.jsonl"


class ObjectRecords:
    """The complete objects of a folder, one JSON line each: name, size_bytes, etag, sha256."""

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one; a line that an interruption has cut is left out."""
        self.path = path
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._stream: IO[str]
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
                try:
                    entry = json.loads(line)
                    self._known[entry["name"]] = entry
                except (ValueError, TypeError, KeyError):
                    continue

    def __enter__(self) -> Self:
        self._stream = self.path.open("a", encoding="utf-8")
        self._stream.write("\n")  # ends a line that was cut
        return self

    def __exit__(self, *error: object) -> None:
        self._stream.close()

    def has(self, name: str, item: StoredObject, path: Path) -> bool:
        """True if the file is complete and of this version of the object; False for an object without ETag."""
        entry = self._known.get(name, {})
        same = (entry.get("etag"), entry.get("size_bytes")) == (item.etag, item.size_bytes)
        return (
            bool(item.etag) and same and path.is_file() and path.stat().st_size == item.size_bytes
        )

    def add(self, name: str, item: StoredObject, sha256: str) -> None:
        """Note a complete object; threads may call this at the same time."""
        entry = {"name": name, "size_bytes": item.size_bytes, "etag": item.etag, "sha256": sha256}
        with self._lock:
            self._known[name] = entry
            self._stream.write(f"{json.dumps(entry)}\n")
            self._stream.flush()

    def write(self, path: Path, names: Sequence[str]) -> None:
        """Write the lines of these objects, sorted, into a file."""
        lines = [json.dumps(self._known[name], ensure_ascii=False) for name in sorted(names)]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


class _Progress:
    """Bytes that have arrived, in log lines, and the event that ends all threads of the download."""

    def __init__(self, what: str, total_bytes: int, done_bytes: int) -> None:
        self._what, self._done = what, done_bytes
        self._rate = TransferRate(what, total_bytes, done_bytes)
        self._lock = threading.Lock()
        self.stop = threading.Event()

    def add(self, num_bytes: int) -> None:
        """Count bytes; ends the thread if another one has failed."""
        if self.stop.is_set():
            raise RetryableError(f"{self._what}: stopped")
        with self._lock:
            self._done += num_bytes
            self._rate.report(self._done)

    def close(self) -> None:
        """End all threads of the download, and close the bar."""
        self.stop.set()
        self._rate.close()

    def describe(self) -> str:
        """``mib=120/14336 mib_per_s=85.2 eta_s=167``."""
        return self._rate.describe(self._done)


class _LargeObject:
    """An object that is fetched in pieces, in any order, into a file of its own until it is complete."""

    def __init__(self, folder: Path, name: str, item: StoredObject) -> None:
        stem = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.item, self.path = item, folder / f"{stem}.part"
        self._state, self._lock = folder / f"{stem}.json", threading.Lock()
        self._identity = {"name": name, "etag": item.etag, "size_bytes": item.size_bytes}
        self._identity["piece_bytes"] = PIECE_BYTES
        self._done: set[int] = set()
        if item.etag and self.path.is_file() and self._state.is_file():
            state = json.loads(self._state.read_text(encoding="utf-8"))
            if {**state, "done": None} == {**self._identity, "done": None}:
                self._done = set(state["done"])
        if not self._done:
            folder.mkdir(parents=True, exist_ok=True)
            self.path.write_bytes(b"")
        os.truncate(self.path, item.size_bytes)

    @property
    def done_bytes(self) -> int:
        """Bytes of the pieces that are there."""
        return sum(stop - start for start, stop in map(self.span, self._done))

    def span(self, number: int) -> tuple[int, int]:
        """First byte of a piece, and the one after its last."""
        start = number * PIECE_BYTES
        return start, min(start + PIECE_BYTES, self.item.size_bytes)

    def missing(self) -> list[int]:
        """Numbers of the pieces that are not there."""
        number = -(-self.item.size_bytes // PIECE_BYTES)
        return [piece for piece in range(number) if piece not in self._done]

    def finish_piece(self, number: int) -> bool:
        """Note a piece that is on disk; returns True if the object is complete now."""
        with self._lock:
            self._done.add(number)
            write_json(self._state, {**self._identity, "done": sorted(self._done)})
            return not self.missing()

    def remove(self) -> None:
        """Remove all that has arrived."""
        self.path.unlink(missing_ok=True)
        self._state.unlink(missing_ok=True)


class _Download:
    """The download of several objects into one folder."""

    def __init__(
        self,
        bucket: Bucket,
        wanted: Mapping[str, StoredObject],
        folder: Path,
        records: ObjectRecords,
    ) -> None:
        self.bucket, self.wanted, self.folder, self.records = bucket, wanted, folder, records
        absent = [n for n, item in wanted.items() if not records.has(n, item, folder / n)]
        parts = folder.parent / "parts"
        self.small = [name for name in absent if wanted[name].size_bytes <= PIECE_BYTES]
        self.large = {
            name: _LargeObject(parts, name, wanted[name])
            for name in absent
            if wanted[name].size_bytes > PIECE_BYTES
        }
        total = sum(item.size_bytes for item in wanted.values())
        left = sum(wanted[name].size_bytes for name in absent) - sum(
            o.done_bytes for o in self.large.values()
        )
        self.progress = _Progress(f"uri=s3://{bucket.name}/{bucket.key}", total, total - left)
        logger.info(
            "fetching uri=s3://%s/%s objects=%d complete=%d mib=%d left_mib=%d",
            bucket.name, bucket.key, len(wanted), len(wanted) - len(absent), total >> 20, left >> 20,
        )  # fmt: skip

    def tasks(self) -> Iterator[Callable[[], None]]:
        """Calls that fetch everything that is not there, each at most a piece."""
        for name, large in self.large.items():
            missing = large.missing()
            if not missing:  # interrupted between the last piece and the end
                yield partial(self._finish_large, name)
            for number in missing:
                yield partial(self._fetch_piece, name, number)
        for name in self.small:
            yield partial(self._fetch_small, name)

    def _fetch_small(self, name: str) -> None:
        item, path = self.wanted[name], self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder.parent / f"{threading.get_ident()}.small"
        digests = Digests()
        with temporary.open("wb") as stream:

            def write(position: int, piece: bytes) -> None:
                stream.write(piece)
                digests.update(piece)
                self.progress.add(len(piece))

            answer = self.bucket.read(item, 0, item.size_bytes, write)
            stream.flush()
            os.fsync(stream.fileno())  # before the record says that the object is complete
        self._finish_object(name, temporary, digests, answer)

    def _fetch_piece(self, name: str, number: int) -> None:
        large = self.large[name]
        with large.path.open("r+b") as stream:

            def write(position: int, piece: bytes) -> None:
                stream.seek(position)
                stream.write(piece)
                self.progress.add(len(piece))

            self.bucket.read(large.item, *large.span(number), write)
            stream.flush()
            os.fsync(stream.fileno())
        if large.finish_piece(number):
            self._finish_large(name)

    def _finish_large(self, name: str) -> None:
        large = self.large[name]
        answer = self.bucket.describe(large.item)
        try:
            self._finish_object(name, large.path, digest_file(large.path), answer)
        finally:
            large.remove()

    def _finish_object(
        self, name: str, path: Path, digests: Digests, answer: Mapping[str, Any]
    ) -> None:
        """Give a complete file its name, if its digests are those that the store gives."""
        item = self.wanted[name]
        where = f"s3://{self.bucket.name}/{item.key}"
        wrong = digests.differing(expected_digests(answer, item.etag, self.bucket.name))
        if wrong is not None:
            path.unlink()
            raise RetryableError(
                f"{where}: arrived with another {wrong} than the store says; run again"
            )
        refuse_page(path, where, name)
        (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(self.folder / name)
        self.records.add(name, item, digests.sha256)


def download_objects(
    bucket: Bucket, wanted: Mapping[str, StoredObject], folder: Path, records: ObjectRecords
) -> None:
    """Fetch objects into a folder; what an earlier attempt has got of the same versions is not fetched again.

    Args:
        bucket: where they are.
        wanted: name below the folder → object.
        folder: receives them, and holds nothing else afterwards; its parent holds what is not complete.
        records: notes each complete object.

    Raises:
        DataError: the store refuses, or an object is a web page.
        RetryableError: the network fails, or an object has changed or does not arrive as the store has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in list(folder.rglob("*")):
        if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    download = _Download(bucket, wanted, folder, records)
    pool = ThreadPoolExecutor(NUM_CONNECTIONS, thread_name_prefix="fetch-objects")
    pending: set[Future[None]] = set()
    try:
        for task in download.tasks():
            pending.add(pool.submit(task))
            if len(pending) >= WAITING:
                pending = _wait_for_one(pending)
        while pending:
            pending = _wait_for_one(pending)
    finally:
        download.progress.close()
        pool.shutdown(cancel_futures=True)
    logger.info("fetched uri=s3://%s/%s %s", bucket.name, bucket.key, download.progress.describe())


def _wait_for_one(pending: set[Future[None]]) -> set[Future[None]]:
    """Wait until one has ended; returns the others. Raises the exception of a thread that failed."""
    done, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in done:
        future.result()
    return rest
