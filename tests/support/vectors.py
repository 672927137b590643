"""The reference's tensors: which files a test runs on, and how they are read."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from cosmos_worker.config.network import NetConfig
from cosmos_worker.model.dit import CosmosDiT

DEFAULT_FOLDER = Path(__file__).resolve().parents[1] / "data" / "vectors"


def vector_paths(word: str, folder: Path) -> list[Path]:
    """The ``*.safetensors`` files of a folder whose name begins with the word.

    The first word ends at the first ``_`` or ``.``: ``net_tiny_extra.safetensors`` is of the word ``net``.
    The committed folder must hold every word that a test asks for: there, a path that does not exist is
    returned, and the test that opens it fails. Any other folder may hold only some words.
    """
    found = [
        path
        for path in sorted(folder.glob("*.safetensors"))
        if re.split(r"[_.]", path.name)[0] == word
    ]
    if not found and folder == DEFAULT_FOLDER:
        return [folder / f"{word}_missing.safetensors"]
    return found


def load_vector(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Values (configuration and scalars, from the metadata) and tensors of a file."""
    with safe_open(path, framework="pt") as stream:
        values = json.loads(stream.metadata()["values"])
        return values, {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118


def under(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Entries below ``prefix/``, without it."""
    return {
        k.removeprefix(f"{prefix}/"): v for k, v in tensors.items() if k.startswith(f"{prefix}/")
    }


def net_config(values: dict[str, Any]) -> NetConfig:
    """The reference's network options as ours."""
    config = under(values, "config")
    assert config["block_config"] == "FA-CA-MLP"
    assert config["patch_temporal"] == 1
    assert config["max_img_h"] == config["max_img_w"]
    return NetConfig(
        model_channels=config["model_channels"],
        num_blocks=config["num_blocks"],
        num_heads=config["num_heads"],
        latent_channels=config["out_channels"],
        mlp_ratio=config["mlp_ratio"],
        text_channels=config["crossattn_emb_channels"],
        adaln_lora_dim=config["adaln_lora_dim"],
        patch_size=config["patch_spatial"],
        max_latent_size=config["max_img_h"],
        max_latent_frames=config["max_frames"],
        rope_ratio_t=config["rope_t_extrapolation_ratio"],
        rope_ratio_h=config["rope_h_extrapolation_ratio"],
        rope_ratio_w=config["rope_w_extrapolation_ratio"],
    )


def build_network(values: dict[str, Any], tensors: dict[str, Tensor]) -> CosmosDiT:
    """The network of a file with its weights (names without ``net.``), float32."""
    state = {k.removeprefix("net."): v for k, v in under(tensors, "state_dict").items()}
    state = {k: v for k, v in state.items() if not k.startswith("logvar.")}
    extra = any(key.startswith("extra_pos_embedder.") for key in state)
    net = CosmosDiT(net_config(values), extra)
    net.pos_embedder.init_positions()
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert set(missing) <= {"pos_embedder.seq"}
    assert not unexpected
    return net
