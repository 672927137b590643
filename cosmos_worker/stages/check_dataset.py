"""``check-dataset``: the report of prepare-dataset on a folder, without a job and without writing into the folder."""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from cosmos_worker.config.choices import DatasetLayout
from cosmos_worker.config.documents import parse_document
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.volumes import Volumes

COMMAND = "check-dataset"
CELL_BORDER = re.compile(r"(?<!\\)\|")
MAX_CELL = 60
"""Columns of a terminal that a narrow cell is padded to at most."""
OPTIONS = (
    "camera", "camera_name", "frame_rate", "fit", "validation_fraction", "validation_seed", "max_bad_fraction",
    "num_workers",
)  # fmt: skip
"""Options that are fields of the stage document; what is not given has the document's default."""


def run(options: argparse.Namespace, write: Callable[[Sequence[str]], None]) -> None:
    """Print the report, or one JSON object with ``usable``, ``reason``, the summary and all dropped clips.

    Args:
        options: folder, experiment, overrides, layout and OPTIONS, as ``cosmos_worker/arguments.py`` reads them.
        write: prints lines.

    Raises:
        ConfigError: an option that is not allowed.
        DataError: prepare-dataset would fail; what could be found is printed before.
        OSError: the volume does not give its content.
    """
    volumes = Volumes.from_environment(os.environ)
    with tempfile.TemporaryDirectory(prefix="check-dataset.") as temporary:
        config = build_config(options, Path(temporary), volumes)
        where = "dropped_clips" if options.json else "the report above"
        try:
            found = _check(config, volumes, Path(temporary), where)
        except DataError as error:
            if options.json:
                write([_as_json(error, {})])
            raise
    write([_as_json(found.failure, found.document)] if options.json else found.lines)
    if found.failure is not None:
        raise found.failure


def build_config(
    options: argparse.Namespace, temporary: Path, volumes: Volumes
) -> PrepareDatasetConfig:
    """The stage document that a job of this experiment would have for this folder.

    Raises:
        ConfigError: an unknown experiment or volume, or a value that is not allowed.
        DataError: a folder that looks like no dataset.
    """
    experiment = get_experiment(options.experiment, options.overrides)
    given = {name: getattr(options, name) for name in OPTIONS}
    document = {
        "key": COMMAND,
        "target_uri": str(temporary),
        "data_uri": str(temporary),
        "source": {"path": options.folder},
        "layout": options.layout or detect_layout(volumes.resolve(options.folder)),
        "video": experiment.video.model_dump(),
        "buckets": [bucket.model_dump() for bucket in experiment.buckets],
        "min_clips": experiment.trainer.global_batch_size,
        **{name: value for name, value in given.items() if value is not None},
    }
    return parse_document(PrepareDatasetConfig, document, COMMAND)


def detect_layout(folder: Path) -> DatasetLayout:
    """The layout that a folder, or the nearest one below it, looks like.

    Raises:
        DataError: no such folder, or none that is known.
    """
    if not folder.is_dir():
        what = (
            "a file; unpack it"
            if folder.is_file()
            else "no folder; correct the path or mount its volume"
        )
        raise DataError(f"{folder}: is {what}")
    from cosmos_worker.data.layouts.detect import recognise_layout

    recognised = recognise_layout(folder)
    if recognised is not None and recognised.layout is not None:
        return recognised.layout
    if recognised is not None:
        raise DataError(f"{folder}: {recognised.sentence}")
    raise DataError(
        f"{folder}: looks like no dataset that can be read; give the folder that holds annotation/ (bridge), videos/ "
        "(videos), meta/info.json (lerobot) or a list of clips such as dataset.jsonl (jsonl), or say --layout"
    )


@dataclass(frozen=True)
class _Result:
    """A dataset that was examined."""

    lines: list[str]
    document: dict[str, Any]
    failure: DataError | None


def _check(config: PrepareDatasetConfig, volumes: Volumes, temporary: Path, where: str) -> _Result:
    """Check all clips; ``where`` names the list of all problems in messages."""
    from cosmos_worker.data.report import render_report
    from cosmos_worker.data.summary import summarize
    from cosmos_worker.data.usable import find_failure
    from cosmos_worker.stages.prepare_dataset import examine

    examined = examine(config, volumes, temporary / "checked.jsonl")
    root, clips = examined.root, examined.clips
    summary = summarize(config, clips, examined.remarks)
    report = align_tables(render_report(config, root, clips, examined.remarks).splitlines())
    failure = find_failure(config, root, clips, where)
    number = summary["splits"]["train"]["windows"]
    verdict = f"usable: {counted(number, 'training window')}, {config.min_clips} make a batch"
    dropped = [
        {"file": one.file, "reason": one.reason, "value": one.value, "remedy": one.remedy}
        for one in (*clips.bad, *clips.too_short)
    ]
    document = {**summary, "root": str(root), "dropped_clips": dropped}
    return _Result([*report, verdict] if failure is None else report, document, failure)


def _as_json(failure: DataError | None, document: dict[str, Any]) -> str:
    reason = None if failure is None else str(failure)
    return json.dumps({"usable": failure is None, "reason": reason, **document}, indent=1)


def align_tables(lines: Sequence[str]) -> list[str]:
    """Lines of Markdown in which the cells of a column have one width, of at most :data:`MAX_CELL`."""
    aligned: list[str] = []
    for is_table, block in groupby(lines, key=lambda line: line.startswith("|")):
        rows = list(block)
        aligned += _align(rows) if is_table else rows
    return aligned


def _align(rows: Sequence[str]) -> list[str]:
    cells = [CELL_BORDER.split(row)[1:-1] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*cells, fillvalue="")]
    widths = [min(width, MAX_CELL) for width in widths]
    return [
        "|"
        + "|".join(
            cell.ljust(width, "-" if cell.startswith("---") else " ")
            for cell, width in zip(row, widths, strict=False)  # rows may have fewer cells
        )
        + "|"
        for row in cells
    ]
