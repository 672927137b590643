"""Files with LoRA corrections give the network that their authors sample from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.reference_keys import extra_state_names
from support.training import SMALL_NET, small_model
from torch import Tensor

from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.load import (
    load_model,
    load_network,
    read_weight_file,
)
from cosmos_worker.weights.lora import find_corrections
from cosmos_worker.weights.safetensors import Limits

RANK = 3
PLACES = [(i, j, which) for i in (0, 1) for j in (0, 1) for which in "qv"]
LAYERS = [f"net.blocks.block{i}.blocks.{j}.block.attn.to_{which}" for i, j, which in PLACES]
State = dict[str, Tensor]


def corrections(seed: int = 5) -> dict[str, tuple[Tensor, Tensor]]:
    """Layer → A (rank, in), B (out, rank)."""
    generator = torch.Generator().manual_seed(seed)
    state = small_model().state_dict()
    found = {}
    for layer in LAYERS:
        rows, columns = state[f"{layer}.0.weight"].shape
        found[layer] = (
            torch.randn(RANK, columns, generator=generator),
            torch.randn(rows, RANK, generator=generator),
        )
    return found


def merged(scale: float, seed: int = 5) -> State:
    """The expected weight, W + B A, computed without our code."""
    state = dict(small_model().state_dict())
    for layer, (A, B) in corrections(seed).items():
        state[f"{layer}.0.weight"] = state[f"{layer}.0.weight"] + scale * torch.einsum(
            "or,ri->oi", B, A
        )
    return state


def nvidia_names(seed: int = 5) -> State:
    parts = corrections(seed).items()
    down = {f"{layer}_lora.net.0.weight": A for layer, (A, _) in parts}
    return down | {f"{layer}_lora.net.1.weight": B for layer, (_, B) in parts}


def nvidia_file(ema: Mapping[str, Tensor] | None = None) -> dict[str, object]:
    """A checkpoint of NVIDIA's trainer: all weights under model, trained ones under ema with dashes, and a count."""
    model = dict(small_model().state_dict()) | nvidia_names()
    extra = dict.fromkeys(extra_state_names(2), torch.empty(0))
    average = None if ema is None else {name.replace(".", "-"): v for name, v in ema.items()}
    record = {"image": 0, "video": 8, "iteration": 2}
    return {"model": model | extra, "ema": average, "trained_data_record": record}


def peft_file(alpha: float | None = None, adapter: str = ".default") -> State:
    state = {}
    for name, value in small_model().state_dict().items():
        layer = name.removesuffix(".0.weight")
        state[f"{layer}.0.base_layer.weight" if layer in LAYERS else name] = value
    for layer, (A, B) in corrections().items():
        state |= {f"{layer}.0.lora_A{adapter}.weight": A, f"{layer}.0.lora_B{adapter}.weight": B}
        if alpha is not None:
            state[f"{layer}.0.alpha"] = torch.tensor(alpha)
    return {f"base_model.model.{name}": value for name, value in state.items()}


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def check_equal(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert list(state) == list(expected)
    for key, value in expected.items():
        torch.testing.assert_close(state[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_file_of_nvidias_trainer_is_merged(tmp_path: Path, scale: float) -> None:
    path = save(tmp_path / "model.pt", nvidia_file())

    model = load_model(path, SMALL_NET, lora_scale=scale)

    check_equal(model.state_dict(), merged(scale))


def test_averaged_corrections_are_those_that_are_merged(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", nvidia_file(ema=nvidia_names(seed=6)))

    check_equal(load_model(path, SMALL_NET, lora_scale=1).state_dict(), merged(1, seed=6))


def test_average_of_a_run_without_lora_replaces_what_it_has(tmp_path: Path) -> None:
    state = dict(small_model().state_dict())
    ema = {"net.affline_norm.weight": torch.full((32,), 7.0)}
    content = nvidia_file(ema) | {"model": state}

    loaded = load_model(save(tmp_path / "model.pt", content), SMALL_NET).state_dict()

    check_equal(loaded, state | ema)


@pytest.mark.parametrize("adapter", [".default", ""])
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_file_of_peft_is_merged(tmp_path: Path, adapter: str, form: str) -> None:
    path = tmp_path / f"model.{form}"
    content = peft_file(adapter=adapter)
    torch.save(content, path) if form == "pt" else save_file(content, path)

    check_equal(load_model(path, SMALL_NET, lora_scale=2).state_dict(), merged(2))


def test_alpha_in_the_file_decides_the_scale(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", peft_file(alpha=6))

    check_equal(load_model(path, SMALL_NET).state_dict(), merged(6 / RANK))
    with pytest.raises(ConfigError, match=r"LoRA scale: got 1, but .* says the scale .*; leave it"):
        read_weight_file(path, lora_scale=1)


def test_merged_network_computes_what_the_corrected_one_does(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", nvidia_file())
    x = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))

    attention = load_network(path, SMALL_NET, lora_scale=0.5).blocks["block0"].blocks[0].block.attn

    A, B = corrections()[LAYERS[0]]
    base = small_model().net.blocks["block0"].blocks[0].block.attn.to_q[0]
    torch.testing.assert_close(attention.to_q[0](x), base(x) + 0.5 * (x @ A.T) @ B.T)


def test_export_writes_a_file_without_corrections(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", nvidia_file())

    limits = Limits(torch.float32)
    convert_weights(path, tmp_path / "out", "pt", SMALL_NET, limits, lora_scale=1)

    check_equal(load_model(tmp_path / "out", SMALL_NET).state_dict(), merged(1))


def test_missing_scale_says_what_to_give(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", nvidia_file())

    with pytest.raises(
        CheckpointError,
        match=r"LoRA corrections of 8 layers and not their scale; .*spec\.model\.loraScale.*--lora-scale",
    ):
        load_model(path, SMALL_NET)


def test_scale_without_corrections_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "model.pt", dict(small_model().state_dict()))

    with pytest.raises(
        ConfigError, match=r"got 1, but .*model\.pt holds no LoRA corrections; leave"
    ):
        load_model(path, SMALL_NET, lora_scale=1)


def without(state: State, pattern: str) -> State:
    return {name: value for name, value in state.items() if not re.search(pattern, name)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: nvidia_names(), r"without the 8 weights that they correct, such as net\.blocks"),
        (
            lambda s: without(s, r"block0.*0.*to_q_lora\.net\.1"),
            r"to_q\.0\.weight lacks its B; save",
        ),
        (
            lambda s: s | {f"{LAYERS[0]}_lora.net.1.weight": torch.zeros(32, 9)},
            r"has shapes A \(3, 32\), B \(32, 9\); expected A \(rank, 32\), B \(32, rank\)",
        ),
    ],
    ids=["adapter only", "half", "shapes"],
)
def test_corrections_that_cannot_be_merged_are_refused(tmp_path: Path, change, message) -> None:
    path = save(tmp_path / "model.pt", change(dict(small_model().state_dict()) | nvidia_names()))

    with pytest.raises(CheckpointError, match=message):
        read_weight_file(path, lora_scale=1)


def test_two_adapters_are_refused(tmp_path: Path) -> None:
    names = [f"net.a.lora_{part}.{adapter}.weight" for adapter in ("x", "y") for part in "AB"]

    with pytest.raises(
        CheckpointError, match=r"two LoRA corrections of net\.a\.weight .*; keep one"
    ):
        find_corrections(names, tmp_path)


def test_corrections_of_layers_that_the_network_lacks_are_refused(tmp_path: Path) -> None:
    state = dict(small_model().state_dict())
    state |= {"net.other.to_q.0.weight": torch.zeros(4, 4)}
    state |= {f"net.other.to_q_lora.net.{i}.weight": torch.zeros(4, 4) for i in (0, 1)}

    with pytest.raises(CheckpointError, match=r"1 extra: net\.other\.to_q\.0\.weight"):
        load_model(save(tmp_path / "model.pt", state), SMALL_NET, lora_scale=1)
