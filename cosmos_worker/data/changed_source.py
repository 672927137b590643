"""Record the files that an index is made from, and refuse the index once they have changed.

A folder on a claim is known by its path alone, so a job that uses it again finds the index of an earlier one. Size
and time of each file tell a change without reading it. Times count in whole seconds: archives and some file systems
keep no more, and a folder that is put back from one must be the same folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.dataset_files import find_files
from cosmos_worker.data.layouts import (
    clip_lists,
    lerobot,
)
from cosmos_worker.data.layouts.bridge import (
    ANNOTATION_ENDINGS,
    ANNOTATION_FOLDER,
    split_of,
)
from cosmos_worker.data.layouts.videos import find_folders
from cosmos_worker.data.text_files import printable, raise_if_volume
from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import (
    Volumes,
    atomic_write,
)

SOURCE_FILE = "source.json"
"""Beside the index: ``root`` (relative to the source's folder) and ``files``, name → stamp."""
CLIP_PATTERNS: dict[str, tuple[str, ...]] = {
    "lerobot": lerobot.CLIP_PATTERNS,
    "jsonl": clip_lists.CLIP_PATTERNS,
}
"""By layout: patterns of the files that name its clips, relative to the dataset's root."""

Stamp = tuple[int, int] | None
"""Size in bytes and time of the last change in whole seconds; None = no such file."""


def list_files(root: Path, layout: str) -> list[str]:
    """Files that name the clips of a dataset, relative to its root."""
    wanted: dict[str, frozenset[str]] = {}
    if layout == "bridge":
        wanted = {ANNOTATION_FOLDER: ANNOTATION_ENDINGS}
    if layout == "videos":
        wanted = find_folders(root).endings()
    found = [
        name
        for folder, endings in wanted.items()
        for name in find_files(root, folder, endings).names
    ]
    found += [
        path.relative_to(root).as_posix()
        for pattern in CLIP_PATTERNS.get(layout, ())
        for path in root.glob(pattern)
        if path.is_file() and not path.name.startswith(".")
    ]
    return [name for name in found if layout != "bridge" or split_of(name) is not None]


def stamp_files(root: Path, names: Iterable[str]) -> dict[str, Stamp]:
    """Size and time of files, in the order of their names."""
    return {name: _stamp(root / name) for name in sorted(set(names))}


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError as error:
        raise_if_volume(error)
        return None  # absent, a loop of links, a name that is too long: no file that was read
    except ValueError:
        return None  # a name that no file can have
    return status.st_size, status.st_mtime_ns // 10**9


def write_source(target: Path, folder: Path, root: Path, files: Mapping[str, Stamp]) -> None:
    """Write the stamps of the files that an index was made from beside it.

    Args:
        target: folder of the index.
        folder: the source's folder.
        root: the dataset's root, in it.
        files: stamps of all files that were read.
    """
    document = {"root": root.relative_to(folder).as_posix(), "files": files}
    with atomic_write(target / SOURCE_FILE, "w") as stream:
        json.dump(document, stream)


def refuse_changed(config: PrepareDatasetConfig, volumes: Volumes) -> None:
    """Compare the folder of a finished index with what the index was made from.

    A fetched source, a folder that is gone and the index of a version that kept no stamps count as unchanged, and so
    does a folder of the container image, whose files have other times in each version of the image.

    Raises:
        DataError: a file was changed, added or removed since.
    """
    target = volumes.resolve(config.target_uri)
    record = target / SOURCE_FILE
    if config.source.path is None or not record.is_file():
        return
    if not is_mounted(volumes.resolve(config.source.path)):
        return
    try:
        document = json.loads(record.read_text(encoding="utf-8"))
        root = volumes.resolve(config.source.path) / document["root"]
        then = {name: stamp and (stamp[0], stamp[1]) for name, stamp in document["files"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{record}: damaged ({error}); remove this file if the dataset is as it was"
        ) from None
    now = stamp_files(root, [*then, *list_files(root, config.layout)])
    changed = [name for name in now if now[name] != then.get(name)]
    if not changed or not any(now.values()):
        return
    first, then_was, now_is = printable(changed[0]), then.get(changed[0]), now[changed[0]]
    raise DataError(
        f"dataset.source.path {config.source.path}: {root} has changed since its index was made at "
        f"{_format_time(record.stat().st_mtime)}: {counted(_num_present(then), 'file')} then, {_num_present(now)} now, "
        f"{counted(len(changed), 'differs', 'differ')}, first {first} ({_describe_stamp(then_was)} then, "
        f"{_describe_stamp(now_is)} now); give the changed dataset another "
        "spec.dataset.name (by hand: another key and target_uri) or put the folder back as it was"
    )


def is_mounted(folder: Path) -> bool:
    """True if a folder is on another file system than the root folder."""
    return any(one.is_mount() for one in (folder, *folder.parents) if one != Path("/"))


def _num_present(files: Mapping[str, Stamp]) -> int:
    return sum(stamp is not None for stamp in files.values())


def _describe_stamp(stamp: Stamp) -> str:
    return "absent" if stamp is None else f"{stamp[0]} bytes of {_format_time(stamp[1])}"


def _format_time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
