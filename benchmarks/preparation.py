"""Measure the preparation of a dataset beside the reference's way of loading it: ``python benchmarks/preparation.py``.

The dataset is the quickstart's: clips of 128x160, windows of 17 frames, its tokenizer and text encoder. Measured are
``prepare-dataset`` (check of every clip), ``embed-text`` and ``cache-latents``, without the start of their processes
and the loading of their models. The reference encodes inside of the training's loop: it opens a clip for each window,
decodes it from its start, resizes its frames and encodes batches of one. A training that sees each window once does
this as often as the cache is filled; each further epoch costs it as much again, and the cache nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from side_by_side import ROOT, Comparison, add_options, finish

from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.source import Source
from cosmos_worker.config.stages import (
    CacheLatentsConfig,
    EmbedTextConfig,
    PrepareDatasetConfig,
)
from cosmos_worker.data.index import DatasetIndex, Window, read_index
from cosmos_worker.data.video.files import read_window
from cosmos_worker.stages import cache_latents, embed_text, prepare_dataset
from cosmos_worker.storage.volumes import Volumes, read_marker
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer, video_from_pixels

EXAMPLE = ROOT / "examples" / "pushing"
TOKENIZER = EXAMPLE / "checkpoints" / "Cosmos-Tiny-Tokenizer-CV8x8x8"
ENCODER = EXAMPLE / "checkpoints" / "Cosmos-Tiny-T5"
EXPERIMENT = get_experiment("video2world_instruction_push_tiny", ())
REFERENCE = "the reference's way: decode, resize, encode in the loop, batch 1"
CHECKS = {1: "check, one process", 2: "check, two processes"}
CACHES = {1: "latents, one process", 2: "latents, two processes"}
"""Number of processes → name of the way."""
Timed = Callable[[Path], float]


def check(num_workers: int) -> Timed:
    """Seconds of ``prepare-dataset`` into a new folder."""

    def run(folder: Path) -> float:
        config = PrepareDatasetConfig(
            key="k", target_uri=str(folder / "index"), source=Source(path=str(EXAMPLE / "dataset")),
            data_uri=str(folder / "data"), layout="bridge", video=EXPERIMENT.video, num_workers=num_workers,
        )  # fmt: skip
        begin = time.perf_counter()
        prepare_dataset.run(config, Volumes())
        return time.perf_counter() - begin

    return run


def embed(index: Path) -> Timed:
    """Seconds of ``embed-text`` with the loading of its small encoder."""

    def run(folder: Path) -> float:
        config = EmbedTextConfig(
            key="k", target_uri=str(folder / "text"), dataset_uri=str(index), encoder_uri=str(ENCODER),
            max_length=EXPERIMENT.text.max_length,
        )  # fmt: skip
        begin = time.perf_counter()
        embed_text.run(config, Volumes())
        return time.perf_counter() - begin

    return run


def latents(index: Path, num_processes: int) -> Timed:
    """Seconds of ``cache-latents`` after its tokenizer is loaded, as it says itself."""

    def run(folder: Path) -> float:
        target = folder / "latents"
        config = CacheLatentsConfig(
            key="k", target_uri=str(target), dataset_uri=str(index), tokenizer_uri=str(TOKENIZER),
            video=EXPERIMENT.video, tokenizer=EXPERIMENT.tokenizer,
        )  # fmt: skip
        if num_processes == 1:
            return float(cache_latents.run(config, Volumes())["seconds"])
        document = folder / "latents.yaml"
        document.write_text(yaml.safe_dump(config.model_dump(mode="json")))
        command = [sys.executable, "-m", "cosmos_worker.cli", "cache-latents", "--config"]
        command += [str(document), "--nproc-per-node", str(num_processes)]
        subprocess.run(command, check=True, capture_output=True)
        marker = read_marker(target, "k")
        assert marker is not None
        return float(marker["result"]["seconds"])

    return run


def encode_in_the_loop(
    index: DatasetIndex, windows: list[Window], tokenizer: VideoTokenizer
) -> Timed:
    """Seconds of the reference's way through the same windows."""
    video, fit = EXPERIMENT.video, "stretch"
    size = (video.num_pixel_frames, video.height, video.width)

    def run(folder: Path) -> float:
        del folder
        begin = time.perf_counter()
        for window in windows:
            path = index.video_path(index.clip(window.clip_id))
            frames = read_window(path, window.start, *size, fit)
            tokenizer.encode(video_from_pixels(torch.from_numpy(frames[None])))
        return time.perf_counter() - begin

    return run


def measure(ways: dict[str, Timed], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way in each round, each time into a new folder."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        names = list(ways)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with tempfile.TemporaryDirectory(prefix="preparation.") as folder:
                seconds[name].append(ways[name](Path(folder)))
    return seconds


def print_rates(unit: str, count: int, seconds: dict[str, list[float]]) -> None:
    """A row a way: how many a second."""
    for name, times in seconds.items():
        print(f"| {name} | {count} {unit} | {count / statistics.median(times):.1f} {unit}/s |")


@torch.no_grad()
def main() -> None:
    """Measure all stages, print the table with rates and ratios."""
    options = add_options(argparse.ArgumentParser(description=__doc__), rounds=3).parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="preparation.") as temporary:
        check(1)(Path(temporary))
        folder = Path(temporary) / "index"
        index = read_index(folder)
        windows = [one for split in cache_latents.SPLITS for one in index.windows(split)]
        tokenizer = load_tokenizer(TOKENIZER, EXPERIMENT.tokenizer, "cpu")
        checks = measure({CHECKS[n]: check(n) for n in CHECKS}, options.rounds)
        texts = measure({"embed": embed(folder)}, options.rounds)
        cached = measure(
            {
                REFERENCE: encode_in_the_loop(index, windows, tokenizer),
                **{CACHES[n]: latents(folder, n) for n in CACHES},
            },
            options.rounds,
        )
    print("| part | of | rate |\n|---|---|---|")
    print_rates("clips", len(index.clips), checks)
    print_rates("captions", len(index.captions), texts)
    print_rates("windows", len(windows), cached)
    print()
    comparisons = [
        Comparison("check", CHECKS[1], checks),
        Comparison("latents", REFERENCE, cached),
    ]
    facts = {"clips": len(index.clips), "windows": len(windows), "video": EXPERIMENT.video}
    finish("preparation", comparisons, options, json.loads(json.dumps(facts, default=str)))


if __name__ == "__main__":
    main()
