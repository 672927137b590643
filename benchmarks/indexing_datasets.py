"""Measure prepare-dataset building an index.

Run ``.venv/bin/python benchmarks/indexing_datasets.py FOLDER TRAJECTORIES WORKERS``.

Writes a bridge dataset whose trajectories share 8 real clips of 256x320 (hard links), unless FOLDER holds one, and
prints one JSON line. A second run with other WORKERS indexes the same dataset anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.video.files import write_video
from cosmos_worker.stages.prepare_dataset import run
from cosmos_worker.storage.volumes import Volumes

LENGTHS = (30, 38, 45, 57, 60, 64, 72, 80)


def write_dataset(root: Path, num_trajectories: int) -> None:
    """Write a dataset in layout ``bridge``: annotations of their own, videos that are hard links to 8 files."""
    generator = np.random.default_rng(0)
    for number, length in enumerate(LENGTHS):
        blocks = generator.integers(0, 255, (8, 10, 3)).astype(np.uint8)
        picture = blocks.repeat(32, 0).repeat(32, 1)
        frames = np.stack([np.roll(picture, (t, 2 * t), (0, 1)) for t in range(length)])
        write_video(root / "source" / f"{number}.mp4", frames, 5.0)
    (root / "annotation" / "train").mkdir(parents=True)
    for number in range(num_trajectories):
        length = LENGTHS[number % len(LENGTHS)]
        video = f"videos/train/{number}/rgb.mp4"
        (root / video).parent.mkdir(parents=True)
        os.link(root / "source" / f"{number % len(LENGTHS)}.mp4", root / video)
        state = generator.normal(size=(length, 7)).tolist()
        annotation = {
            "episode_id": str(number),
            "texts": [f"put object {number % 500} on the table"],
            "videos": [{"video_path": video}],
            "state": state,
            "continuous_gripper_state": [row[6] for row in state],
        }
        (root / "annotation" / "train" / f"{number}.json").write_text(json.dumps(annotation))


def main(folder: Path, num_trajectories: int, num_workers: int) -> None:
    """Build the index of the dataset in ``folder`` and print the time, the rate and the memory as JSON."""
    if not folder.is_dir():
        write_dataset(folder, num_trajectories)
    target = folder.with_name(f"{folder.name}-index")
    shutil.rmtree(target, ignore_errors=True)
    config = PrepareDatasetConfig.model_validate(
        {
            "key": "k",
            "target_uri": str(target),
            "data_uri": "unused",
            "source": {"path": str(folder)},
            "layout": "bridge",
            "video": {"num_pixel_frames": 57, "height": 256, "width": 320},
            "num_workers": num_workers,
        }
    )
    started, cpu_started = time.monotonic(), time.process_time()
    result = run(config, Volumes())
    seconds = time.monotonic() - started
    figures = {
        "workers": num_workers,
        "trajectories": result["clips"]["found"],
        "windows": result["windows"],
        "seconds": round(seconds, 1),
        "per_s": round(result["clips"]["found"] / seconds, 1),
        "cpu_s": round(time.process_time() - cpu_started, 1),
        "max_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="folder of the dataset; written if it does not exist"
    )
    parser.add_argument("trajectories", type=int, help="number of trajectories that are written")
    parser.add_argument("workers", type=int, help="processes that build the index")
    options = parser.parse_args()
    main(options.folder, options.trajectories, options.workers)
