"""Names of objects in a bucket that can be files below a folder; all others are refused by name."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection

from cosmos_worker.errors import DataError

MAX_PART_BYTES = 255
"""Longest name of a file or folder on common file systems."""
SHOWN = 5


def refuse_names(names: Collection[str], where: str) -> None:
    """Refuse names that leave the folder, that no file can have, or that stand for one file twice.

    Args:
        names: names relative to the folder, with forward slashes.
        where: address of the folder, for the message.

    Raises:
        DataError: with the first of these names and what is wrong with each.
    """
    problems = {name: problem for name in names if (problem := _problem(name)) is not None}
    problems |= _collisions(names)
    if not problems:
        return
    shown = "; ".join(f"{name!r} {problem}" for name, problem in list(problems.items())[:SHOWN])
    more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    raise DataError(
        f"{where}: {len(problems)} of {len(names)} objects cannot become files: {shown}{more}; rename them in the "
        "bucket, or give a prefix without them"
    )


def _problem(name: str) -> str | None:
    parts = name.split("/")
    if name.startswith("/"):
        return "is absolute"
    if ".." in parts or "." in parts:
        return "leaves the folder" if ".." in parts else "has a part '.'"
    if "" in parts:
        return "has an empty part"
    if "\\" in name:
        return "has a backslash"
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        return "has a control character"
    if any(len(part.encode("utf-8", "surrogatepass")) > MAX_PART_BYTES for part in parts):
        return f"has a part of more than {MAX_PART_BYTES} bytes"
    return None


def _collisions(names: Collection[str]) -> dict[str, str]:
    """Names that differ by case or normalisation only, and files that others need as a folder."""
    problems: dict[str, str] = {}
    first: dict[str, str] = {}
    there = set(names)
    for name in sorted(there):
        other = first.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            problems[name] = f"differs from {other!r} by case or Unicode form only"
        folder = name.rpartition("/")[0]
        while folder and folder not in there:
            folder = folder.rpartition("/")[0]
        if folder:
            problems[name] = f"lies in {folder!r}, which is an object itself"
    return problems
