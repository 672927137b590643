"""Content of the report on training and generated videos, read from their folders. Makes no HTML."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosmos_worker.config.choices import Fit
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.data.index import read_index
from cosmos_worker.data.video.files import (
    read_video,
    read_window,
)
from cosmos_worker.errors import DataError
from cosmos_worker.report import media
from cosmos_worker.report.chart import Point
from cosmos_worker.report.words import format_number
from cosmos_worker.sample.records import DEFAULT_ENTRIES, Record, is_blocked, read_list, summarise
from cosmos_worker.storage.volumes import (
    METRICS_FILE,
    RESOLVED_CONFIG_FILE,
)
from cosmos_worker.weights.weight_change import (
    is_unchanged,
    read_changes,
)

TABLE_HEADER = (
    "item",
    "videos",
    "PSNR (dB)",
    "copy-first-frame PSNR (dB)",
    "gain (dB)",
    "follows the instruction (%)",
)
ABSENT = "–"  # noqa: RUF001 - a dash, as tables have it


@dataclass(frozen=True)
class Item:
    """One inference item of the job: its name, folder, records and their summary."""

    name: str
    folder: Path
    records: list[Record]
    summary: dict[str, Any]


@dataclass(frozen=True)
class Training:
    """The course of a training.

    Attributes:
        train: (step, training loss).
        validation: (step, held-out loss).
        seconds: duration of all steps.
        config: text of config.yaml.
        change: relative change of the weights by kind of layer since the training began; empty if it is not known.
        is_unchanged: true if the training has left its network as it was.
    """

    train: list[Point]
    validation: list[Point]
    seconds: float
    config: str
    change: Mapping[str, float] = field(default_factory=dict)
    is_unchanged: bool = False


@dataclass(frozen=True)
class Captions:
    """Number of training clips, and (caption, number of clips that have it), the most frequent first."""

    num_clips: int
    counts: list[tuple[str, int]]


@dataclass(frozen=True)
class Clip:
    """One video of a card.

    Attributes:
        label: its origin, for people, such as the name of an inference item.
        kind: "truth" or "generated", a class of the page's CSS.
        video: data URI of the video.
        strip: data URI of a strip of its frames.
        note: metrics and remarks as text.
        verdict: "follows" or "fails", or empty if no metric judges it.
    """

    label: str
    kind: str
    video: str
    strip: str
    note: str
    verdict: str


@dataclass(frozen=True)
class Card:
    """A card of the report: all videos of one conditioning frame (known, a data URI) and one prompt."""

    title: str
    prompt: str
    known: str
    clips: list[Clip]


def read_training(run: Path, steps: int | None = None) -> Training:
    """Read metrics.jsonl and config.yaml.

    Args:
        run: folder of the run.
        steps: lines of metrics after this step are left out; None = all are read.

    Raises:
        DataError: a file is absent, damaged or holds no loss.
    """
    path, config = run / METRICS_FILE, run / RESOLVED_CONFIG_FILE
    for needed in (path, config):
        if not needed.is_file():
            raise DataError(f"{needed}: no such file; run train with this output root first")
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
        lines = [line for line in lines if steps is None or line["step"] <= steps]
        train = _points(lines, "loss")
        validation = _points(lines, "validation_loss")
        seconds = _training_seconds(lines)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); run train again") from None
    if not train:
        raise DataError(f"{path}: holds no loss; run train for at least log_every_steps steps")
    changes = read_changes(run)
    last = changes[max(changes)] if changes else {}
    text = config.read_text(encoding="utf-8")
    change = last.get("ema") or last.get("reg") or {}
    return Training(train, validation, seconds, text, change, is_unchanged(last))


def _points(lines: Sequence[dict[str, Any]], name: str) -> list[Point]:
    points = [(float(line["step"]), float(line[name])) for line in lines if name in line]
    return [point for point in points if math.isfinite(point[1])]


def _training_seconds(lines: Sequence[dict[str, Any]]) -> float:
    """Duration of all steps: seconds per step times the number of steps of each logged interval."""
    total, before = 0.0, 0.0
    for line in lines:
        if "seconds_per_step" in line:
            total += float(line["seconds_per_step"]) * (float(line["step"]) - before)
            before = float(line["step"])
    return total


def read_items(generated: Sequence[tuple[str, Path]]) -> list[Item]:
    """Records of every inference item, in the order of the job.

    Raises:
        DataError: a list is absent, damaged or empty.
    """
    items = []
    for name, folder in generated:
        records = read_list(folder)
        if not records:
            raise DataError(f"{folder}: no generated video is listed; run generate again")
        items.append(Item(name, folder, records, summarise(records)))
    return items


def count_captions(dataset: Path) -> Captions:
    """Count the captions of the training clips; a clip may have several."""
    index = read_index(dataset)
    train = [clip for clip in index.clips if clip.split == "train"]
    counts = Counter(text for clip in train for text in clip.captions)
    return Captions(len(train), counts.most_common())


def metrics_table(items: Sequence[Item]) -> list[list[str]]:
    """The table of metrics as rows of text, one for each item, the header first."""
    return [list(TABLE_HEADER), *(_row(item) for item in items)]


def _row(item: Item) -> list[str]:
    summary = item.summary

    def number(name: str, form: str, factor: float = 1) -> str:
        return format_number(form, summary[name] * factor) if name in summary else ABSENT

    counts = (
        (summary.get("blocked", 0), "blocked"),
        (summary.get("with_faces", 0), "with faces"),
        (summary.get("unknown_prompts", 0), "of prompts unknown to the encoder"),
    )
    remarks = ", ".join(f"{count} {what}" for count, what in counts if count)
    return [
        item.name,
        str(summary["videos"]) + (f" ({remarks})" if remarks else ""),
        number("mean_psnr_db", "{:.2f}"),
        number("mean_copy_psnr_db", "{:.2f}"),
        number("gain_db", "{:+.2f}"),
        number("follow_share", "{:.1f}", 100),
    ]


# --- before and after ------------------------------------------------------------------------


def before_and_after(items: Sequence[Item]) -> tuple[Item | None, Item]:
    """Find the items to compare: the first and last of those with the same inputs and prompts, or the last item alone.

    Returns:
        (before, after); before is None if no two items have the same inputs and prompts.
    """
    asked: dict[tuple[Any, ...], list[Item]] = {}
    for item in items:
        requests = tuple((record["visual_input"], record["prompt"]) for record in item.records)
        asked.setdefault(requests, []).append(item)
    for same in asked.values():
        if len(same) > 1:
            return same[0], same[-1]
    return None, items[-1]


def build_cards(items: Sequence[Item], max_videos: int) -> list[Card]:
    """Build a card for each conditioning frame and prompt, with the video of every item; blocked inputs have none.

    Args:
        items: of `read_items`.
        max_videos: videos that are shown of each item.

    Raises:
        DataError: a video is absent or cannot be decoded.
    """
    groups: dict[tuple[str, str], list[tuple[Item, Record]]] = {}
    for item in items:
        for record in [one for one in item.records if not is_blocked(one)][:max_videos]:
            groups.setdefault((record["visual_input"], record["prompt"]), []).append((item, record))
    return [_card(position, members) for position, members in enumerate(groups.values(), 1)]


def _card(position: int, members: Sequence[tuple[Item, Record]]) -> Card:
    first_item, first = members[0]
    known = read_video(first_item.folder / first["video"])[: first["known_frames"]][-1]
    clips = []
    truth = next((record for _, record in members if record["ground_truth"]), None)
    if truth is not None:
        clips.append(_truth_clip(truth))
        sampling = truth["sampling"]
        size = (sampling["height"], sampling["width"])
        known = read_window(
            Path(truth["ground_truth"]), truth["known_frames"] - 1, 1, *size, _fit_of(truth)
        )[0]
    clips += [_generated_clip(item, record) for item, record in members]
    return Card(f"Clip {position}", first["prompt"], media.frame_uri(known), clips)


def _fit_of(record: Record) -> Fit:
    """The fit of a record; records of earlier versions lack it, whose frames were stretched."""
    fit: Fit = record.get("fit", DEFAULT_ENTRIES["fit"])
    return fit


def _truth_clip(record: Record) -> Clip:
    sampling, path = SamplingConfig.model_validate(record["sampling"]), record["ground_truth"]
    size = (sampling.height, sampling.width)
    frames = read_window(Path(path), 0, sampling.total_pixel_frames, *size, _fit_of(record))
    return Clip(
        label="Ground truth",
        kind="truth",
        video=media.frames_video_uri(frames, sampling.fps),
        strip=media.strip_uri(frames, record["known_frames"]),
        note="what really happened",
        verdict="",
    )


def _generated_clip(item: Item, record: Record) -> Clip:
    path = item.folder / record["video"]
    metrics, notes, verdict = record["metrics"], [], ""
    if "psnr_db" in metrics:
        notes.append(
            f"{metrics['psnr_db']:.1f} dB, {format_number('{:+.1f}', metrics['gain_db'])} dB over the copied frame"
        )
    if "follows" in metrics:
        moved = (
            "does not move" if metrics["direction"] == "none" else f"moves {metrics['direction']}"
        )
        notes.insert(0, f"the named cube {moved}")
        verdict = "follows" if metrics["follows"] else "fails"
    notes += record.get("notes", [])
    return Clip(
        label=item.name,
        kind="generated",
        video=media.video_uri(path),
        strip=media.strip_uri(read_video(path), record["known_frames"]),
        note="; ".join(notes),
        verdict=verdict,
    )
