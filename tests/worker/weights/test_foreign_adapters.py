"""Adapters that others have made are merged as PEFT and diffusers merge them, or refused by name."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.training import SMALL_NET, small_model, write_model
from torch import Tensor, nn

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.diffusers import diffusers_names
from cosmos_worker.weights.load import read_weight_file
from cosmos_worker.weights.safetensors import Limits

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("peft") is None, reason="peft is not installed"),
    pytest.mark.filterwarnings("ignore"),  # warnings of its imports
]
LAYER = "net.blocks.block0.blocks.0.block.attn.to_q.0"
PEFT_FILE, DIFFUSERS_FILE = "adapter_model.safetensors", "pytorch_lora_weights.safetensors"


def move(model: nn.Module) -> None:
    """Set every tensor of an adapter to other values, in place of a training."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value += 0.1 * torch.randn(value.shape, generator=generator)


def train_adapter(folder: Path, base: nn.Module | None = None, **options: Any) -> Path:
    """An adapter of PEFT as somebody saves it, in a folder with its base."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": ["to_q.0"], **options})
    model = get_peft_model(base or small_model(), config)
    move(model)
    folder.mkdir(exist_ok=True)
    model.save_pretrained(str(folder))
    return folder


def merged_by_peft(folder: Path) -> Mapping[str, Tensor]:
    """The oracle: PEFT's own load onto the base, and its merge."""
    from peft import PeftModel

    return PeftModel.from_pretrained(small_model(), str(folder)).merge_and_unload().state_dict()


def check_alike(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert set(state) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(state[name].float(), value, rtol=0, atol=3e-6, msg=name)


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "gaussian": {"init_lora_weights": "gaussian"},
    "eva": {"init_lora_weights": "eva"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "mica": {"init_lora_weights": "mica"},
    "none": {"init_lora_weights": False},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "dora and pissa": {"use_dora": True, "init_lora_weights": "pissa"},
    "pissa and rslora": {"use_rslora": True, "init_lora_weights": "pissa"},
    "ranks by layer": {"rank_pattern": {r"blocks\.1\.block\.attn\.to_q\.0": 2}},
    "alphas by layer": {"alpha_pattern": {r"block1\..*to_q\.0": 12}, "use_rslora": True},
    "one regular expression": {"target_modules": r".*\.block[01]\.blocks\.0\..*to_[qv]\.0"},
    "excluded": {"target_modules": ["to_q.0", "layer1"], "exclude_modules": ["block.layer1"]},
    "by number": {"layers_to_transform": [1], "layers_pattern": "blocks"},
    "fan in, fan out": {"fan_in_fan_out": True},
    "whole modules": {"modules_to_save": ["logvar"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapter_of_peft_is_merged_as_peft_merges_it(tmp_path: Path, kind: str) -> None:
    folder = train_adapter(tmp_path / "both", **KINDS[kind])
    write_model(folder / "model.pt")
    (folder / "README.md").unlink(missing_ok=True)

    state, expected = read_weight_file(folder), merged_by_peft(folder)

    check_alike(state, expected)
    base = small_model().state_dict()
    assert any(not torch.allclose(state[name], base[name], atol=1e-3) for name in base)


@pytest.mark.parametrize("kind", ["plain", "pissa"])
def test_adapter_in_a_file_of_torch_is_merged_too(tmp_path: Path, kind: str) -> None:
    folder = train_adapter(tmp_path / "both", **KINDS[kind])
    write_model(folder / "model.pt")
    expected = merged_by_peft(folder)
    torch.save(load_file(folder / PEFT_FILE), folder / "adapter_model.bin")
    (folder / PEFT_FILE).unlink()

    check_alike(read_weight_file(folder), expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"init_lora_weights": "pissa_niter_16"},
            r"init_lora_weights: got 'pissa_niter_16', which",
        ),
        ({"init_lora_weights": "loftq"}, r"init_lora_weights: got 'loftq', which changed the base"),
        ({"init_lora_weights": "corda"}, r"init_lora_weights: got 'corda', which changed the base"),
        ({"init_lora_weights": "lora_ga"}, r"got 'lora_ga'.*path_initial_model_for_weight_conver"),
        (
            {"lora_bias": True},
            r"uses lora_bias=True, which cannot be merged here; merge it with PEFT",
        ),
        ({"use_dora": True}, r"lacks its lora_magnitude_vector, .*json says use_dora=True"),
        ({"peft_type": "IA3"}, r"peft_type: got 'IA3'; only 'LORA' can be merged"),
        (
            {"target_modules": ["to_k.0"]},
            r"target_modules .* do not name net\.blocks.*to_q\.0, which",
        ),
        ({"rank_pattern": {"to_q.0": 2}}, r"has shapes A \(4, 32\).*expected A \(2, in\)"),
        ({"alpha_pattern": {"to_q.0": -1}}, r"lora_alpha: got -1; expected a positive number"),
        ({"rank_pattern": {"(": 2}}, r"is no regular expression"),
    ],
)
def test_what_cannot_be_merged_is_refused_by_name(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    folder = train_adapter(tmp_path / "both")
    write_model(folder / "model.pt")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))

    with pytest.raises(CheckpointError, match=message):
        read_weight_file(folder)


@pytest.mark.parametrize("kind", ["LoHaConfig", "LoKrConfig"])
def test_other_methods_of_peft_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    import peft

    config = getattr(peft, kind)(r=2, target_modules=["to_q.0"])
    folder = tmp_path / "both"
    peft.get_peft_model(small_model(), config).save_pretrained(str(folder))
    write_model(folder / "model.pt")

    with pytest.raises(CheckpointError, match=r"peft_type: got 'LO(HA|KR)'; only 'LORA'"):
        read_weight_file(folder)


# --- of diffusers and others -----------------------------------------------------------------


def diffusers_base(folder: Path) -> Any:
    """The network of diffusers with our small weights, and their folder."""
    from diffusers import CosmosTransformer3DModel

    write_model(folder / "source.pt")
    convert_weights(folder / "source.pt", folder / "base", "diffusers", SMALL_NET, Limits())
    return CosmosTransformer3DModel.from_pretrained(folder / "base" / "transformer")


def state_of_diffusers(model: Any) -> dict[str, Tensor]:
    """Weights of diffusers' network under our names."""
    model.fuse_lora()
    state = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    return {own: state[theirs] for own, theirs in diffusers_names(SMALL_NET.num_blocks).items()}


@pytest.mark.parametrize("kind", ["plain", "rslora", "pissa", "ranks by layer", "without metadata"])
def test_adapter_of_diffusers_is_merged_as_diffusers_merges_it(tmp_path: Path, kind: str) -> None:
    from peft import LoraConfig

    options = KINDS.get(kind, {})
    if kind == "ranks by layer":
        options = {"rank_pattern": {"attn2.to_q": 2}}
    base = diffusers_base(tmp_path)
    base.add_adapter(LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_v"], **options))
    move(base)
    base.save_lora_adapter(tmp_path / "base", weight_name=DIFFUSERS_FILE)
    file = tmp_path / "base" / DIFFUSERS_FILE
    tensors = {
        f"transformer.{name.removeprefix('transformer.')}": v for name, v in load_file(file).items()
    }
    from safetensors import safe_open

    with safe_open(file, "pt") as content:
        metadata = dict(content.metadata())
    if kind == "without metadata":
        metadata = {"format": "pt"}
    save_file(tensors, file, metadata)

    from diffusers import CosmosTransformer3DModel

    loaded = CosmosTransformer3DModel.from_pretrained(tmp_path / "base" / "transformer")
    text = metadata.get("lora_adapter_metadata")
    given = None
    if text is not None:
        whole = {k.removeprefix("transformer."): v for k, v in json.loads(text).items()}
        given = {f"transformer.{key}": value for key, value in whole.items()}
    if given is not None:
        save_file(tensors, file, {**metadata, "lora_adapter_metadata": json.dumps(given)})
    loaded.load_lora_adapter(
        str(tmp_path / "base"), prefix="transformer", weight_name=DIFFUSERS_FILE, metadata=given
    )
    state, expected = read_weight_file(tmp_path / "base"), state_of_diffusers(loaded)

    for name, value in expected.items():
        torch.testing.assert_close(state[name].float(), value, rtol=0, atol=3e-6, msg=name)


def plain_parts() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(4, 32, generator=generator), torch.randn(32, 4, generator=generator)


def named(style: str) -> dict[str, Tensor]:
    """One correction of LAYER as different trainers name it, with alpha 2 where they write one."""
    A, B = plain_parts()
    short, flat = LAYER.removeprefix("net."), LAYER.removeprefix("net.").replace(".", "_")
    layer, down, up = {
        "transformer": (f"transformer.{LAYER}", "lora_A", "lora_B"),
        "old diffusers": ("transformer.transformer_blocks.0.attn1.to_q", "lora.down", "lora.up"),
        "comfy": (f"diffusion_model.{short}", "lora_down", "lora_up"),
        "comfy with letters": (f"diffusion_model.{short}", "lora_A", "lora_B"),
        "kohya": (f"lora_unet_{flat}", "lora_down", "lora_up"),
        "kohya of diffusers": ("lora_unet_transformer_blocks_0_attn1_to_q", "lora_down", "lora_up"),
    }[style]
    tensors = {f"{layer}.{down}.weight": A, f"{layer}.{up}.weight": B}
    return tensors | ({f"{layer}.alpha": torch.tensor(2.0)} if "kohya" in style else {})


@pytest.mark.parametrize(
    "style",
    ["transformer", "old diffusers", "comfy", "comfy with letters", "kohya", "kohya of diffusers"],
)
def test_names_of_other_trainers_mean_the_same_layer(tmp_path: Path, style: str) -> None:
    write_model(tmp_path / "model.pt")
    save_file(named(style), tmp_path / DIFFUSERS_FILE)

    state = read_weight_file(tmp_path)

    A, B = plain_parts()
    scale = 2 / 4 if "kohya" in style else 1
    expected = dict(small_model().state_dict())
    expected[f"{LAYER}.weight"] = expected[f"{LAYER}.weight"] + scale * B @ A
    check_alike(state, expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{LAYER}.lokr_w1", r"lokr_w1 is a correction of another kind than LoRA's B A"),
        (f"{LAYER}.hada_w1_a", "another kind"),
        (f"lora_unet_{LAYER}.dora_scale", "another kind"),
        ("transformer.transformer_blocks.0.attn1.processor.to_q_lora.down.weight", "another kind"),
        ("text_encoder.layers.0.q.lora_A.weight", "corrects a text encoder"),
        ("lora_te_layers_0_q.lora_down.weight", "corrects a text encoder"),
        ("lora_unet_down_blocks_0.lora_down.weight", r"lacks lora_unet_down_blocks_0\.lora_B"),
    ],
)
def test_other_corrections_are_refused_by_name(tmp_path: Path, name: str, message: str) -> None:
    write_model(tmp_path / "model.pt")
    save_file({**named("transformer"), name: torch.zeros(4, 32)}, tmp_path / DIFFUSERS_FILE)

    with pytest.raises(CheckpointError, match=message):
        read_weight_file(tmp_path)


def test_corrections_of_unknown_layers_are_refused(tmp_path: Path) -> None:
    write_model(tmp_path / "model.pt")
    A, B = plain_parts()
    names = {"lora_unet_x_y.lora_down.weight": A, "lora_unet_x_y.lora_up.weight": B}
    save_file(names, tmp_path / DIFFUSERS_FILE)

    with pytest.raises(CheckpointError, match=r"lora_unet_x_y, which is no layer of this network"):
        read_weight_file(tmp_path)


@pytest.mark.parametrize("name", ["my_lora.safetensors", "robot-lora.bin", "adapter_config.json"])
def test_corrections_that_would_not_be_applied_are_told(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "model.pt")
    save_file(named("comfy"), tmp_path / name)

    with pytest.raises(CheckpointError, match=r"under a name by which they are not applied; to ap"):
        read_weight_file(tmp_path)
    (tmp_path / name).rename(tmp_path / DIFFUSERS_FILE)  # as the message says
    if name != "adapter_config.json":
        assert not torch.equal(
            read_weight_file(tmp_path)[f"{LAYER}.weight"],
            small_model().state_dict()[f"{LAYER}.weight"],
        )


def test_two_adapters_in_one_folder_are_refused(tmp_path: Path) -> None:
    folder = train_adapter(tmp_path / "both")
    write_model(folder / "model.pt")
    save_file(named("comfy"), folder / DIFFUSERS_FILE)

    with pytest.raises(CheckpointError, match=r"two LoRA adapters beside each other"):
        read_weight_file(folder)
