"""The Jsonl layout: one list of videos and captions, as JSON lines, CSV, or two text files line by line.

A list is dataset.jsonl (or .csv), Hugging Face's metadata.jsonl (or .csv), in the dataset's root or in folders of
splits; lists of splits such as train.jsonl and val.jsonl; the only .jsonl or .csv file; or finetrainers' prompts.txt
with videos.txt. Paths in a list are relative to its folder.

Source: huggingface/datasets, src/datasets/packaged_modules/folder_based_builder and data_files.py, for metadata files
and names of splits; a-r-r-o-w/finetrainers, docs/dataset/README.md, for the two text files and their names.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from cosmos_worker.captions import TextError
from cosmos_worker.data.candidate import Candidate, Listing, shorten, without_repeated_ids
from cosmos_worker.data.clip_rows import (
    CAPTION_KEYS,
    KEYS,
    SPLIT_NAMES,
    VIDEO_KEYS,
    ListPlace,
    parse_row,
    refuse_keys,
    refuse_repeated,
)
from cosmos_worker.data.dataset_files import VIDEO_ENDINGS, ending_of, most_frequent
from cosmos_worker.data.problems import BadClip, read_text
from cosmos_worker.data.text_files import (
    FileError,
    brief,
    decode_text,
    parse_json,
    read_bytes,
)
from cosmos_worker.errors import DataError

OWN_NAME, METADATA_NAME = "dataset", "metadata"
SUFFIXES = (".jsonl", ".csv")
CAPTION_LISTS = ("captions.txt", "caption.txt", "prompts.txt", "prompt.txt")
VIDEO_LISTS = ("videos.txt", "video.txt")
MAX_LIST_BYTES = 1 << 30
"""Largest list that is read."""
CLIP_PATTERNS = ("*.jsonl", "*.csv", "*/metadata.jsonl", "*/metadata.csv", *CAPTION_LISTS, *VIDEO_LISTS)  # fmt: skip
"""Files that say which clips there are, relative to the dataset's root."""
HOW = "keep one list, or call the one to use dataset.jsonl"

Outcome = Candidate | BadClip


def list_jsonl(root: Path) -> Listing:
    """All clips of a dataset, in the order of its lists.

    Raises:
        DataError: no list, several, one without clips, or one that is damaged as a whole.
    """
    names, notes = find_lists(root), []
    notes.append(f"clips are those of {', '.join(names)}")
    unused = [name for name in _root_tables(root) if name not in names]
    if unused:
        notes.append(f"not used besides: {shorten(unused)}")
    outcomes: list[Outcome] = []
    if names[0].endswith(".txt"):
        outcomes += _read_pair(root, *names)
    else:
        for name in names:
            read = _read_csv if name.lower().endswith(".csv") else _read_jsonl
            outcomes += read(root, name, notes)
    candidates, repeated = refuse_repeated(item for item in outcomes if isinstance(item, Candidate))
    bad = [item for item in outcomes if isinstance(item, BadClip)]
    if not outcomes:
        raise DataError(f"{root / names[0]}: lists no clip; write one line for each")
    return without_repeated_ids(
        Listing(tuple(candidates), (*bad, *repeated), _passed_over(root, candidates), tuple(notes))
    )


def _passed_over(root: Path, candidates: Sequence[Candidate]) -> dict[str, int]:
    """Videos that no line names, in the folders of those that are named: pattern → number."""
    named = {candidate.video for candidate in candidates}
    found: Counter[str] = Counter()
    for folder in sorted({PurePosixPath(name).parent for name in named}):
        if not (root / folder).is_dir():
            continue
        with os.scandir(root / folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
        for name in names:
            ending = ending_of(name)
            if ending in VIDEO_ENDINGS and (folder / name).as_posix() not in named:
                found[f"{(folder / '*').as_posix()}{ending} (of no usable line)"] += 1
    return most_frequent(found, ".")


# --- which lists ------------------------------------------------------------------------------


def find_lists(root: Path) -> tuple[str, ...]:
    """The lists of a dataset relative to its root: tables, or a file of captions and one of videos.

    Raises:
        DataError: no list, or several of which none is to be preferred.
    """
    tables = _root_tables(root)
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


def _root_tables(root: Path) -> list[str]:
    """JSONL and CSV files in a dataset's root."""
    return [
        path.name
        for path in sorted(root.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
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
    return SPLIT_NAMES.get(PurePosixPath(name).stem)


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
        own = [f"{split}/{METADATA_NAME}{suffix}" for suffix in SUFFIXES]
        there = tuple(name for name in own if (root / name).is_file())
        _only(root, there)
        names += there
    return tuple(names)


def _place(root: Path, name: str) -> ListPlace:
    path = PurePosixPath(name)
    split = SPLIT_NAMES.get(path.parent.name) or SPLIT_NAMES.get(path.stem)
    return ListPlace(root, path.parent, split, path.stem == METADATA_NAME)


# --- reading them -----------------------------------------------------------------------------


def _read_jsonl(root: Path, name: str, notes: list[str]) -> Iterator[Outcome]:
    """Clips of a JSONL file; a broken line costs itself only. What is to be told goes into ``notes``."""
    place, others = _place(root, name), set[str]()
    for number, line in enumerate(_lines(root / name), start=1):
        where = f"{name}:{number}"
        try:
            text = decode_text(line).strip() if isinstance(line, bytes) else line.strip()
            if not text:
                continue
            document = parse_json(text)
            if not isinstance(document, dict):
                raise TextError(f"holds {brief(document)}, not an object")
            clip = parse_row(document, where, place)
            others |= document.keys() - set(KEYS)
            yield clip
        except TextError as error:
            yield BadClip(where, "annotation_broken", str(error))
        except BadClip as problem:
            yield problem
    if others and place.allows_others:
        notes.append(f"keys of {name} that are not used: {shorten(sorted(others))}")


def _lines(path: Path) -> Sequence[bytes | str]:
    """Lines of a file, each to be decoded by itself unless they are of two or four bytes a character."""
    try:
        content = read_bytes(path, MAX_LIST_BYTES)
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)):
            return decode_text(content).split("\n")
    except FileError as error:
        raise DataError(f"{path}: {error}; put a file there that can be read") from None
    except TextError as error:
        raise DataError(f"{path}: {error}; save the file as UTF-8") from None
    if b"\n" not in content:
        return content.split(b"\r")
    return content.split(b"\n")


def _read_csv(root: Path, name: str, notes: list[str]) -> Iterator[Outcome]:
    """Clips of a CSV file whose first line names the columns. What is to be told goes into ``notes``."""
    place, path = _place(root, name), root / name
    reader = csv.reader(io.StringIO(read_text(path, name, MAX_LIST_BYTES), newline=""), strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        _check_header(header, path, place)
        for fields in reader:
            where = f"{name}:{reader.line_num}"
            if not any(field.strip() for field in fields):
                continue
            try:
                yield parse_row(_csv_row(header, fields, where), where, place)
            except BadClip as problem:
                yield problem
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: not CSV ({error}); correct it") from None
    others = sorted(set(header) - set(KEYS))
    if others:
        notes.append(f"columns of {name} that are not used: {shorten(others)}")


def _check_header(header: list[str], path: Path, place: ListPlace) -> None:
    """Raise DataError unless the columns are one of videos, one of captions, and others that are allowed."""
    texts = [name for name in CAPTION_KEYS if name != "captions"]
    for names in (list(VIDEO_KEYS), texts):
        found = [name for name in names if name in header]
        if len(found) != 1:
            has = f"has the columns {' and '.join(found)}" if found else "lacks a column"
            raise DataError(
                f"{path}: line 1 {has}, one of {', '.join(names)} is needed (separated by commas; it is "
                f"{brief(','.join(header))}); correct it"
            )
    if len(set(header)) < len(header) or "captions" in header:
        told = (
            "captions, which is a list and for JSON lines only"
            if "captions" in header
            else "a name twice"
        )
        raise DataError(f"{path}: line 1 has {told}; correct it")
    try:
        refuse_keys(header, f"{path}: line 1", place.allows_others)
    except BadClip as problem:
        raise DataError(f"{problem.file}: {problem.value}; correct it") from None


def _csv_row(header: list[str], fields: list[str], where: str) -> dict[str, Any]:
    if len(fields) != len(header):
        value = f"{len(fields)} fields, the first line names {len(header)}"
        raise BadClip(where, "annotation_broken", value)
    row: dict[str, Any] = dict(zip(header, fields, strict=True))
    for name in ("start", "end", "split"):
        if name in row and not row[name].strip():
            row[name] = None
    for name in ("start", "end"):
        if row.get(name) is not None:
            try:
                row[name] = float(row[name])
            except ValueError:
                value = f"{name} is {brief(row[name])}, not a time in seconds of at least 0"
                raise BadClip(where, "annotation_broken", value) from None
    return row


def _read_pair(root: Path, captions: str, videos: str) -> Iterator[Outcome]:
    """Clips of two text files: the caption of a video is the line of the same number."""
    texts, paths = (
        read_text(root / name, name, MAX_LIST_BYTES).rstrip("\n ").split("\n")
        for name in (captions, videos)
    )
    if len(texts) != len(paths):
        raise DataError(
            f"{root}: {captions} has {len(texts)} lines, {videos} has {len(paths)}: which caption belongs to which "
            "video is not known; give each video one line in both"
        )
    place = ListPlace(root)
    for number, (text, path) in enumerate(zip(texts, paths, strict=True), start=1):
        if not text.strip() and not path.strip():
            continue
        row = {"video": path.strip() or None, "caption": text}
        try:
            yield parse_row(row, f"{videos}:{number}", place)
        except BadClip as problem:
            yield problem
