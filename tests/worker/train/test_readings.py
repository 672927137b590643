"""Steps that are read one step late, as on a GPU: the same run, and a bad step that updates nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.fake_cuda import CUDA, fake_cuda
from support.runs import assert_same_bits, metrics, stop_after
from support.training import (
    SMALL_NET,
    run_path,
    small_experiment,
    small_model,
    train_config,
    write_model,
    write_training_inputs,
)
from torch.utils._python_dispatch import TorchDispatchMode

from cosmos_worker.config.training import OptimizerConfig
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.errors import DataError, StopRequested
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.data import Batch
from cosmos_worker.train.ema import PowerEma
from cosmos_worker.train.gradients import clip_gradients
from cosmos_worker.train.noise import draw_noise
from cosmos_worker.train.optimizer import build_optimizer
from cosmos_worker.train.readings import Readings
from cosmos_worker.train.step import StepResult, train_step

CPU = torch.device("cpu")
SUPPORT = Path(__file__).parents[2] / "support"
SHAPE = (SMALL_NET.latent_channels, 3, 4, 4)
FLAGS = (False, False, False)


def work(scale: float = 1.0, step: int = 0) -> list[tuple[Batch, Noise]]:
    """One micro-batch of two samples."""
    generator = torch.Generator().manual_seed(step)
    latents = scale * torch.randn(2, *SHAPE, generator=generator)
    text = torch.randn(2, 8, SMALL_NET.text_channels, generator=generator)
    noise = draw_noise(SHAPE, small_experiment(), "train", step, [0, 1])
    return [(Batch(latents, text, torch.full((2,), 10.0)), noise)]


def take_step(
    model: CosmosModel, optimizer: torch.optim.Optimizer, step: int, scale: float = 1.0
) -> StepResult:
    return train_step(
        model,
        optimizer,
        work(scale, step),
        small_experiment(),
        CPU,
        lambda: f"step {step}",
        checks_later=True,
    )


# --- copies to the host ----------------------------------------------------------------------


@contextmanager
def noting_what_is_read() -> Iterator[list[str]]:
    """Note every operation by which Python or the CPU gets a value from the GPU: a wait, or a copy behind it."""
    found: list[str] = []

    class Notes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            kwargs = kwargs or {}
            aten = torch.ops.aten
            if func in (aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default):
                found.append("waited")
            is_copy = func is aten._to_copy.default and args[0].device == CUDA
            if is_copy and torch.device(kwargs.get("device") or CUDA) == CPU:
                found.append("copied" if kwargs.get("non_blocking") else "waited")
            if func is aten.copy_.default and args[0].device == CPU and args[1].device == CUDA:
                found.append("copied" if kwargs.get("non_blocking") else "waited")
            return func(*args, **kwargs)

    with Notes():
        yield found


@pytest.mark.parametrize(
    ("checks_later", "expected"), [(True, ["copied"]), (False, ["waited", "copied"])]
)
def test_step_is_read_by_one_copy_that_nothing_waits_for(
    monkeypatch: pytest.MonkeyPatch, checks_later: bool, expected: list[str]
) -> None:
    experiment = small_experiment()
    with fake_cuda(monkeypatch):
        with CUDA:
            model = CosmosModel(SMALL_NET, True)
        optimizer = build_optimizer(model, experiment.optimizer)
        average = PowerEma(model, experiment.ema.rate, torch.float32)
        readings = Readings(ProcessGroup(device_type="cuda"), is_late=True)
        with noting_what_is_read() as read:
            result = train_step(
                model, optimizer, work(), experiment, CUDA, lambda: "", checks_later=checks_later
            )
            average.update(0)
            readings.queue(result, FLAGS, None)
            assert readings.take(everything=False) == []

    assert read == expected


def test_optimizer_whose_update_cannot_be_left_out_is_checked_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = small_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    with pytest.raises(DataError, match="step 1: NaN or infinite gradient"):
        take_step(model, optimizer, 1, scale=1e30)


# --- a bad step ------------------------------------------------------------------------------


def test_step_with_bad_gradients_updates_nothing_and_is_named_when_it_is_read() -> None:
    model = small_model()
    optimizer = build_optimizer(model, OptimizerConfig(learning_rate=1e-3))
    readings = Readings(ProcessGroup(), is_late=True)
    readings.queue(take_step(model, optimizer, 1), FLAGS, None)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    states = [
        {name: value.clone() for name, value in state.items()}
        for state in optimizer.state_dict()["state"].values()
    ]

    readings.queue(take_step(model, optimizer, 2, scale=1e30), FLAGS, None)
    assert len(readings.take(everything=False)) == 1

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for old, new in zip(states, optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(old[name], new[name]) for name in old)
    with pytest.raises(
        DataError, match=r"step 2: NaN or infinite gradient in \d+ parameters \(net"
    ):
        readings.take(everything=True)


def test_norm_is_that_of_pytorch_to_the_last_bit() -> None:
    model, experiment = small_model(), small_experiment()
    generator = torch.Generator().manual_seed(5)
    for one in model.parameters():
        one.grad = torch.randn(one.shape, generator=generator)
    grads = [one.grad for one in model.parameters() if one.grad is not None]
    expected = torch.nn.utils.get_total_norm(grads)

    found = clip_gradients(model, experiment, lambda: "")

    assert torch.equal(found.norm, expected)
    assert len(found.names) == len(found.own_norms) == len(grads)


@pytest.mark.multiproc
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("sharding", "processes"), [("full", 2), ("hybrid", 4)])
def test_sharded_steps_are_those_of_pytorch_to_the_last_bit(sharding: str, processes: int) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = [str(SUPPORT / "late_steps_program.py"), sharding]
    ended = subprocess.run(
        [*torchrun, f"--nproc-per-node={processes}", *program],
        env=os.environ | {"PYTHONPATH": str(SUPPORT.parent), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["equal"] * processes


# --- a whole run -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosmos_worker.train.trainer.reads_late", lambda device: True)


def test_run_that_is_read_late_is_the_same(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small_experiment(max_steps=7, log_every_steps=3, save_every_steps=4)
    train_stage.run(train_config(inputs, experiment, tmp_path / "now"), Volumes())
    monkeypatch.setattr("cosmos_worker.train.trainer.reads_late", lambda device: True)
    stop_after(5, monkeypatch)
    config = train_config(inputs, experiment, tmp_path / "late")
    with pytest.raises(StopRequested, match="stopped after step 6"):  # read after the next one
        train_stage.run(config, Volumes())
    monkeypatch.undo()
    monkeypatch.setattr("cosmos_worker.train.trainer.reads_late", lambda device: True)
    train_stage.run(config, Volumes())

    assert_same_bits(tmp_path / "now", tmp_path / "late")
    shown = [
        [
            (line["step"], line["loss"], line["grad_norm"])
            for line in metrics(target)
            if "loss" in line
        ]
        for target in (tmp_path / "now", tmp_path / "late")
    ]
    assert shown[0][:2] == shown[1][:2]
    assert [step for step, *_ in shown[0]] == [3, 6, 7]


@pytest.mark.usefixtures("late")
def test_bad_step_is_named_and_nothing_is_saved_after_it(tmp_path: Path) -> None:
    write_training_inputs(tmp_path, num_windows=4, bad_latent=torch.tensor(1e30))
    write_model(tmp_path / "model.pt")
    experiment = small_experiment(log_every_steps=4, save_every_steps=4)

    with pytest.raises(DataError, match=r"step 1, windows .*train/0@0.*: NaN or infinite"):
        train_stage.run(train_config(tmp_path, experiment), Volumes())

    assert not list_states(run_path(tmp_path / "out"))
    assert json.loads((run_path(tmp_path / "out") / "metrics.jsonl").read_text().splitlines()[0])
