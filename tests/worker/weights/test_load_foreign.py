"""Weights that other trainers and tools save: read, or refused with the command that converts them."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.foreign_weights import State, check_loads, prefixed, weights
from support.programs import follow_advice
from support.training import SMALL_NET
from torch import Tensor

from cosmos_worker.cli import main
from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.diffusers import diffusers_names
from cosmos_worker.weights.load import (
    load_model,
    read_weight_file,
)


def inside(state: State, part: str) -> State:
    """With a part in the middle of the names of blocks, as wrappers of modules leave it."""
    return {name.replace(".blocks.0.", f".{part}.blocks.0."): v for name, v in state.items()}


def bare(state: State, prefix: str) -> State:
    """The network's names after a prefix without ``net.``, as ComfyUI has them; without the uncertainty head."""
    return {
        f"{prefix}{n.removeprefix('net.')}": v for n, v in state.items() if n.startswith("net.")
    }


PREFIXES = (
    "module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module.", "_forward_module.", "model.",
    "model.module.", "anything.else.",
)  # fmt: skip


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_prefixes_of_other_trainers(tmp_path: Path, prefix: str, form: str) -> None:
    path = tmp_path / f"model.{form}"
    state = prefixed(weights(), prefix)
    torch.save(state, path) if form == "pt" else save_file(state, path)

    check_loads(path)


@pytest.mark.parametrize("part", ["_orig_mod", "_fsdp_wrapped_module", "module"])
def test_parts_of_wrappers_inside_of_names(tmp_path: Path, part: str) -> None:
    torch.save(inside(weights(), part), tmp_path / "model.pt")

    check_loads(tmp_path / "model.pt")


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "net.net."])
def test_prefixes_of_comfyui(tmp_path: Path, prefix: str) -> None:
    others = {
        "vae.decoder.conv.weight": torch.zeros(2),
        "text_encoders.t5.x.weight": torch.zeros(2),
    }
    save_file({**bare(weights(), prefix), **others}, tmp_path / "model.safetensors")

    net = {name: value for name, value in weights().items() if name.startswith("net.")}
    check_loads(tmp_path, net)


def test_prefix_before_the_names_of_diffusers(tmp_path: Path) -> None:
    state = weights()
    names = diffusers_names(2)
    torch.save(
        {f"module.{names[n]}": v for n, v in state.items() if n in names}, tmp_path / "model.pt"
    )

    check_loads(tmp_path / "model.pt", {n: v for n, v in state.items() if n in names})


class Settings:
    """An object of an unknown class, as trainers save some beside weights."""

    def __init__(self) -> None:
        self.learning_rate = 1e-4


OPTIMIZER = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4}]}
WRAPPED: dict[str, Any] = {
    "lightning": lambda s: {
        "state_dict": prefixed(s, "model."),
        "optimizer_states": [OPTIMIZER],
        "epoch": 3,
        "hyper_parameters": Settings(),
        "pytorch-lightning_version": "2.4.0",
    },
    "tutorial": lambda s: {"epoch": 1, "model_state_dict": s, "optimizer_state_dict": OPTIMIZER},
    "deepspeed": lambda s: {
        "module": prefixed(s, "module."),
        "ds_version": "0.17",
        "optimizer": None,
    },
    "nvidia": lambda s: {"model": s, "optimizer": OPTIMIZER, "scheduler": {}, "iteration": 500},
    "nested": lambda s: {"model": {"state_dict": s}},
    "average": lambda s: {"model": weights(5), "ema": s, "optimizer": OPTIMIZER},
    "average with dashes": lambda s: {
        "model": weights(5),
        "ema": {name.replace(".", "-"): value for name, value in s.items()},
    },
}


@pytest.mark.parametrize("kind", WRAPPED)
def test_wrapped_weights(tmp_path: Path, kind: str) -> None:
    torch.save(WRAPPED[kind](weights()), tmp_path / "model.pt")

    check_loads(tmp_path / "model.pt")


def two_networks() -> State:
    average = {
        n.replace("net.", "net_ema.", 1): v for n, v in weights(1).items() if n.startswith("net.")
    }
    return {**weights(), **average}


@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_average_beside_the_network_is_taken_and_told(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / f"model.{form}"
    torch.save(two_networks(), path) if form == "pt" else save_file(two_networks(), path)

    with caplog.at_level(logging.WARNING, logger="cosmos_worker"):
        state = read_weight_file(path)

    expected = {n: v for n, v in weights(1).items() if n.startswith("net.")}
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert torch.equal(state["logvar.1.weight"], weights()["logvar.1.weight"])
    assert "net_ema.* is taken, the average over the training" in caplog.text
    (tmp_path / "model.json").write_text(json.dumps({"net": SMALL_NET.model_dump(mode="json")}))
    command = caplog.text.partition("For the other one: cosmos-worker ")[2].splitlines()[0]
    assert main(command.replace("FOLDER", str(tmp_path / "regular")).split()) == 0
    check_loads(tmp_path / "regular")


@pytest.mark.parametrize("average", ["ema.", "net_ema.", "model_ema.net."])
def test_average_beside_a_network_without_prefix(tmp_path: Path, average: str) -> None:
    own, other = bare(weights(), ""), bare(weights(1), average)
    torch.save({**own, **other}, tmp_path / "model.pt")

    for prefer, seed in (("average", 1), ("regular", 0)):
        state = read_weight_file(tmp_path / "model.pt", prefer=prefer)
        expected = {name: v for name, v in weights(seed).items() if name.startswith("net.")}
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_half_an_average_is_not_mixed_with_the_network(tmp_path: Path) -> None:
    state = two_networks()
    del state["net_ema.final_layer.linear.weight"]
    torch.save(state, tmp_path / "model.pt")

    with pytest.raises(
        CheckpointError, match=r"net_ema\.\* lacks 1 tensor that net\.\* has, such as f"
    ):
        read_weight_file(tmp_path / "model.pt")


def test_two_networks_of_equal_rank_are_refused(tmp_path: Path) -> None:
    torch.save({**prefixed(weights(), "a."), **prefixed(weights(1), "b.")}, tmp_path / "model.pt")

    with pytest.raises(
        CheckpointError, match=r"holds 2 networks, .* begin with 'a\.net\.', 'b\.net\.'"
    ):
        read_weight_file(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"net._fsdp_wrapped_module._flat_param": torch.zeros(9)}, r"flat parameters of FSDP .*full_state_dict=True"),
        ({"state_dict": {"_flat_param": torch.zeros(9)}}, r"flat parameters of FSDP"),
        ({"module": None, "ds_version": "1", "param_shapes": []}, r"DeepSpeed without the weights.*zero_to_fp32\.py"),
        ({"net.blocks.0.self_attn.q_proj.weight": torch.zeros(2)}, r"another network, such as that of Cosmos-Predict2"),
        ({"encoder.layer.weight": torch.zeros(2)}, r"none of its names is there: give a file with the whole"),
    ],
)  # fmt: skip
def test_what_is_no_whole_network_is_named(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match=message) as caught:
        load_model(tmp_path / "model.pt", SMALL_NET)
    assert "use the experiment of this model's size" not in str(caught.value)


def test_advice_about_the_size_is_for_another_size_only(tmp_path: Path) -> None:
    state = weights()
    del state["net.blocks.block0.blocks.0.block.attn.to_q.0.weight"]
    torch.save(state, tmp_path / "model.pt")

    with pytest.raises(
        CheckpointError, match=r"1 missing: .*; save the network's whole state_dict\(\)"
    ):
        load_model(tmp_path / "model.pt", SMALL_NET)
    larger = SMALL_NET.model_copy(update={"num_blocks": 3})
    torch.save(weights(), tmp_path / "model.pt")
    with pytest.raises(
        CheckpointError, match=r"it has 2 blocks: use the experiment of this model's size"
    ):
        load_model(tmp_path / "model.pt", larger)


# --- 8-bit floating point --------------------------------------------------------------------

LAYER = "net.blocks.block0.blocks.2.block.layer1"


BYTES = torch.ones(128, 32, dtype=torch.int8)
FEW_BITS = torch.ones(32).to(torch.float8_e4m3fn)
NOTE = torch.tensor(list(b'{"format": "nvfp4"}'), dtype=torch.uint8)


def in_float8(style: str, dtype: torch.dtype = torch.float8_e4m3fn) -> tuple[State, Tensor]:
    """Weights with one layer in 8 bits, and what that layer is."""
    state = {name: value.bfloat16() for name, value in weights().items()}
    weight = weights()[f"{LAYER}.weight"]
    if style == "raw":
        stored = weight.to(dtype)
        return {**state, f"{LAYER}.weight": stored}, stored.float()
    scale = (
        weight.abs().amax(1, keepdim=True) / 448 if style == "rows" else weight.abs().max() / 448
    )
    stored = (weight / scale).to(dtype)
    name = "scale_weight" if style == "comfy" else "weight_scale"
    state |= {f"{LAYER}.weight": stored, f"{LAYER}.{name}": scale}
    if style == "comfy":
        state |= {
            "scaled_fp8": torch.zeros(0, dtype=dtype),
            f"{LAYER}.scale_input": torch.tensor(1.0),
        }
    if style == "new comfy":
        note = json.dumps({"format": str(dtype).removeprefix("torch.")}).encode()
        state[f"{LAYER}.comfy_quant"] = torch.tensor(list(note), dtype=torch.uint8)
    return state, stored.float() * scale


@pytest.mark.parametrize("style", ["raw", "comfy", "new comfy", "tensor", "rows"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_weights_in_8_bits_become_what_they_stand_for(
    tmp_path: Path, style: str, dtype: torch.dtype, form: str
) -> None:
    state, expected = in_float8(style, dtype)
    path = tmp_path / f"model.{form}"
    torch.save(state, path) if form == "pt" else save_file(state, path)

    loaded = load_model(path, SMALL_NET).state_dict()

    assert torch.equal(loaded[f"{LAYER}.weight"], expected)
    if style != "raw":
        torch.testing.assert_close(expected, weights()[f"{LAYER}.weight"], rtol=0.13, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{LAYER}.weight_scale_inv": torch.ones(1, 1)}, r"quantised weights \(.*weight_scale_inv\)"),
        ({f"{LAYER}.weight_scale": torch.ones(2, 2)}, r"weight_scale has shape \(2, 2\); known are one number"),
        ({f"{LAYER}.weight": BYTES}, r"weight_scale .* scales .*weight, which is torch\.int8"),
        ({"net.affline_norm.weight": FEW_BITS}, r"1 weight of 8-bit .* has no scale, such as"),
        ({f"{LAYER}.comfy_quant": NOTE}, r"says format 'nvfp4'"),
        ({f"{LAYER}.weight.quant_state.bitsandbytes__nf4": torch.zeros(4, dtype=torch.uint8)}, r"quantised weights \("),
    ],
)  # fmt: skip
def test_other_ways_to_keep_weights_in_few_bits_are_refused(
    tmp_path: Path, change: State, message: str
) -> None:
    state, _ = in_float8("tensor")
    save_file({**state, **change}, tmp_path / "model.safetensors")

    with pytest.raises(CheckpointError, match=message):
        load_model(tmp_path, SMALL_NET)


@pytest.mark.parametrize(
    "mark",
    [
        {"scaled_fp8": torch.zeros(0, dtype=torch.float8_e4m3fn)},
        {f"{LAYER}.scale_input": torch.tensor(1.0)},
        {f"{LAYER}.comfy_quant": torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)},
    ],
)  # fmt: skip
def test_weights_in_8_bits_whose_scales_are_lost_are_refused(tmp_path: Path, mark: State) -> None:
    state, _ = in_float8("raw")
    save_file({**state, **mark}, tmp_path / "model.safetensors")

    with pytest.raises(
        CheckpointError, match=r"has no scale, such as .*layer1\.weight, and .* says"
    ):
        load_model(tmp_path, SMALL_NET)


@pytest.mark.parametrize("key", ["params", "weights", "generator"])
def test_entry_of_a_name_that_is_not_known_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "model.pt"
    torch.save({key: weights(), "epoch": 3}, path)

    with pytest.raises(CheckpointError, match=rf"in the entries '{key}'; .*\['{key}'\]"):
        load_model(path, SMALL_NET)
    torch.save(torch.load(path, map_location="cpu")[key], tmp_path / "other.pt")
    check_loads(tmp_path / "other.pt")


# --- files that are something else -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.gguf", b"GGUF\x03\0\0\0", r"a GGUF file of llama\.cpp, which holds no weights"),
        ("model.onnx", b"\x08\x07\x12\x07pytorch", r"an ONNX graph, which holds no weights"),
        ("model.pt", b"", r"an empty file, which holds no weights .*; fetch it again"),
        ("model.pt", b"<!DOCTYPE html><html>Sign in</html>", r"an HTML page without a title, .*fetch it again"),
        ("model.pt", b"<!-- proxy --><head><title>Sign in</title>", r"an HTML page titled 'Sign in', .*fetch it again"),
        ("model.pt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"a Git LFS pointer.*git lfs pull"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", r"a Git LFS pointer.*git lfs pull"),
        ("model.pt", b"\x1f\x8b\x08\0", r"a gzip archive"),
        ("model.ckpt", pickle.dumps({"a": 1}), r"a pickle, as torch\.save wrote it before 2020"),
    ],
)  # fmt: skip
def test_files_of_other_kinds_are_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(CheckpointError, match=message):
        read_weight_file(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("model.gguf", r"model\.gguf is a file of llama\.cpp"),
        ("mp_rank_00_model_states.pt", r"one process's part of a training with DeepSpeed"),
        (
            "pytorch_model.bin",
            r"pytorch_model\.bin may hold weights, .*: name that file itself, or call it",
        ),
        ("__0_0.distcp", r"whose \.metadata is not there: copy this hidden file too"),
    ],
)
def test_folders_of_other_files_say_what_these_are(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")

    with pytest.raises(CheckpointError, match=message):
        read_weight_file(tmp_path)


def test_shards_of_torch_are_joined_by_the_command_in_the_message(tmp_path: Path) -> None:
    state = weights()
    for number, half in enumerate((list(state)[::2], list(state)[1::2]), 1):
        part = {name: state[name] for name in half}
        torch.save(part, tmp_path / f"pytorch_model-0000{number}-of-00002.bin")

    with pytest.raises(CheckpointError, match=r"is one of several files of torch\.save") as caught:
        read_weight_file(tmp_path)

    command = str(caught.value).partition("in memory: ")[2]
    follow_advice(command, tmp_path)
    check_loads(tmp_path)


def test_file_is_known_by_its_content_and_not_by_its_name(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "model.pt")
    torch.save(weights(), tmp_path / "pytorch_model.bin")

    check_loads(tmp_path)
    check_loads(tmp_path / "pytorch_model.bin")
