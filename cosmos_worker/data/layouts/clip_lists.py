"""Lists of clips for the Jsonl layout: which files are lists, and one line of them, from JSON or CSV, as a clip.

Source: huggingface/datasets, src/datasets/packaged_modules/folder_based_builder and data_files.py, for metadata files
and names of splits; a-r-r-o-w/finetrainers, docs/dataset/README.md, for the two text files and their names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path, PurePosixPath
from typing import Any

from cosmos_worker.data.dataset_files import check_id, check_path, find_video
from cosmos_worker.data.index import SPLIT_NAMES, Split, split_named
from cosmos_worker.data.layouts.candidate import Candidate
from cosmos_worker.data.problems import BadClip, read_caption
from cosmos_worker.data.text_files import brief
from cosmos_worker.data.video.frame_times import describe_seconds
from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import shorten

VIDEO_KEYS = ("video", "file_name")
"""The video's path: our name, and that of Hugging Face's metadata files."""
CAPTION_KEYS = ("caption", "captions", "text", "prompt")
"""captions is a list; the others are one text, under the names that are usual in metadata files."""
OTHER_KEYS = ("start", "end", "split")
KEYS = (*VIDEO_KEYS, *CAPTION_KEYS, *OTHER_KEYS)
MAX_SECONDS = 1e9


@dataclass(frozen=True)
class ListPlace:
    """Where the lines of a list come from."""

    root: Path
    """The dataset's root."""
    folder: PurePosixPath = field(default_factory=PurePosixPath)
    """Folder of the list, relative to the root: that of its paths."""
    split: Split | None = None
    """That of lines which give none, from the name of the file or folder; None = train."""
    allows_others: bool = False
    """It is a metadata file: lines may have other keys, and a folder of a split in a path says the split."""


def parse_row(row: Mapping[str, Any], where: str, place: ListPlace) -> Candidate:
    """A line of a list as a clip; a key whose value is null counts as not given.

    Args:
        row: key → value.
        where: names the line in messages, such as dataset.jsonl:3.
        place: of the list.

    Raises:
        BadClip: keys or values that cannot be used.
    """
    given = {key: value for key, value in row.items() if value is not None}
    refuse_keys(given, where, place.allows_others)
    key = _one_of(given, VIDEO_KEYS, where, "video_missing")
    path, video = _video(given[key], where, key, place)
    captions = _captions(given, where)
    start, end = (_seconds(given, name, where) for name in ("start", "end"))
    if end is not None and (start or 0.0) >= end:
        value = f"start {_tell(start or 0.0)} is not before end {_tell(end)} (seconds)"
        raise BadClip(where, "annotation_broken", value)
    split = _split(given.get("split"), where, place.split or _split_of_folder(path, place))
    part = "" if start is None and end is None else f":{_tell(start)}-{_tell(end)}"
    return Candidate(
        clip_id=f"{split}/{path}{part}",
        split=split,
        source=where,
        video=video,
        captions=captions,
        start_s=start,
        end_s=end,
        episode=video,
    )


def _tell(seconds: float | None) -> str:
    return "" if seconds is None else describe_seconds(seconds)


def refuse_keys(keys: Iterable[str], where: str, allows_others: bool) -> None:
    """Look for keys that are not known, or that are misspelt known ones.

    Raises:
        BadClip: an unknown key.
    """
    for key in keys:
        if key in KEYS:
            continue
        meant = get_close_matches(key.lower(), KEYS, 1, 0.75)
        if meant or not allows_others:
            hint = f" (is {meant[0]!r} meant?)" if meant else ""
            value = f"unknown key {brief(key)}{hint}; known are {', '.join(KEYS)}"
            raise BadClip(where, "annotation_broken", value)


def _one_of(given: Mapping[str, Any], names: tuple[str, ...], where: str, missing: Any) -> str:  # noqa: ANN401 - a Reason
    found = [name for name in names if name in given]
    if not found:
        raise BadClip(where, missing, f"none of {', '.join(names)} is given")
    if len(found) > 1:
        value = f"both {' and '.join(found)} are given, one of them is allowed"
        raise BadClip(where, "annotation_broken", value)
    return found[0]


def _video(value: object, where: str, key: str, place: ListPlace) -> tuple[str, str]:
    """The video's path relative to the root, as ids have it and as it is on disk."""
    if not isinstance(value, str) or not value.strip():
        raise BadClip(where, "annotation_broken", f"{key} is {brief(value)}, not a path")
    path = (place.folder / check_path(value.strip(), where, key)).as_posix()
    return check_id(path, where, key), find_video(place.root, path, where, key)


def _captions(given: Mapping[str, Any], where: str) -> tuple[str, ...]:
    name = _one_of(given, CAPTION_KEYS, where, "caption_missing")
    value = given[name]
    texts = value if name == "captions" else [value]
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        wanted = "a list of texts" if name == "captions" else "a text"
        raise BadClip(where, "annotation_broken", f"{name} is {brief(value)}, not {wanted}")
    if not texts:
        raise BadClip(where, "caption_empty", f"{name} is {brief(value)}")
    many = len(texts) > 1
    return tuple(
        read_caption(text, where, f"{name}[{i}]" if many else name) for i, text in enumerate(texts)
    )


def _seconds(given: Mapping[str, Any], name: str, where: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value < MAX_SECONDS
        or not math.isfinite(value)
    ):
        told = f"{name} is {brief(value)}, not a time in seconds of at least 0"
        raise BadClip(where, "annotation_broken", told)
    return float(value)


def _split_of_folder(path: str, place: ListPlace) -> Split | None:
    """The split that a folder in the path of a metadata file's video is named after, as in test/a.mp4."""
    folders = PurePosixPath(path).parent.parts if place.allows_others else ()
    return next((split for name in folders if (split := split_named(name)) is not None), None)


def _split(value: object, where: str, of_list: Split | None) -> Split:
    if value is None:
        return of_list or "train"
    split = split_named(value) if isinstance(value, str) else None
    if split is None:
        told = f"split is {brief(value)}; train, val (or validation) and test are allowed"
        raise BadClip(where, "annotation_broken", told)
    if of_list is not None and split != of_list:
        told = f"split is {value!r}, its list or folder is of the split {of_list}"
        raise BadClip(where, "annotation_broken", told)
    return split


def refuse_repeated(candidates: Iterable[Candidate]) -> tuple[list[Candidate], list[BadClip]]:
    """The first of each clip, and a problem for each later line with the same part of the same video."""
    first: dict[tuple[str, float, float | None], Candidate] = {}
    repeated: list[BadClip] = []
    for candidate in candidates:
        part = (candidate.video, candidate.start_s or 0.0, candidate.end_s)
        other = first.setdefault(part, candidate)
        if other is not candidate:
            value = f"the same clip as {other.source}; further captions of a clip belong into captions of one line"
            repeated.append(BadClip(candidate.source, "clip_id_repeated", value))
    return list(first.values()), repeated


OWN_NAME, METADATA_NAME = "dataset", "metadata"
SUFFIXES = (".jsonl", ".csv")
METADATA_SUFFIXES = (*SUFFIXES, ".parquet")
"""Endings of metadata files."""
CAPTION_LISTS = ("captions.txt", "caption.txt", "prompts.txt", "prompt.txt")
VIDEO_LISTS = ("videos.txt", "video.txt")
CLIP_PATTERNS = (
    "*.jsonl",
    "*.csv",
    "metadata.parquet",
    *(f"*/metadata{suffix}" for suffix in METADATA_SUFFIXES),
    *CAPTION_LISTS,
    *VIDEO_LISTS,
)
"""Files that say which clips there are, relative to the dataset's root."""
HOW = "keep one list, or call the one to use dataset.jsonl"


def find_lists(root: Path) -> tuple[str, ...]:
    """The lists of a dataset relative to its root: tables, or a file of captions and one of videos.

    Raises:
        DataError: no list, or several of which none is to be preferred.
    """
    tables = root_tables(root)
    own = _named(tables, OWN_NAME)
    if own:
        _only(root, own)
        return own
    alternatives = [names for names in (_named(tables, METADATA_NAME), _pair(root)) if names]
    parts = _metadata_of_splits(root)
    if parts:
        alternatives.append(parts)
    if not alternatives and tables:
        if all(_split_of(name) for name in tables):
            return tuple(tables)
        alternatives = [tuple(tables)]
    for names in alternatives:
        if names is not parts and not names[0].endswith(".txt"):
            _only(root, names)
    if len(alternatives) > 1:
        _refuse_several(root, [name for names in alternatives for name in names])
    if not alternatives:
        raise DataError(
            f"{root}: no list of clips; write dataset.jsonl with a line such as "
            '{"video": "clips/a.mp4", "caption": "..."} for each'
        )
    return alternatives[0]


def root_tables(root: Path) -> list[str]:
    """JSONL and CSV files in a dataset's root, and a metadata file of parquet."""
    return [
        path.name
        for path in sorted(root.iterdir())
        if (path.suffix.lower() in SUFFIXES or path.name == f"{METADATA_NAME}.parquet")
        and not path.name.startswith(".")
        and path.is_file()
    ]


def has_list(root: Path) -> bool:
    """Whether a folder holds a list of clips that this layout would read, or several."""
    try:
        find_lists(root)
    except DataError as error:
        return "no list of clips" not in str(error)
    except OSError:
        return False
    return True


def _named(tables: list[str], stem: str) -> tuple[str, ...]:
    return tuple(name for name in tables if PurePosixPath(name).stem == stem)


def _split_of(name: str) -> str | None:
    return split_named(PurePosixPath(name).stem)


def _only(root: Path, names: tuple[str, ...]) -> None:
    if len(names) > 1:
        _refuse_several(root, list(names))


def _refuse_several(root: Path, names: list[str]) -> None:
    raise DataError(f"{root}: holds {len(names)} lists of clips ({shorten(names)}); {HOW}")


def _pair(root: Path) -> tuple[str, ...]:
    """The two files of finetrainers: captions, videos."""
    captions = [name for name in CAPTION_LISTS if (root / name).is_file()]
    videos = [name for name in VIDEO_LISTS if (root / name).is_file()]
    if not captions or not videos:
        return ()
    if len(captions) > 1 or len(videos) > 1:
        _refuse_several(root, [*captions, *videos])
    return captions[0], videos[0]


def _metadata_of_splits(root: Path) -> tuple[str, ...]:
    """Metadata files in folders that are named after splits."""
    names: list[str] = []
    for split in sorted(SPLIT_NAMES):
        own = [f"{split}/{METADATA_NAME}{suffix}" for suffix in METADATA_SUFFIXES]
        there = tuple(name for name in own if (root / name).is_file())
        _only(root, there)
        names += there
    return tuple(names)
