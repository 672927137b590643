"""Time and memory of each stage of the worker: for the 7B model on one GPU, for the quickstart's on a CPU.

Weights and latents are random: sizes, speed and memory are real, what is learned is not. ``make gpu`` prints the
figures that docs/benchmarks.md wants.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pytest
import torch
import yaml
from support.generation import moving_square
from support.memory import PeakMemory
from support.text_encoders import write_t5
from support.tiny_tokenizer import write_tiny_tokenizer
from support.training import run_path, train_config, write_training_inputs

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.config.values import GIB
from cosmos_worker.data.video.files import write_video
from cosmos_worker.memory.sizes import checkpoint_bytes, net_size
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.storage.volumes import GENERATED_FILE
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.export import list_exports

BRIDGE = "video2world_instruction_bridge_57frames"
COMMON = (
    "trainer.log_every_steps=1",
    "trainer.keep_last=1",
    "trainer.keep_exports=1",
    "ema.enabled=false",
)
SHORT = ("trainer.global_batch_size=2", "trainer.micro_batch_size=1")
WAYS = {
    "full": (f"{BRIDGE}_1gpu_80gb", ("trainer.device=cuda", "trainer.max_steps=12")),
    "full in float8 of transformer engine": (
        f"{BRIDGE}_1gpu_80gb",
        (
            "trainer.device=cuda",
            "trainer.max_steps=12",
            "acceleration.linear=transformer_engine_float8",
        ),
    ),
    "lora": (f"{BRIDGE}_lora", ("trainer.device=cuda", "trainer.max_steps=12")),
    "tiny full": (
        "video2world_instruction_push_tiny",
        ("optimizer.state_bits=8", "trainer.max_steps=24"),
    ),
}
STOP_AFTER = 2
EXIT_STOPPED = 75


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"{package} is not installed"
    )


on_gpu = (
    pytest.mark.gpu,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)


@dataclass
class Figures:
    """Measured figures by name."""

    lines: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join(f"{name:<34}{value}" for name, value in self.lines.items())


class PeakOnGpu(threading.Thread):
    """Samples the used memory of the first GPU, that of other programs included, until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._stopped = 0, threading.Event()

    def run(self) -> None:
        while torch.cuda.is_available() and not self._stopped.wait(0.2):
            free, total = torch.cuda.mem_get_info(0)
            self.peak = max(self.peak, total - free)

    def stop(self) -> int:
        self._stopped.set()
        self.join()
        return self.peak


@contextmanager
def stage(
    folder: Path, name: str, document: dict[str, object], figures: Figures
) -> Iterator[subprocess.Popen[bytes]]:
    """A stage of the worker as a process; its log is folder/NAME.log, and its peaks become figures."""
    kind = name.split()[0]
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    started = time.monotonic()
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "cosmos_worker.cli", kind, "--config", str(path)], stderr=log
        )
        host, gpu = PeakMemory(process.pid), PeakOnGpu()
        host.start()
        gpu.start()
        try:
            yield process
            process.wait()
        finally:
            process.kill()
            process.wait()
            peaks = host.stop(), gpu.stop()
    figures.lines[name] = (
        f"{time.monotonic() - started:.1f} s, host {peaks[0] / GIB:.2f} GiB, GPU {peaks[1] / GIB:.2f} GiB"
    )


def seconds_between(log: str, first: str, second: str) -> float:
    """Between the first line with each pattern, in whole seconds."""
    times = []
    for pattern in (first, second):
        line = next(line for line in log.splitlines() if re.search(pattern, line))
        times.append(datetime.strptime(line.split()[0], "%Y-%m-%dT%H:%M:%SZ"))
    return (times[1] - times[0]).total_seconds()


def steps_done(target: Path) -> list[dict[str, float]]:
    path = run_path(target) / "metrics.jsonl"
    text = path.read_text() if path.is_file() else ""
    return [line for line in map(json.loads, text.splitlines()) if "loss" in line]


def write_random_model(path: Path, experiment: Experiment) -> None:
    """A bfloat16 weight file of the network's true size."""
    with torch.device("meta"):
        shapes = CosmosModel(experiment.net, extra_pos_emb=True).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.empty(value.shape, dtype=torch.bfloat16).normal_(0, 0.02, generator=generator)
        for name, value in shapes.items()
    }
    torch.save(state, path)


def write_inputs(folder: Path, experiment: Experiment) -> None:
    video, net = experiment.video, experiment.net
    write_training_inputs(
        folder,
        num_latent_frames=experiment.num_latent_frames,
        latent_size=(video.height // 8, video.width // 8),
        text_channels=net.text_channels,
    )
    write_random_model(folder / "model.pt", experiment)
    write_tiny_tokenizer(folder / "tokenizer")
    write_t5(folder / "encoder", d_model=net.text_channels)
    frames = moving_square(video.num_pixel_frames, video.height, video.width)
    write_video(folder / "clip.mp4", frames, 5.0)


def sampling_document(folder: Path, weights: Path, experiment: Experiment) -> dict[str, object]:
    video = experiment.video
    config = GenerateConfig(
        key="k",
        target_uri=str(folder / "samples"),
        name="after",
        checkpoint_uri=str(weights),
        net=experiment.net,
        text=experiment.text,
        tokenizer_uri=str(folder / "tokenizer"),
        tokenizer=experiment.tokenizer,
        tokenizer_runtime="torchscript",
        encoder_uri=str(folder / "encoder"),
        inputs=({"prompt": "push 1", "visual_input_uri": str(folder / "clip.mp4")},),
        sampling={
            "num_steps": 4,
            "num_pixel_frames": video.num_pixel_frames,
            "height": video.height,
            "width": video.width,
            "fps": 5.0,
        },
        device="cpu" if experiment.trainer.device == "auto" else experiment.trainer.device,
    )
    return config.model_dump(mode="json")


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("full", marks=[*on_gpu, needs("torchao")]),
        pytest.param(
            "full in float8 of transformer engine",
            marks=[*on_gpu, needs("torchao"), needs("transformer_engine")],
        ),
        pytest.param("lora", marks=on_gpu),
        pytest.param(
            "tiny full",
            marks=[pytest.mark.multiproc, pytest.mark.timeout(300), needs("torchao")],
        ),
    ],
)
def test_loads_trains_stops_continues_and_samples(
    way: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, options = WAYS[way]
    experiment = get_experiment(name, (*COMMON, *SHORT, *options))
    needed = checkpoint_bytes(experiment) + 2 * net_size(experiment.net).parameters
    if shutil.disk_usage(tmp_path).free < needed:
        pytest.fail(f"{tmp_path}: needs {needed / GIB:.0f} GiB; choose another with --basetemp")
    write_inputs(tmp_path, experiment)
    document = train_config(tmp_path, experiment).model_dump(mode="json")
    target, figures = tmp_path / "out", Figures()

    with stage(tmp_path, "train 1", document, figures) as process:
        while process.poll() is None and len(steps_done(target)) < STOP_AFTER:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
    log = (tmp_path / "train 1.log").read_text()
    assert process.returncode == EXIT_STOPPED, log
    (saved,) = [step for step, _ in list_states(run_path(target))]
    assert STOP_AFTER <= saved < experiment.trainer.max_steps
    load = seconds_between(log, "resolved configuration", "training parameters=")
    figures.lines["load"] = f"{load:.0f} s"
    with stage(tmp_path, "train 2", document, figures) as process:
        pass
    log = (tmp_path / "train 2.log").read_text()
    assert process.returncode == 0, log
    resume = seconds_between(log, "training parameters=", f"continued step={saved}")
    figures.lines["load checkpoint"] = f"{resume:.0f} s"
    last = experiment.trainer.max_steps
    save = seconds_between(log, f"step={last}/{last} loss", f"checkpoint step={last}")
    figures.lines["save"] = f"{save:.0f} s"
    done = steps_done(target)
    assert [line["step"] for line in done] == list(range(1, last + 1))
    assert all(torch.isfinite(torch.tensor(line["loss"])) for line in done)
    fastest = min(line["seconds_per_step"] for line in done)
    batch = experiment.trainer.global_batch_size
    figures.lines["step"] = f"{fastest:.3f} s for {batch} samples, {batch / fastest:.2f} samples/s"
    (weights,) = list_exports(run_path(target), "reg").values()
    with stage(
        tmp_path, "generate", sampling_document(tmp_path, weights, experiment), figures
    ) as process:
        pass
    assert process.returncode == 0, (tmp_path / "generate.log").read_text()
    (line,) = (tmp_path / "samples" / GENERATED_FILE).read_text().splitlines()
    figures.lines["sample"] = f"{json.loads(line)['seconds']:.1f} s for 4 steps of two passes"

    device = torch.cuda.get_device_name() if experiment.trainer.device == "cuda" else "CPU"
    with capsys.disabled():
        sys.stdout.write(f"\n{way}: {experiment.name}, {device}\n{figures}\n")
