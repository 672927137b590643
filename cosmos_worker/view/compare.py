"""Content of the page that compares runs: curves over each other, a table of figures, options, the same clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cosmos_worker.report.chart import Point, curves_chart
from cosmos_worker.report.words import format_minutes
from cosmos_worker.view import samples
from cosmos_worker.view.figures import FigureFiles, curve, thinned
from cosmos_worker.view.folders import Folders
from cosmos_worker.view.jobs import Job, find_items
from cosmos_worker.view.run_page import Difference, differences, flat, read_config
from cosmos_worker.view.samples import Card, Video
from cosmos_worker.view.state import RunState

MAX_RUNS = 6
CURVES = (
    ("loss", "Training loss"),
    ("validation_loss", "Held-out loss"),
    ("validation_loss_ema", "Held-out loss of the average"),
    ("learning_rate", "Learning rate"),
    ("grad_norm", "Gradient norm"),
)
ABSENT = "–"  # noqa: RUF001 - a dash, as tables have it


@dataclass(frozen=True)
class Chart:
    """A picture of one figure of all runs: its title and its SVG."""

    title: str
    svg: str


@dataclass(frozen=True)
class Compared:
    """One run of the comparison: its job, state, label and number, which decides its colour."""

    job: Job
    now: RunState
    label: str
    number: int


def labelled(jobs: Sequence[tuple[Job, RunState]]) -> list[Compared]:
    """The runs with labels that differ: names of jobs, with their folders where two have the same name."""
    names = [job.name for job, _ in jobs]
    return [
        Compared(job, now, job.name if names.count(job.name) == 1 else job.folder.name, number)
        for number, (job, now) in enumerate(jobs)
    ]


def charts(figures: FigureFiles, runs: Sequence[Compared]) -> list[Chart]:
    """A picture for each figure that some run has logged."""
    found = []
    lines = {run.number: figures.lines(run.job.run) for run in runs if run.job.run}
    for name, title in CURVES:
        curves: list[tuple[str, Sequence[Point]]] = [
            (run.label, thinned(curve(lines.get(run.number, []), name))) for run in runs
        ]
        if any(points for _, points in curves):
            found.append(Chart(title, curves_chart(curves, title)))
    return found


def table(folders: Folders, figures: FigureFiles, runs: Sequence[Compared]) -> list[Difference]:
    """Rows of figures and of means of generated videos, a value a run."""
    rows = [
        _row("state", [run.now.state for run in runs]),
        _row("steps", [f"{run.now.step}/{run.now.max_steps or '?'}" for run in runs]),
    ]
    lines = [figures.lines(run.job.run) if run.job.run else [] for run in runs]
    for name, title in CURVES[:3]:
        curves = [[value for _, value in curve(one, name)] for one in lines]
        if any(curves):
            rows.append(_row(f"{title}, last", [_text(c[-1] if c else None) for c in curves]))
            rows.append(_row(f"{title}, lowest", [_text(min(c, default=None)) for c in curves]))
    for name in ("seconds_per_step", "samples_per_second"):
        last = [curve(one, name)[-1:] for one in lines]
        rows.append(_row(name.replace("_", " "), [_text(c[0][1] if c else None) for c in last]))
    took = [sum(one.seconds(run.now.changed) for one in run.now.attempts) for run in runs]
    rows.append(
        _row("time of all attempts", [format_minutes(one) if one else None for one in took])
    )
    rows.append(_row("GPU hours", [_text(run.now.gpu_hours) for run in runs]))
    return [*rows, *_metric_rows(folders, runs)]


def _row(name: str, values: Sequence[str | None]) -> Difference:
    return Difference(name, tuple(values))


def _metric_rows(folders: Folders, runs: Sequence[Compared]) -> list[Difference]:
    found = [
        {
            (item.name, name): value
            for item in samples.read_generated(folders, find_items(folders, run.job))
            for name, value in item.means.items()
        }
        for run in runs
    ]
    keys = dict.fromkeys(key for one in found for key in one)
    return [
        Difference(f"{item}: {name}", tuple(_text(one.get((item, name))) for one in found))
        for item, name in keys
    ]


def _text(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def options(folders: Folders, runs: Sequence[Compared]) -> list[Difference]:
    """Options of the runs' documents that differ."""
    return differences(
        [flat(read_config(folders, run.job.run)) if run.job.run else {} for run in runs]
    )


def cards(folders: Folders, runs: Sequence[Compared]) -> list[Card]:
    """Cards of the clips that the runs share: the last sample of each window, and videos of the same input."""
    found: dict[tuple[str, str], list[Video]] = {}
    titles: dict[tuple[str, str], Card] = {}
    for run in runs:
        own = samples.sample_cards(folders, run.job.run) if run.job.run else []
        generated = samples.read_generated(folders, find_items(folders, run.job))
        own += samples.generated_cards(folders, run.job.folder, generated)
        for card in own:
            key = (card.key, card.caption)
            titles.setdefault(key, card)
            for video in _shown(card):
                if video.is_truth and any(one.is_truth for one in found.get(key, ())):
                    continue
                label = video.label if video.is_truth else f"{run.label}: {video.label}"
                found.setdefault(key, []).append(replace(video, label=label))
    return [
        replace(titles[key], videos=videos, hidden_steps=0)
        for key, videos in found.items()
        if len({one.label.partition(":")[0] for one in videos if not one.is_truth}) > 1
    ]


def _shown(card: Card) -> list[Video]:
    """Ground truth, the last sample of a training, and all generated videos."""
    steps = [one.step for one in card.videos if one.step is not None]
    return [one for one in card.videos if one.step is None or one.step == max(steps)]
