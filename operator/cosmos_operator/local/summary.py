"""The last lines of ``cosmos run``: the places of the results, and the table of metrics."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from cosmos_operator.api.job import Job
from cosmos_operator.local.process import StageProcess
from cosmos_worker.storage.volumes import (
    MODEL_FILE,
    REPORT_FILE,
)


def print_summary(
    job_name: str,
    processes: Sequence[StageProcess],
    write_line: Callable[[str], None],
) -> None:
    """Print where the results of a finished job are.

    Args:
        job_name: name of the job.
        processes: all stages, finished.
        write_line: prints a line.
    """
    write_line("")
    write_line(f"job {job_name} succeeded")
    for process in processes:
        if process.kind == "publish":
            write_line(f"  model   {process.target / MODEL_FILE}")
    for process in processes:
        if process.kind == "generate":
            count = sum(1 for _ in process.target.glob("*.mp4"))
            write_line(f"  videos  {process.target}  ({count} MP4 files)")
    for process in processes:
        if process.kind == "report":
            write_line(f"  report  {process.target / REPORT_FILE}")
            if rows := (process.result() or {}).get("table"):
                write_line("")
                for line in format_table(rows):
                    write_line(f"  {line}")


def describe_view(workspace: Path, job: Job) -> str:
    """The command that shows a workspace in a browser; a dataset that is used where it lies is named too."""
    command = ["cosmos", "view", str(workspace)]
    dataset = getattr(job.spec, "dataset", None)
    if dataset is not None and dataset.source.path is not None:
        command += ["--data", dataset.source.path]
    return shlex.join(command)


def format_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text as padded columns, the header first; the first column to the left, the others to the right."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))]

    def line(texts: Sequence[str]) -> str:
        first, *others = zip(texts, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        return "  ".join(cells).rstrip()

    header, *body = rows
    return [line(header), line(["-" * width for width in widths]), *map(line, body)]
