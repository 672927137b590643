"""float8 by torchao, emulated on a CPU: options that are admitted, and those that decide the weights."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.runs import losses
from support.training import (
    small_experiment,
    small_model,
    train_config,
    train_with_processes,
    write_model,
    write_training_inputs,
)
from torch import Tensor, nn

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.identity import options_that_decide_weights
from cosmos_worker.config.training import (
    AccelerationConfig,
    ParallelConfig,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train.parallelize import accelerate, check_float8_pays

CPU = torch.device("cpu")
FLOAT8 = AccelerationConfig(linear="float8")
ENGINE = AccelerationConfig(attention="transformer_engine")
needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed"
)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def accelerated(config: AccelerationConfig, device: torch.device = CPU) -> CosmosModel:
    model = small_model()
    accelerate(model, config, device)
    return model.to(device)


def output_and_gradients(model: CosmosModel, device: torch.device = CPU) -> tuple[Tensor, Tensor]:
    """Output of the network, and all gradients in one vector."""
    generator = torch.Generator().manual_seed(3)
    inputs = (
        torch.randn(2, 16, 3, 4, 4, generator=generator),
        torch.randn(2, generator=generator),
        torch.randn(2, 8, 16, generator=generator),
        torch.zeros(2, 1, 3, 4, 4),
        torch.full((2,), 10.0),
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        output = model.net(*(one.to(device) for one in inputs))
    output.float().square().mean().backward()
    gradients = [p.grad.flatten() for p in model.net.parameters() if p.grad is not None]
    return output.detach().float().cpu(), torch.cat(gradients).cpu()


def assert_within(found: Tensor, expected: Tensor, tolerance: float) -> None:
    difference = ((found - expected).norm() / expected.norm()).item()
    assert 0 < difference < tolerance


# --- float8 ----------------------------------------------------------------------------------


@needs_torchao
def test_float8_is_close_in_output_and_gradients() -> None:
    output, gradients = output_and_gradients(accelerated(FLOAT8))
    expected = output_and_gradients(small_model())

    # float8 has 3 bits of fraction forward and 2 for gradients
    assert_within(output, expected[0], 0.05)
    assert_within(gradients, expected[1], 0.15)


@needs_torchao
def test_float8_leaves_weights_and_other_layers_alone() -> None:
    model, plain = accelerated(FLOAT8), small_model()

    state = model.state_dict()
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())
    kinds = {name: type(one) for name, one in model.named_modules() if isinstance(one, nn.Linear)}
    changed = {name for name, kind in kinds.items() if kind is not nn.Linear}
    assert len(changed) == 2 * (4 + 4 + 2)
    assert all(".attn." in name or ".block.layer" in name for name in changed)


@needs_torchao
def test_float8_training_lowers_the_loss(tmp_path: Path) -> None:
    write_training_inputs(tmp_path)
    write_model(tmp_path / "model.pt")
    chosen = small_experiment(max_steps=40, save_every_steps=40).model_copy(
        update={"acceleration": FLOAT8}
    )

    result = train_stage.run(train_config(tmp_path, chosen), Volumes())

    assert result["validation_loss_after"] < result["validation_loss_before"]


@needs_torchao
@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_sharded_float8_computes_what_one_process_does(tmp_path: Path) -> None:
    def config(name: str, **parallel: object) -> tuple[object, Path]:
        chosen = small_experiment(parallel=ParallelConfig(**parallel), micro_batch_size=1)
        target = tmp_path / name
        target.mkdir()
        return train_config(
            tmp_path, chosen.model_copy(update={"acceleration": FLOAT8}), target
        ), target

    write_training_inputs(tmp_path)
    write_model(tmp_path / "model.pt")
    alone, spread = config("alone"), config("spread", sharding="full")
    train_stage.run(alone[0], Volumes())
    train_with_processes(*spread, 2)

    # sums differ in the last bit, so that some round to another float8 number
    assert losses(spread[1]) == pytest.approx(losses(alone[1]), rel=5e-3)


def test_absent_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchao", "torchao.float8"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(
        ConfigError, match=r"linear: 'float8' cannot be used here .*; pip install 'torchao"
    ):
        accelerate(small_model(), FLOAT8, CPU)


@needs_torchao
def test_float8_needs_sides_that_it_admits() -> None:
    model = small_model()
    for name in [
        name for name, one in model.net.blocks.named_modules() if isinstance(one, nn.Linear)
    ]:
        parent, _, own = name.rpartition(".")
        setattr(model.net.blocks.get_submodule(parent), own, nn.Linear(24, 24))

    with pytest.raises(ConfigError, match="no layer of this network has sides"):
        accelerate(model, FLOAT8, CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rank": 2}, "acceleration": {"linear": "float8"}}, "'float8' is not for LoRA"),
        (
            {"acceleration": {"linear": "float8", "compile": "disabled"}},
            "'float8' without compiled blocks is slower.*use compile=auto, or linear=plain",
        ),
        (
            {
                "diffusion": {"compute_dtype": "float32"},
                "acceleration": {"attention": "transformer_engine"},
            },
            "computes in bfloat16",
        ),
        (
            {"optimizer": {"implementation": "apex"}, "parallel": {"sharding": "full"}},
            r"'apex' updates whole weights.*'full' spreads over processes; use 'torch', or parallel\.sharding=none",
        ),
    ],
)
def test_options_that_contradict_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Experiment.model_validate({**small_experiment().model_dump(), **changes})


def test_float8_of_blocks_that_are_not_compiled_is_refused_on_a_gpu() -> None:
    cuda = torch.device("cuda", 0)
    check_float8_pays(FLOAT8, cuda, is_compiled=True)
    check_float8_pays(FLOAT8, CPU, is_compiled=False)

    with pytest.raises(ConfigError, match=r"not compiled here .*; use 'plain'"):
        check_float8_pays(FLOAT8, cuda, is_compiled=False)


def test_float8_decides_the_weights_and_who_computes_attention_does_not() -> None:
    def decisive(config: AccelerationConfig) -> dict[str, object]:
        return options_that_decide_weights(
            small_experiment().model_copy(update={"acceleration": config})
        )

    assert decisive(ENGINE) == decisive(AccelerationConfig()) != decisive(FLOAT8)


# --- on a GPU --------------------------------------------------------------------------------


def on_cuda(make: Callable[[torch.device], CosmosModel]) -> tuple[Tensor, Tensor]:
    device = torch.device("cuda")
    return output_and_gradients(make(device), device)


@needs_cuda
@needs_torchao
@pytest.mark.gpu
def test_float8_on_a_gpu_is_close() -> None:
    output, gradients = on_cuda(lambda device: accelerated(FLOAT8, device))
    expected = on_cuda(lambda device: small_model().to(device))

    assert_within(output, expected[0], 0.05)
    assert_within(gradients, expected[1], 0.15)
