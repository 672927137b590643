"""Content of the report on the dataset and on captions that the text encoder truncated or did not know. No HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.data.text_files import printable
from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import shorten
from cosmos_worker.storage.volumes import (
    DATASET_REPORT_FILE,
    SUMMARY_FILE,
    WORDS_FILE,
)

NAMED_CLIPS = 10
"""Clips that a sentence names."""
SHOWN = 5
"""Number of values or kinds of files that a line lists."""


@dataclass(frozen=True)
class DatasetFacts:
    """Facts of a dataset as (name, text), and warnings as whole sentences."""

    facts: list[tuple[str, str]]
    warnings: list[str]


def read_dataset(folder: Path) -> DatasetFacts:
    """Read the facts from the summary of prepare-dataset; the summary of an earlier version has fewer of them.

    Raises:
        DataError: the summary is absent or damaged.
    """
    path = folder / SUMMARY_FILE
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return DatasetFacts(list(_facts(summary)), list(_warnings(summary)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); run prepare-dataset again") from None


def _facts(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "clips" in summary:
        yield "clips", f"{summary['clips']['kept']} of {summary['clips']['found']}"
    for split, counts in summary.get("splits", {}).items():
        if counts["clips"]:
            yield split, f"{counts['clips']} clips, {counts['windows']} windows"
    for name, key in (("rows x columns", "sizes"), ("frames per second", "fps")):
        if key in summary:
            yield name, _most_frequent(summary[key])


def _warnings(summary: Mapping[str, Any]) -> Iterator[str]:
    found = summary.get("clips", {}).get("found")
    for reason, number in summary.get("dropped", {}).items():
        yield f"{number} of {found} clips were dropped: {reason}."
    distortion = summary.get("distortion", {})
    if distortion.get("clips"):
        kept = summary["clips"]["kept"]
        yield (
            f"{distortion['clips']} of {kept} clips have another aspect ratio than their window "
            f"(fit: {distortion['fit']}); the worst is {distortion['largest']}."
        )
    passed_over = summary.get("passed_over", {})
    if passed_over:
        yield f"Passed over: {_most_frequent(passed_over, 'files')}."
    yield from (f"{printable(note)}." for note in summary.get("notes", ()))
    if "held_out" in summary:
        yield f"{summary['held_out']['sentence']}."
    if any(summary.get(key) for key in ("dropped", "passed_over")) or distortion.get("clips"):
        yield f"All of it is in {DATASET_REPORT_FILE} beside the dataset's index."


def _most_frequent(counts: Mapping[str, int], unit: str = "clips") -> str:
    common = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{printable(name)} ({number} {unit})" for name, number in common[:SHOWN])
    return f"{shown} and {len(common) - SHOWN} more" if len(common) > SHOWN else shown


def describe_losses(run: Path) -> list[str]:
    """Sentences on truncated and unknown captions and on clips left out; empty if there are none, or in an old run.

    Args:
        run: folder of the run, in which train wrote the numbers.

    Raises:
        DataError: the file of the numbers is damaged.
    """
    path = run / WORDS_FILE
    if not path.is_file():  # a run of an earlier version
        return []
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        total, dropped = int(words["captions"]), list(words["dropped_clips"])
        truncated, partly, unknown = (
            int(words[name]) for name in ("truncated", "with_unknown", "unknown")
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); run train again") from None
    sentences = []
    if truncated:
        sentences.append(
            f"{truncated} of {total} captions are longer than the text encoder reads; their ends had no effect."
        )
    if partly:
        sentences.append(
            f"{partly} of {total} captions have characters that the text encoder does not know; {unknown} are more "
            "than half unknown to it."
        )
    if dropped:
        sentences.append(
            f"{len(dropped)} clips were left out, since the encoder does not know their captions: "
            f"{shorten(dropped, NAMED_CLIPS)}."
        )
    return sentences
