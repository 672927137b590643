"""8-bit moments: memory, convergence, and runs that are continued. torchao is real, on a CPU and not compiled."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from support.runs import assert_same_bits, forget_after, losses, stop_after, weights
from support.training import (
    SMALL_NET,
    small_experiment,
    train_config,
    train_with_processes,
    write_training_inputs,
)

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import (
    OptimizerConfig,
    ParallelConfig,
    has_8bit_states,
)
from cosmos_worker.errors import CheckpointError, ConfigError, StopRequested
from cosmos_worker.memory.sizes import optimizer_bytes
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.optimizer import build_optimizer, set_learning_rate

needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed"
)
WIDE_NET = SMALL_NET.model_copy(update={"model_channels": 256})
"""Most of its weights have rows of whole blocks."""


def experiment(sharding: str = "none", bits: int = 8, **trainer: object) -> Experiment:
    parallel = ParallelConfig(sharding=sharding)
    small = small_experiment(parallel=parallel, init="random", micro_batch_size=1, **trainer)
    optimizer = small.optimizer.model_copy(update={"state_bits": bits})
    return small.model_copy(update={"net": WIDE_NET, "optimizer": optimizer})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    return root


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of one process."""
    target = tmp_path_factory.mktemp("alone")
    train_stage.run(train_config(inputs, experiment(), target), Volumes())
    return target


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((16, 256), True),
        ((15, 256), False),  # less than 4096 values
        ((4096, 72), False),  # rows of no whole block
        ((4096,), False),
        ((0, 256), False),
    ],
)
def test_rule_looks_at_whole_rows(shape: tuple[int, ...], expected: bool) -> None:
    assert has_8bit_states(shape) is expected


def test_torchao_that_cannot_be_imported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchao", None)
    monkeypatch.delitem(sys.modules, "cosmos_worker.train.adamw_8bit", raising=False)

    with pytest.raises(
        ConfigError, match=r"state_bits: 8 cannot be used here .*torchao.*pip install 'torchao"
    ):
        build_optimizer(torch.nn.Linear(2, 2), OptimizerConfig(state_bits=8))


def test_apex_has_none() -> None:
    with pytest.raises(ValueError, match="state_bits: 8 is not in apex"):
        OptimizerConfig(implementation="apex", state_bits=8)


# --- one process -----------------------------------------------------------------------------


def bytes_of(state: dict[str, torch.Tensor]) -> int:
    return sum(
        value.nbytes for name, value in state.items() if name != "step" and value is not None
    )


@needs_torchao
def test_moments_take_what_the_plan_counts() -> None:
    model = CosmosModel(WIDE_NET, extra_pos_emb=True)
    optimizer = build_optimizer(model.net, OptimizerConfig(state_bits=8))
    for parameter in model.net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()

    held = sum(bytes_of(state) for state in optimizer.state_dict()["state"].values())

    assert held == optimizer_bytes(experiment())
    assert held < 0.3 * optimizer_bytes(experiment(bits=32))


@needs_torchao
def test_what_a_checkpoint_copies_are_plain_tensors() -> None:
    from cosmos_worker.train.shard_files import collect, copy_to_cpu

    layer = torch.nn.Linear(256, 16, bias=False)
    optimizer = build_optimizer(layer, OptimizerConfig(state_bits=8))
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()

    held = collect(layer, optimizer, with_frozen=True)["optimizer"]["state"]["weight"]
    copied = copy_to_cpu(held)

    assert {"step", "exp_avg_codes", "exp_avg_scales"} < copied.keys()
    for name, value in copied.items():
        assert type(value) is torch.Tensor
        assert torch.equal(value, held[name])
        assert value.data_ptr() != held[name].data_ptr()


@needs_torchao
def test_update_is_close_to_that_of_float32_moments() -> None:
    def trained(bits: int) -> tuple[torch.Tensor, float]:
        torch.manual_seed(0)
        layer = torch.nn.Linear(256, 64, bias=False)
        goal = torch.randn(64, 256) / 16
        inputs = torch.randn(512, 256)
        optimizer = build_optimizer(layer, OptimizerConfig(state_bits=bits, weight_decay=0.01))
        for step in range(60):
            set_learning_rate(optimizer, 1e-2 * (1 - step / 60))
            loss = (layer(inputs) - inputs @ goal.T).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return layer.weight.detach(), float(loss.detach())

    (exact, loss), (quantised, loss_8bit) = trained(32), trained(8)

    assert loss_8bit < 2 * loss < 0.05
    difference = (exact - quantised).norm() / exact.norm()
    assert 0 < difference < 0.03


@needs_torchao
def test_learning_rate_of_every_step_is_used() -> None:
    layer = torch.nn.Linear(256, 16, bias=False)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, OptimizerConfig(state_bits=8, weight_decay=0))
    layer.weight.grad = torch.ones_like(layer.weight)

    set_learning_rate(optimizer, 0.25)
    optimizer.step()

    torch.testing.assert_close(layer.weight.detach(), before - 0.25)


@needs_torchao
@pytest.mark.parametrize("step", [3, 4])
def test_interrupted_run_ends_in_the_same_bits(
    inputs: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    config = train_config(inputs, experiment(), tmp_path)
    with monkeypatch.context() as patch:
        stop_after(step, patch)
        with pytest.raises(StopRequested):
            train_stage.run(config, Volumes())
    train_stage.run(config, Volumes())

    assert_same_bits(alone, tmp_path)


@needs_torchao
def test_run_with_other_moments_is_not_continued(inputs: Path, tmp_path: Path) -> None:
    train_stage.run(train_config(inputs, experiment(max_steps=2), tmp_path), Volumes())

    with pytest.raises(CheckpointError, match=r"optimizer\.state_bits \(8 -> 32\)"):
        train_stage.run(train_config(inputs, experiment(bits=32, max_steps=2), tmp_path), Volumes())


# --- several processes -----------------------------------------------------------------------


@needs_torchao
@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_saved_by_two_is_continued_by_one(inputs: Path, alone: Path, tmp_path: Path) -> None:
    train_with_processes(train_config(inputs, experiment("full"), tmp_path), tmp_path, 2)
    # gradients differ in their last bits, so that a moment here and there is rounded to its neighbour
    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-3)

    forget_after(2, tmp_path)
    train_stage.run(train_config(inputs, experiment(), tmp_path), Volumes())

    assert losses(tmp_path) == pytest.approx(losses(alone), rel=1e-3)
    for key, value in weights(alone).items():
        torch.testing.assert_close(weights(tmp_path)[key], value, atol=1e-3, rtol=1e-2, msg=key)
