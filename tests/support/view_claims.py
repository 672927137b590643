"""Claims as jobs leave them, for the viewer: runs, sample videos, generated videos and datasets, without any model."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cosmos_worker.config.presets import PUSH_TINY
from cosmos_worker.data.index import Clip, write_index
from cosmos_worker.data.video.files import write_video
from cosmos_worker.storage.volumes import VIDEO_READER_VERSION, write_json

HOSTILE = '<script>alert("x")</script>" onerror="y'
"""A caption or a name that must arrive as text."""
KEY = "0123456789ab"
RUN = "posttraining/push/tiny"


def write_clip(path: Path, shade: int = 0, frames: int = 9) -> None:
    """A short video whose frames become brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = np.linspace(shade, 255, frames).astype(np.uint8)
    write_video(path, np.broadcast_to(ramp[:, None, None, None], (frames, 32, 48, 3)).copy(), 8.0)


def log_line(run: Path, step: int, **figures: float) -> None:
    """Add a line to the figures of a run."""
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": step, **figures}) + "\n")


def write_job(
    claim: Path, name: str = "push", *, steps: int = 20, max_steps: int = 100, age_s: float = 0.0,
    is_complete: bool = False, overrides: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """A run with figures of every tenth step; returns the output root."""
    root = claim / "checkpoints" / f"{name}-{KEY}"
    run = root / RUN
    run.mkdir(parents=True)
    experiment = PUSH_TINY.model_dump(mode="json")
    experiment["trainer"]["max_steps"] = max_steps
    experiment["optimizer"] |= overrides or {}
    document = {
        "experiment": experiment,
        "job": name,
        "dataset_uri": f"datasets://cubes-{KEY}",
    }
    (run / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    for step in range(10, steps + 1, 10):
        log_line(run, step, loss=1 / step, seconds_per_step=2.0, learning_rate=1e-3)
    log_line(run, steps, validation_loss=0.5)
    if is_complete:
        write_json(root / f"complete-{KEY}.json", {"stage": "train", "result": {}})
    then = time.time() - age_s
    for path in (run / "metrics.jsonl", run, root):
        os.utime(path, (then, then))
    return root


def write_samples(root: Path, step: int, caption: str = "push the red cube") -> None:
    """Sample videos of one window at a step, and its ground truth."""
    folder = root / RUN / "samples"
    write_clip(folder / f"step_{step:09d}" / "0-val_one@0.mp4", shade=min(step, 200))
    write_clip(folder / "truth" / "0-val_one@0.mp4")
    names = {"0-val_one@0": {"window": "val/one@0", "caption": caption}}
    write_json(folder / "windows.json", names)


def write_generated(
    root: Path, item: str, prompt: str = "push the red cube", truth: str | None = None, psnr: float = 20.0
) -> None:  # fmt: skip
    """One generated video of an item with its record."""
    folder = root / "generated" / f"{item}-{KEY}"
    write_clip(folder / "000.mp4", shade=40)
    record = {
        "id": "000", "item": item, "prompt": prompt, "visual_input": "/data/first.png",
        "ground_truth": truth, "video": "000.mp4", "metrics": {"psnr_db": psnr, "follows": True},
    }  # fmt: skip
    (folder / "generated.jsonl").write_text(json.dumps(record) + "\n")


def write_dataset(claim: Path, captions: tuple[str, ...] = ("push the red cube",)) -> Path:
    """A dataset with a video for every caption; returns the folder of its index."""
    folder = claim / "datasets" / f"cubes-{KEY}"
    clips = []
    for number, caption in enumerate(captions):
        write_clip(folder / "data" / f"{number}.mp4")
        name = f"{number}.mp4"
        clips.append(Clip(f"train/{number}", "train", name, (caption,), 9, 8.0, 32, 48, (0,), "0"))
    digest = write_index(folder, clips)
    write_json(
        folder / "summary.json",
        {
            "root": "data", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION, "layout": "videos",
            "clips": {"found": len(clips) + 2, "kept": len(clips), "bad": 2, "too_short": 0},
            "dropped": {"no caption": 2}, "splits": {"train": {"clips": len(clips), "windows": len(clips)}},
            "sizes": {"32x48": len(clips)}, "fps": {"8": len(clips)}, "num_frames": {"9": len(clips)},
        },
    )  # fmt: skip
    (folder / "report.md").write_text(
        "# Dataset check\n\n## Unusable clips (1)\n\n| file | reason | value | remedy |\n|---|---|---|---|\n"
        "| bad\\|1.mp4 | no caption | &lt;none> | write one |\n"
    )
    return folder
