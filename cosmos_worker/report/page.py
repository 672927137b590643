"""The HTML page of the report, rendered from the collected content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from cosmos_worker.report.chart import loss_chart
from cosmos_worker.report.collect import (
    Captions,
    Card,
    Item,
    Training,
    before_and_after,
    metrics_table,
)
from cosmos_worker.report.dataset import DatasetFacts
from cosmos_worker.report.words import describe_experiment, format_minutes, format_number

TEMPLATE = "report.html.j2"
SHOWN_CAPTIONS = 24


@dataclass(frozen=True)
class Tile:
    """One headline figure: its name, values before (may be empty) and after post-training, and an explanation."""

    name: str
    before: str
    after: str
    meaning: str


@dataclass(frozen=True)
class Course:
    """The report's sentences on the training of the model."""

    training: Training
    captions: Captions
    samples: Sequence[Card]
    """Videos that were sampled while it trained."""
    dataset: DatasetFacts
    words: Sequence[str]
    """Sentences on captions that the text encoder truncated or did not know."""


def headline(items: Sequence[Item], training: Training | None) -> list[Tile]:
    """The headline figures at the top of the page: of the videos, and of the training if it is known."""
    before, after = before_and_after(items)
    tiles = []

    def add(name: str, key: str, form: str, factor: float, meaning: str) -> None:
        if key not in after.summary:
            return
        old = before.summary.get(key) if before is not None else None
        shown = "" if old is None else format_number(form, old * factor)
        tiles.append(Tile(name, shown, format_number(form, after.summary[key] * factor), meaning))

    names = f"{before.name} → {after.name}" if before is not None else after.name
    add("Follows the instruction", "follow_share", "{:.0f} %", 100, names)
    add("Better than a copied frame", "gain_db", "{:+.1f} dB", 1, f"PSNR, {names}")
    if training is None:
        return tiles
    losses = training.validation or training.train
    kind = "held-out" if training.validation else "training"
    first, last = losses[0][1], losses[-1][1]
    tiles.append(Tile("Loss", f"{first:.3f}", f"{last:.3f}", f"{kind}, first → last"))
    steps = max(step for step, _ in training.train)
    tiles.append(Tile("Post-training", "", format_minutes(training.seconds), f"{steps:.0f} steps"))
    return tiles


def render_page(
    job_name: str, items: Sequence[Item], cards: Sequence[Card], course: Course | None
) -> str:
    """Render the whole page as HTML text.

    Args:
        job_name: name of the job.
        items: inference items, at least one.
        cards: their videos.
        course: the training of the model; None if it is not known.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    table = metrics_table(items)
    return environment.get_template(TEMPLATE).render(
        job_name=job_name,
        tiles=headline(items, None if course is None else course.training),
        header=table[0],
        rows=table[1:],
        cards=cards,
        is_trained=course is not None,
        **({"facts": [], "samples": []} if course is None else _values_of(course)),
    )


def _values_of(course: Course) -> dict[str, Any]:
    """The values of the template's sections on the training."""
    training, captions = course.training, course.captions
    chart = loss_chart(training.train, training.validation)
    return {
        "chart": Markup(chart),  # noqa: S704 - our own SVG
        "has_validation": bool(training.validation),
        "samples": course.samples,
        "words": course.words,
        "dataset": course.dataset,
        "captions": captions.counts[:SHOWN_CAPTIONS],
        "num_captions": len(captions.counts),
        "num_clips": captions.num_clips,
        "facts": describe_experiment(training.config),
        "config": training.config,
        "change": [(kind, f"{100 * value:.3g} %") for kind, value in training.change.items()],
        "is_unchanged": training.is_unchanged,
    }
