"""Transformer Engine's layers and attention: by a stand-in with its signatures, on a GPU by the library."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from support import fake_transformer_engine, transformer_engine_program
from support.training import (
    run_path,
    small_experiment,
    small_model,
    train_config,
    write_model,
    write_training_inputs,
)
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.identity import options_that_decide_weights
from cosmos_worker.config.network import TextConfig, VideoConfig
from cosmos_worker.config.training import (
    AccelerationConfig,
    ParallelConfig,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel, call
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.export import list_exports
from cosmos_worker.train.parallelize import accelerate
from cosmos_worker.train.transformer_engine import attend_by

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
PLAIN = AccelerationConfig()
FLOAT8 = AccelerationConfig(linear="transformer_engine_float8")
ATTENTION = AccelerationConfig(attention="transformer_engine")
PROGRAM = Path(transformer_engine_program.__file__)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("transformer_engine") is None,
    reason="transformer-engine is not installed",
)
own_warnings = pytest.mark.filterwarnings("default")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_transformer_engine.install_for_test(monkeypatch)


def accelerated(config: AccelerationConfig) -> CosmosModel:
    """A network on the CPU, accelerated as on a GPU."""
    model = small_model()
    accelerate(model, config, CUDA)
    return model


def output_and_gradients(
    model: CosmosModel, device: torch.device = CPU, bfloat16: bool = True
) -> tuple[Tensor, Tensor]:
    """Output of the network, and all gradients in one vector."""
    output = evaluate(model, device, bfloat16)
    output.square().mean().backward()
    gradients = [p.grad.flatten() for p in model.net.parameters() if p.grad is not None]
    return output.detach().cpu(), torch.cat(gradients).cpu()


def evaluate(model: CosmosModel, device: torch.device = CPU, bfloat16: bool = True) -> Tensor:
    """Output of the network on samples of 32 tokens and texts of 16, in float32."""
    generator = torch.Generator().manual_seed(3)
    inputs = (
        torch.randn(2, 16, 2, 8, 8, generator=generator),
        torch.randn(2, generator=generator),
        torch.randn(2, 16, 16, generator=generator),
        torch.zeros(2, 1, 2, 8, 8),
        torch.full((2,), 10.0),
    )
    model.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        output: Tensor = model.net(*(one.to(device) for one in inputs))
    return output.float()


def assert_within(
    found: Iterable[Tensor], expected: Iterable[Tensor], tolerances: Iterable[float]
) -> None:
    for one, other, tolerance in zip(found, expected, tolerances, strict=True):
        assert 0 < ((one - other).norm() / other.norm()).item() < tolerance


# --- float8 ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("bfloat16", [True, False])
def test_products_are_close_in_output_and_gradients(bfloat16: bool) -> None:
    found = output_and_gradients(accelerated(FLOAT8), bfloat16=bfloat16)
    expected = output_and_gradients(small_model(), bfloat16=bfloat16)

    # float8 has 3 bits of fraction forward and 2 for gradients
    assert_within(found, expected, (0.05, 0.15))


@pytest.mark.usefixtures("stand_in")
def test_layers_take_the_weights_and_their_names() -> None:
    model, plain = accelerated(FLOAT8), small_model()

    state = model.state_dict()
    assert list(state) == list(plain.state_dict())
    assert all(torch.equal(state[key], value) for key, value in plain.state_dict().items())
    assert [name for name, _ in model.named_parameters()] == [
        n for n, _ in plain.named_parameters()
    ]
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.load_state_dict(plain.state_dict(), strict=True)
    plain.load_state_dict(state, strict=True)
    changed = {
        name
        for name, one in model.named_modules()
        if isinstance(one, fake_transformer_engine.Linear)
    }
    assert len(changed) == 2 * (4 + 4 + 2)
    assert all(".attn." in name or ".block.layer" in name for name in changed)


@pytest.mark.usefixtures("stand_in")
def test_block_that_is_computed_again_is_in_float8_too() -> None:
    model = accelerated(FLOAT8)
    model.net.run_block = lambda block, *inputs: checkpoint(
        partial(call, block), *inputs, use_reentrant=False
    )

    again = output_and_gradients(model)

    for found, expected in zip(again, output_and_gradients(accelerated(FLOAT8)), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.usefixtures("stand_in")
def test_layers_are_in_float8_without_gradients_as_with_them() -> None:
    model = accelerated(FLOAT8)
    with torch.no_grad():
        output = evaluate(model)

    assert torch.equal(output, output_and_gradients(model)[0])


# --- a run of the stage ----------------------------------------------------------------------


def experiment(**parallel: object) -> Experiment:
    """An experiment with samples of 48 tokens, texts of 16, in bfloat16."""
    chosen = small_experiment(
        parallel=ParallelConfig(**parallel), micro_batch_size=1, device="auto"
    )
    return Experiment.model_validate(
        {
            **chosen.model_dump(),
            "video": VideoConfig(num_pixel_frames=17, height=64, width=64),
            "text": TextConfig(max_length=16),
            "diffusion": {"compute_dtype": "bfloat16"},
            "acceleration": FLOAT8,
        }
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root, latent_size=(8, 8))
    write_model(root / "model.pt")
    return root


def train(inputs: Path, target: Path, processes: int, **parallel: object) -> str:
    """Returns the log."""
    target.mkdir(exist_ok=True)
    config = train_config(inputs, experiment(**parallel), target)
    document = target / "train.yaml"
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, f"--nproc-per-node={processes}", str(PROGRAM), str(document)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def figures(target: Path, name: str) -> list[float]:
    text = (run_path(target) / "metrics.jsonl").read_text()
    return [line[name] for line in map(json.loads, text.splitlines()) if name in line]


def weights(target: Path) -> dict[str, Tensor]:
    return torch.load(list(list_exports(run_path(target), "reg").values())[-1], weights_only=True)


@pytest.fixture(scope="module")
def alone(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("alone")
    train(inputs, target, 1)
    return target


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_continued_run_ends_in_the_same_bits(inputs: Path, alone: Path, tmp_path: Path) -> None:
    train(inputs, tmp_path, 1)
    (tmp_path / "complete-k.json").unlink(missing_ok=True)
    for saved, folder in list_states(run_path(tmp_path)):
        if saved > 2:
            (folder / "complete.json").unlink()

    assert "continued step=2" in train(inputs, tmp_path, 1)
    for key, value in weights(alone).items():
        assert torch.equal(weights(tmp_path)[key], value), key
    assert list(weights(alone)) == list(small_model().state_dict())


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_spread_run_computes_what_one_process_does(
    inputs: Path, alone: Path, tmp_path: Path
) -> None:
    train(inputs, tmp_path, 2, sharding="full", activation_checkpointing="block")

    # sharded weights are rounded to bfloat16 before they are rounded to float8
    for name in ("loss", "validation_loss"):
        assert figures(tmp_path, name) == pytest.approx(figures(alone, name), rel=5e-3)
    assert figures(tmp_path, "validation_loss")[-1] < figures(tmp_path, "validation_loss")[0]


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (FLOAT8, "linear: 'transformer_engine_float8' needs CUDA, this run is on cpu; use 'plain'"),
        (ATTENTION, "attention: 'transformer_engine' needs CUDA, this run is on cpu; use 'torch'"),
    ],
)
def test_cpu_is_refused(config: AccelerationConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        accelerate(small_model(), config, CPU)


@pytest.mark.parametrize("config", [FLOAT8, ATTENTION])
def test_absent_library_is_refused(
    config: AccelerationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("transformer_engine", "transformer_engine.pytorch"):
        monkeypatch.setitem(sys.modules, name, None)

    with pytest.raises(ConfigError, match=r"cannot be used here \(.*\); use an image that has"):
        accelerate(small_model(), config, CUDA)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "2.15.0"}, r"transformer-engine 2\.15\.0 is not 2\.16 or later; use 'plain'"),
        ({"version": "1.13.0+9.0"}, r"transformer-engine 1\.13\.0\+9\.0 is not 2\.16 or later"),
        (
            {"lack": "Device compute capability 8.9 or higher required for FP8 execution."},
            r"cannot be used here: Device compute capability 8\.9 .* FP8 execution; use 'plain'",
        ),
    ],
)
def test_what_has_no_float8_for_us_is_refused(
    options: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_transformer_engine.install_for_test(monkeypatch, **options)

    with pytest.raises(ConfigError, match=message):
        accelerate(small_model(), FLOAT8, CUDA)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rank": 2}}, "'transformer_engine_float8' is not for LoRA"),
        ({"trainer": {"device": "cpu"}}, "trainer.device: 'cpu' has no such layers"),
        ({"diffusion": {"compute_dtype": "float32"}}, "'float32', where results are bfloat16"),
        (
            {"parallel": {"activation_checkpointing": "selective"}},
            "'selective' cannot keep the results of these products",
        ),
        (
            {"compat": {"trimmed_text": True}},
            "compat.trimmed_text: true leaves captions of any length",
        ),
        ({"text": {"max_length": 24}}, "text.max_length: 24 is not a multiple of 16"),
        ({"net": {"text_channels": 40}}, "net.text_channels: 40 is not a multiple of 16"),
        ({"net": {"model_channels": 40}}, "net.model_channels: 40 is not a multiple of 16; change"),
        ({"net": {"mlp_ratio": 1.25}}, "net.mlp_ratio times net.model_channels: 40 is not"),
        (
            {"video": {"height": 32, "width": 32}},
            "video, tokens of a sample in each process: 12 is not a multiple of 16",
        ),
        (
            {"parallel": {"context_parallel": 3}, "video": {"height": 32}},
            "tokens of a sample in each process: 8 is not",
        ),
        (
            {"buckets": ({"num_pixel_frames": 9, "height": 48, "width": 64},)},
            r"buckets\.0, tokens of a sample in each process: 24 is not a multiple of 16",
        ),
    ],
)
def test_what_the_layers_do_not_admit_is_refused(
    changes: dict[str, dict[str, object]], message: str
) -> None:
    given = experiment().model_dump()
    for part, values in changes.items():
        given[part] = {**given[part], **values} if isinstance(values, dict) else values
    plain = {**given, "acceleration": PLAIN}

    with pytest.raises(ValueError, match=message):
        Experiment.model_validate(given)
    Experiment.model_validate(plain)


def test_all_that_is_not_admitted_is_told_at_once() -> None:
    given = experiment().model_dump()
    given["text"] = {"max_length": 24}
    given["compat"] = {"trimmed_text": True}

    with pytest.raises(
        ValueError, match=r"any length; text\.max_length: 24 .*; change that, or use"
    ):
        Experiment.model_validate(given)


def test_float8_decides_the_weights_and_who_computes_attention_does_not() -> None:
    def decisive(config: AccelerationConfig) -> dict[str, object]:
        return options_that_decide_weights(
            small_experiment().model_copy(update={"acceleration": config})
        )

    torchao = AccelerationConfig(linear="float8")
    assert decisive(ATTENTION) == decisive(PLAIN) != decisive(FLOAT8) != decisive(torchao)


# --- attention -------------------------------------------------------------------------------


@pytest.mark.usefixtures("stand_in")
def test_attention_of_another_order_computes_the_same() -> None:
    model, plain = accelerated(ATTENTION), small_model()

    assert list(model.state_dict()) == list(plain.state_dict()), "the kernel is no part of it"
    for found, expected in zip(
        output_and_gradients(model), output_and_gradients(plain), strict=True
    ):
        torch.testing.assert_close(found, expected)


def test_attention_is_that_of_the_kernel() -> None:
    calls: list[torch.Size] = []

    class Kernel(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            assert all(one.is_contiguous() for one in (q, k, v))
            calls.append(k.shape)
            turned = (one.transpose(1, 2) for one in (q, k, v))
            return F.scaled_dot_product_attention(*turned).transpose(1, 2).flatten(2)

    model = small_model()
    for layer in model.net.blocks["block0"].blocks[:2]:
        layer.block.attn.attend = attend_by(Kernel())
    output_and_gradients(model)

    assert [shape[1] for shape in calls] == [32, 16]  # tokens, then the caption


# --- on a GPU --------------------------------------------------------------------------------


def on_cuda(make: Callable[[], CosmosModel]) -> tuple[Tensor, Tensor]:
    return output_and_gradients(make(), CUDA)


@pytest.mark.gpu
@needs_cuda
@needs_engine
@own_warnings
def test_attention_computes_what_torch_does() -> None:
    found, expected = on_cuda(lambda: accelerated(ATTENTION)), on_cuda(small_model)

    # both round to bfloat16, in another order
    torch.testing.assert_close(found[0], expected[0], rtol=0.02, atol=0.02)
    assert (found[1] - expected[1]).norm() < 0.02 * expected[1].norm()


@pytest.mark.gpu
@needs_cuda
@needs_engine
@own_warnings
def test_float8_on_a_gpu_is_that_of_the_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    found, expected = on_cuda(lambda: accelerated(FLOAT8)), on_cuda(small_model)
    assert_within(found, expected, (0.05, 0.15))

    fake_transformer_engine.install_for_test(monkeypatch)
    # sums in another order, some of which round to another float8 number
    assert_within(found, on_cuda(lambda: accelerated(FLOAT8)), (0.01, 0.03))
