"""Sources that are folders or become one: fetched once, moved into their target whole, never over other files."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cosmos_worker.config.addresses import recorded, shown_address
from cosmos_worker.config.source import S3Source, Source
from cosmos_worker.errors import DataError
from cosmos_worker.sources.archive import (
    extract_file,
    extract_url,
)
from cosmos_worker.sources.hub import download_repository
from cosmos_worker.storage.volumes import (
    Volumes,
    content_key,
    sha256_of_file,
    sync_folder,
    write_json,
)

logger = logging.getLogger(__name__)

LINK_SIZE_BYTES = 64 << 20
"""Files of at least this size are hard-linked where source and target share a file system."""
RECORD_FILE = "fetched.json"
"""In a fetched folder: the source that it was fetched from."""
Facts = dict[str, dict[str, int | str]]
"""File name → size_bytes and sha256."""


def locate_dataset(source: Source, data_folder: Path, volumes: Volumes) -> Path:
    """The folder with the dataset's files; fetches them into ``data_folder`` unless they are there already.

    Raises:
        DataError: no such folder, an unusable archive, repository or bucket, or a data folder with other content.
        RetryableError: the network fails.
    """
    if source.path is not None:
        folder = volumes.resolve(source.path)
        if not folder.is_dir():
            raise DataError(
                f"dataset.source.path {source.path}: {folder} is no folder; correct the path or mount its volume"
            )
        return folder
    if is_fetched(source, data_folder):
        logger.info(
            "dataset already fetched at=%s folder=%s (what has changed at its address since is not fetched again; give "
            "changed files another address)",
            _time_of(data_folder / RECORD_FILE), data_folder,
        )  # fmt: skip
        return data_folder
    data_folder.parent.mkdir(parents=True, exist_ok=True)
    if source.url is not None:
        _fetch_archive(source, data_folder)
        return data_folder
    if source.s3 is not None:
        _fetch_objects(source, source.s3, data_folder)
        return data_folder
    return _fetch_repository(source, data_folder)


def is_fetched(source: Source, folder: Path) -> bool:
    """True if ``folder`` holds this source, False if it is empty or absent.

    Raises:
        DataError: it holds something else, which is not overwritten.
    """
    record = folder / RECORD_FILE
    if record.is_file():
        present = json.loads(record.read_text(encoding="utf-8"))
        wanted = source.model_dump(mode="json", exclude_none=True)
        if present in (
            recorded(wanted),
            wanted,
        ):  # the latter by versions that recorded whole addresses
            return True
    elif not folder.is_dir() or not any(folder.iterdir()):
        return False
    else:
        present = "files of unknown origin"
    wanted = source.model_dump(mode="json", exclude_none=True)
    raise DataError(
        f"{folder}: already holds {_shown(present)}, not {_shown(wanted)}; remove the folder or fetch into another one"
    )


def _time_of(path: Path) -> str:
    seconds = path.stat().st_mtime
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _shown(source: object) -> str:
    """A source as messages show it, without a signature in its address."""
    match source:
        case {"url": {"url": str(address), **others}}:
            return str({"url": {"url": shown_address(address), **others}})
    return str(source)


def _fetch_archive(source: Source, folder: Path) -> None:
    assert source.url is not None
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        content = Path(temporary) / "content"
        content.mkdir()
        extract_url(source.url, content)
        _publish(source, content, folder)


def _fetch_repository(source: Source, folder: Path) -> Path:
    assert source.hugging_face is not None
    partial = partial_folder(source, folder)
    content = download_repository(source.hugging_face, partial, "dataset", choose=list)
    if content.parent != partial:
        logger.info("dataset read from the cache folder=%s", content)
        return content
    shutil.rmtree(content / ".cache", ignore_errors=True)  # the Hub library's notes for resuming
    _publish(source, content, folder)
    shutil.rmtree(partial, ignore_errors=True)
    return folder


def partial_folder(source: Source, folder: Path) -> Path:
    """Folder beside the target in which a download of this source is resumed after an interruption."""
    return folder.with_name(f".{folder.name}.{content_key(source.model_dump())}.partial")


def _fetch_objects(source: Source, address: S3Source, folder: Path) -> None:
    """All objects below a prefix, or the files of one that is an archive."""
    from cosmos_worker.sources import s3  # boto3 is loaded only where it is needed

    partial = partial_folder(source, folder)
    with s3.locked_download(partial):
        if is_fetched(source, folder):  # by another process
            return
        found = s3.download_source(address, partial, choose=list)
        with tempfile.TemporaryDirectory(dir=partial, prefix=s3.EXTRACTED) as temporary:
            content = found
            if found.is_file():
                if not s3.is_archive(found.name):
                    raise DataError(
                        f"{address.uri}: is a single file, which is no dataset; give the prefix of a folder, or one of "
                        f"{', '.join(s3.ARCHIVE_SUFFIXES)}"
                    )
                content = Path(temporary) / "content"
                content.mkdir()
                extract_file(found, content, address.uri)
            shutil.copyfile(partial / s3.RECORDS_FILE, content / s3.RECORDS_FILE)
            _publish(source, content, folder)


def _publish(source: Source, content: Path, folder: Path) -> None:
    """Give complete content its final name, unless another job was faster with the same."""
    write_json(content / RECORD_FILE, recorded(source.model_dump(mode="json", exclude_none=True)))
    try:
        content.rename(folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not is_fetched(source, folder):
            raise
    sync_folder(folder.parent)


# --- files of an artifact ----------------------------------------------------------------------


def place_files(files: Mapping[str, Path], target: Path, name: str, *, move: bool) -> Facts:
    """Put files into the target folder, all of them or none, and describe them.

    Args:
        files: name in the target → file to take.
        target: folder, may exist; a file in it that equals the wanted one stays.
        name: the artifact, for messages.
        move: the files may be taken away from where they are.

    Returns:
        File name → size in bytes and sha256.

    Raises:
        DataError: the target holds a different file of one of these names.
    """
    facts = {file: describe_file(path) for file, path in files.items()}
    absent = {}
    for file, path in files.items():
        present = target / file
        if not present.exists():
            absent[file] = path
        elif not present.samefile(path) and describe_file(present) != facts[file]:
            raise DataError(
                f"{name}: {present} exists with other content than the source's {path}; "
                "remove it if nothing needs it, or give the artifact another name"
            )
    if absent:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".incoming.") as folder:
            for file, path in absent.items():
                (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
                _move_or_copy(path, Path(folder) / file, move=move)
            for file in absent:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / file).replace(target / file)
        for parent in {(target / file).parent for file in absent} | {target}:
            sync_folder(parent)
    logger.info("%s files=%d new=%d folder=%s", name, len(files), len(absent), target)
    return facts


def _move_or_copy(path: Path, copy: Path, *, move: bool) -> None:
    """Move, hard-link or copy one file, and sync a copy to disk."""
    path = path.resolve()  # a cached file of the Hub is a link
    if move:
        shutil.move(path, copy)
        return
    if path.stat().st_size >= LINK_SIZE_BYTES:
        try:
            os.link(path, copy)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
            logger.info("copying file=%s reason=%s", path, error.strerror)
    shutil.copyfile(path, copy)
    with copy.open("rb") as stream:
        os.fsync(stream.fileno())


def describe_file(path: Path) -> dict[str, int | str]:
    """Size in bytes and SHA-256."""
    size_bytes = path.stat().st_size
    if size_bytes >= LINK_SIZE_BYTES:
        logger.info("hashing file=%s mib=%d", path, size_bytes >> 20)
    return {"size_bytes": size_bytes, "sha256": sha256_of_file(path)}
