"""The Jsonl layout: one list of videos and captions, as JSON lines, CSV, parquet, or two text files line by line.

A list is dataset.jsonl (or .csv), Hugging Face's metadata.jsonl (or .csv, .parquet), in the dataset's root or in
folders of splits; lists of splits such as train.jsonl and val.jsonl; the only .jsonl or .csv file; or finetrainers'
prompts.txt with videos.txt. Paths in a list are relative to its folder. Which list it is: ``clip_lists.py``.
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

from cosmos_worker.config.captions import TextError
from cosmos_worker.data.dataset_files import VIDEO_ENDINGS, ending_of, most_frequent
from cosmos_worker.data.index import split_named
from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
    without_repeated_ids,
)
from cosmos_worker.data.layouts.clip_lists import (
    CAPTION_KEYS,
    KEYS,
    METADATA_NAME,
    VIDEO_KEYS,
    ListPlace,
    find_lists,
    parse_row,
    refuse_keys,
    refuse_repeated,
    root_tables,
)
from cosmos_worker.data.layouts.parquet import (
    column_names,
    read_columns,
)
from cosmos_worker.data.problems import BadClip, read_text
from cosmos_worker.data.text_files import (
    FileError,
    brief,
    decode_text,
    parse_json,
    read_bytes,
)
from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import shorten

MAX_LIST_BYTES = 1 << 30
"""Largest list that is read."""
Outcome = Candidate | BadClip


def list_jsonl(root: Path) -> Listing:
    """All clips of a dataset, in the order of its lists.

    Raises:
        DataError: no list, several, one without clips, or one that is damaged as a whole.
    """
    names, notes = find_lists(root), []
    notes.append(f"clips are those of {', '.join(names)}")
    unused = [name for name in root_tables(root) if name not in names]
    if unused:
        notes.append(f"not used besides: {shorten(unused)}")
    outcomes: list[Outcome] = []
    if names[0].endswith(".txt"):
        outcomes += _read_pair(root, *names)
    else:
        for name in names:
            outcomes += READERS[ending_of(name)](root, name, notes)
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


# --- reading lists ----------------------------------------------------------------------------


def _place(root: Path, name: str) -> ListPlace:
    path = PurePosixPath(name)
    split = split_named(path.parent.name) or split_named(path.stem)
    return ListPlace(root, path.parent, split, path.stem == METADATA_NAME)


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
    _tell_others(name, header, notes)


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
    _refuse_columns(header, path, place)


def _refuse_columns(header: Sequence[str], path: Path, place: ListPlace) -> None:
    """Raise DataError for a column that is not allowed."""
    try:
        refuse_keys(header, f"{path}: names of columns", place.allows_others)
    except BadClip as problem:
        raise DataError(f"{problem.file}: {problem.value}; correct it") from None


def _read_parquet(root: Path, name: str, notes: list[str]) -> Iterator[Outcome]:
    """Clips of a metadata file of parquet. What is to be told goes into ``notes``."""
    place, path = _place(root, name), root / name
    header = column_names(path, name)
    for names in (VIDEO_KEYS, CAPTION_KEYS):
        if not set(names) & set(header):
            raise DataError(
                f"{path}: lacks a column, one of {', '.join(names)} is needed (it has {brief(','.join(header))}); "
                "correct it"
            )
    _refuse_columns(header, path, place)
    columns = read_columns(path, name, KEYS)
    for number, values in enumerate(zip(*columns.values(), strict=True), start=1):
        try:
            row = dict(zip(columns, values, strict=True))
            yield parse_row(row, f"{name}: row {number}", place)
        except BadClip as problem:
            yield problem
    _tell_others(name, header, notes)


def _tell_others(name: str, header: Sequence[str], notes: list[str]) -> None:
    others = sorted(set(header) - set(KEYS))
    if others:
        notes.append(f"columns of {name} that are not used: {shorten(others)}")


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


READERS = {".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
"""Ending of a list → its reader."""
