"""A finished run with generated videos, without any model: what the report stage reads."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cosmos_worker.config.presets import PUSH_TINY
from cosmos_worker.config.stages import ReportConfig
from cosmos_worker.data.index import Clip, write_index
from cosmos_worker.data.video.files import read_video
from cosmos_worker.sample import records
from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.storage.volumes import (
    METRICS_FILE,
    RESOLVED_CONFIG_FILE,
    SUMMARY_FILE,
    VIDEO_READER_VERSION,
    write_json,
)
from support.generation import generate_config, write_clips

PROMPTS = ("push the red cube right", 'push the red cube left & "so on" <b>')


def write_run(folder: Path) -> None:
    """metrics.jsonl of 50 steps, and config.yaml."""
    folder.mkdir(parents=True)
    lines: list[dict[str, Any]] = [
        {"step": step, "loss": math.exp(-step / 20) - 0.2, "seconds_per_step": 2.0}
        for step in range(10, 51, 10)
    ]
    lines += [{"step": 10, "validation_loss": 0.9}, {"step": 50, "validation_loss": 0.5}]
    (folder / METRICS_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    document = {"experiment": PUSH_TINY.model_dump(mode="json")}
    (folder / RESOLVED_CONFIG_FILE).write_text(yaml.safe_dump(document, sort_keys=False))


def write_dataset(folder: Path) -> None:
    """An index of three training clips and a held-out one."""
    splits = ("train", "train", "train", "val")
    clips = [
        Clip(f"{split}/{i}", split, f"{i}.mp4", (PROMPTS[min(i, 1)],), 17, 4.0, 32, 64, (0,), "0")
        for i, split in enumerate(splits)
    ]
    folder.mkdir(parents=True)
    digest = write_index(folder, clips)
    write_json(
        folder / SUMMARY_FILE,
        {"root": ".", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION},
    )


def write_generated(
    folder: Path, clips: list[Path], *, moves: bool, metrics: tuple[str, ...]
) -> None:
    """Results for each clip: the clip itself if it moves, else its copied first frame."""
    config = generate_config(folder, folder, metrics=metrics)
    results = []
    for index, (clip, prompt) in enumerate(zip(clips, PROMPTS, strict=True)):
        truth = read_video(clip)
        frames = truth if moves else np.repeat(truth[:1], len(truth), axis=0)
        one = SampleInput(f"{index:03d}", prompt, clip, clip, "inputs")
        request = records.describe_request(one, config, {})
        results.append(records.write_result(folder, request, one, frames, config.sampling, 1.5))
    records.write_list(folder, results)


def write_finished_job(folder: Path, *, metrics: tuple[str, ...] = ("psnr",)) -> ReportConfig:
    """Run, dataset, a base item that stands still and a post-trained one that moves."""
    write_run(folder / "run")
    write_dataset(folder / "dataset")
    clips = write_clips(folder / "clips", len(PROMPTS))
    for name, moves in (("base", False), ("post-trained", True)):
        write_generated(folder / name, clips, moves=moves, metrics=metrics)
    return ReportConfig(
        key="k",
        target_uri=str(folder / "report"),
        job_name="push cubes",
        run_uri=str(folder / "run"),
        dataset_uri=str(folder / "dataset"),
        generated=(("base", str(folder / "base")), ("post-trained", str(folder / "post-trained"))),
    )
