"""Make the base model of the quickstart: a video prior of the pushing scene that has never read an instruction.

It runs the worker's own stages on a large rendered dataset (render.py), from random weights and with every caption
dropped (text.dropout=1), so that the result knows arm, cubes and contact but not what the words mean.

    python examples/pushing/render.py --out DATA --split train --count 3200 --cubes 1 2 2 --seed 1000
    python examples/pushing/make_base.py --dataset DATA --work WORK
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.source import Source
from cosmos_worker.config.stages import (
    CacheLatentsConfig,
    EmbedTextConfig,
    PrepareDatasetConfig,
    StageConfig,
    TrainConfig,
)
from cosmos_worker.storage.volumes import (
    read_marker,
    run_folder,
    sha256_of_file,
)

HERE = Path(__file__).resolve().parent
CHECKPOINTS = HERE / "checkpoints"
TARGET = CHECKPOINTS / "Cosmos-Tiny-Video2World"
TOKENIZER = CHECKPOINTS / "Cosmos-Tiny-Tokenizer-CV8x8x8"
ENCODER = CHECKPOINTS / "Cosmos-Tiny-T5"


def base_experiment(steps: int) -> Experiment:
    """The quickstart's experiment, from random weights and without text."""
    return get_experiment(
        "video2world_instruction_push_tiny",
        [
            "trainer.init=random",
            "net.extra_pos_emb=learnable",
            "text.dropout=1.0",
            "diffusion.p_mean=0.2",
            "optimizer.learning_rate=1.5e-3",
            "optimizer.warmup_steps=200",
            "optimizer.decay_start=0.5",
            f"trainer.max_steps={steps}",
            "trainer.save_every_steps=500",
            "trainer.log_every_steps=50",
        ],
    )


def run_stage(stage: str, config: StageConfig, work: Path, *options: str) -> dict[str, Any]:
    """Run a stage of the worker in a process of its own and return its result."""
    document = work / f"{stage}.yaml"
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "cosmos_worker.cli",
        stage,
        "--config",
        str(document),
        *options,
    ]
    subprocess.run(command, env=environment, check=True)
    marker = read_marker(Path(config.target_uri), config.key)
    assert marker is not None
    result: dict[str, Any] = marker["result"]
    return result


def prepare(
    dataset: Path, encoder: Path, work: Path, experiment: Experiment
) -> tuple[Path, Path, Path]:
    """Index, embeddings and latents of the dataset."""
    index, text, latents = (work / name for name in ("index", "text", "latents"))
    run_stage(
        "prepare-dataset",
        PrepareDatasetConfig(
            key="base",
            target_uri=str(index),
            source=Source(path=str(dataset)),
            data_uri=str(work / "data"),
            layout="bridge",
            video=experiment.video,
        ),
        work,
    )
    run_stage(
        "embed-text",
        EmbedTextConfig(
            key="base",
            target_uri=str(text),
            dataset_uri=str(index),
            encoder_uri=str(encoder),
            max_length=experiment.text.max_length,
        ),
        work,
    )
    run_stage(
        "cache-latents",
        CacheLatentsConfig(
            key="base",
            target_uri=str(latents),
            dataset_uri=str(index),
            tokenizer_uri=str(TOKENIZER),
            video=experiment.video,
            tokenizer=experiment.tokenizer,
            tokenizer_runtime="torchscript",
        ),
        work,
    )
    return index, text, latents


def main() -> None:
    """Prepare, train, copy the averaged weights."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", type=Path, required=True, help="folder that render.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="folder for everything in between")
    parser.add_argument(
        "--encoder",
        type=Path,
        default=ENCODER,
        help="T5 folder; its embeddings are multiplied by zero",
    )
    parser.add_argument("--steps", type=int, default=5000, help="optimizer steps")
    parser.add_argument("--processes", type=int, default=2, help="training processes")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    experiment = base_experiment(options.steps)
    index, text, latents = prepare(options.dataset, options.encoder, options.work, experiment)
    config = TrainConfig(
        key="base",
        target_uri=str(options.work / "out"),
        experiment=experiment,
        run_name="base",
        model_uri=None,
        dataset_uri=str(index),
        embeddings_uri=str(text),
        latents_uri=str(latents),
    )
    started = time.monotonic()
    result = run_stage("train", config, options.work, "--nproc-per-node", str(options.processes))
    run = run_folder(options.work / "out", experiment.project, experiment.group, "base")
    TARGET.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "checkpoints" / f"iter_{options.steps:09d}_ema_model.pt", TARGET / "model.pt")
    figures = {
        "minutes": round((time.monotonic() - started) / 60, 1),
        "sha256": sha256_of_file(TARGET / "model.pt"),
        "tokenizer_sha256": sha256_of_file(TOKENIZER / "encoder.jit"),
        "dataset": json.loads((index / "summary.json").read_text(encoding="utf-8")),
        "steps": options.steps,
        "result": {name: value for name, value in result.items() if name != "run"},
    }
    (TARGET / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
