"""The network in diffusers' form: other names, and a config.json with the sizes that tensors do not tell.

Diffusers' ``CosmosTransformer3DModel`` is the same network. It has no uncertainty head, so ``logvar.*`` lies in a
file beside its folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cosmos_worker.config.network import NetConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.file_kinds import read_json_file
from cosmos_worker.weights.forms import CONFIG_FILE

STEM = "diffusion_pytorch_model"
CLASS_NAME = "CosmosTransformer3DModel"

OUTER_NAMES = {
    "net.x_embedder.proj.1.weight": "patch_embed.proj.weight",
    "net.t_embedder.1.linear_1.weight": "time_embed.t_embedder.linear_1.weight",
    "net.t_embedder.1.linear_2.weight": "time_embed.t_embedder.linear_2.weight",
    "net.affline_norm.weight": "time_embed.norm.weight",
    "net.extra_pos_embedder.pos_emb_t": "learnable_pos_embed.pos_emb_t",
    "net.extra_pos_embedder.pos_emb_h": "learnable_pos_embed.pos_emb_h",
    "net.extra_pos_embedder.pos_emb_w": "learnable_pos_embed.pos_emb_w",
    "net.final_layer.adaLN_modulation.1.weight": "norm_out.linear_1.weight",
    "net.final_layer.adaLN_modulation.2.weight": "norm_out.linear_2.weight",
    "net.final_layer.linear.weight": "proj_out.weight",
}
"""The reference's name → diffusers' name."""
ATTENTION_NAMES = {
    "to_q.0": "to_q",
    "to_k.0": "to_k",
    "to_v.0": "to_v",
    "to_q.1": "norm_q",
    "to_k.1": "norm_k",
    "to_out.0": "to_out.0",
}
BLOCK_NAMES = {
    **{
        f"blocks.{j}.block.attn.{ours}.weight": f"attn{j + 1}.{theirs}.weight"
        for j in (0, 1)
        for ours, theirs in ATTENTION_NAMES.items()
    },
    "blocks.2.block.layer1.weight": "ff.net.0.proj.weight",
    "blocks.2.block.layer2.weight": "ff.net.2.weight",
    **{
        f"blocks.{j}.adaLN_modulation.{k}.weight": f"norm{j + 1}.linear_{k}.weight"
        for j in (0, 1, 2)
        for k in (1, 2)
    },
}
"""The same inside of a block."""
BLOCK = re.compile(r"^transformer_blocks\.(\d+)\.")


def diffusers_names(num_blocks: int) -> dict[str, str]:
    """The reference's name → diffusers' name, of all tensors that diffusers has."""
    names = dict(OUTER_NAMES)
    for i in range(num_blocks):
        for ours, theirs in BLOCK_NAMES.items():
            names[f"net.blocks.block{i}.{ours}"] = f"transformer_blocks.{i}.{theirs}"
    return names


def reference_names(names: Iterable[str]) -> dict[str, str] | None:
    """Diffusers' name → the reference's name; an unknown one stays. None if the names are not diffusers'."""
    names = list(names)
    if OUTER_NAMES["net.x_embedder.proj.1.weight"] not in names:
        return None
    blocks = [int(match[1]) for name in names if (match := BLOCK.match(name))]
    known = {theirs: ours for ours, theirs in diffusers_names(max(blocks, default=-1) + 1).items()}
    return {name: known.get(name, name) for name in names}


# --- config.json -----------------------------------------------------------------------------


def build_config(net: NetConfig, extra_pos_emb: bool) -> dict[str, Any]:
    """The config.json of a network."""
    return {
        "_class_name": CLASS_NAME,
        # with the mask of known frames; the padding mask is not counted
        "in_channels": net.latent_channels + 1,
        "out_channels": net.latent_channels,
        "num_attention_heads": net.num_heads,
        "attention_head_dim": net.head_dim,
        "num_layers": net.num_blocks,
        "mlp_ratio": net.mlp_ratio,
        "text_embed_dim": net.text_channels,
        "adaln_lora_dim": net.adaln_lora_dim,
        "max_size": [net.max_latent_frames, net.max_latent_size, net.max_latent_size],
        "patch_size": [1, net.patch_size, net.patch_size],
        "rope_scale": [net.rope_ratio_t, net.rope_ratio_h, net.rope_ratio_w],
        "concat_padding_mask": True,
        "extra_pos_embed_type": "learnable" if extra_pos_emb else None,
    }


def read_config(weights: Path) -> dict[str, Any] | None:
    """The config.json beside a weight file; None if there is none, or it is not that of this class.

    Raises:
        CheckpointError: not JSON.
    """
    path = weights.parent / CONFIG_FILE
    if not path.is_file():
        return None
    config = read_json_file(path, "fetch the model again")
    return config if isinstance(config, dict) and config.get("_class_name") == CLASS_NAME else None


def check_config(
    config: Mapping[str, Any], net: NetConfig, extra_pos_emb: bool, where: Path
) -> None:
    """Compare config.json with the network that is to be built.

    Raises:
        CheckpointError: one message with all that differs.
    """
    problems = [
        f"{name} (got {config.get(name)!r}, expected {wanted!r})"
        for name, wanted in build_config(net, extra_pos_emb).items()
        if config.get(name) != wanted
    ]
    if problems:
        raise CheckpointError(
            f"{where.parent / CONFIG_FILE}: another network: {', '.join(problems)}; "
            "use the experiment of this model's size"
        )


def network_of_config(config: Mapping[str, Any], where: Path) -> NetConfig:
    """The network that config.json describes.

    Raises:
        CheckpointError: an entry is missing, or asks for what our network does not have.
    """
    try:
        ratio_t, ratio_h, ratio_w = config["rope_scale"]
        net = NetConfig(
            model_channels=config["num_attention_heads"] * config["attention_head_dim"],
            num_blocks=config["num_layers"],
            num_heads=config["num_attention_heads"],
            latent_channels=config["out_channels"],
            mlp_ratio=config["mlp_ratio"],
            text_channels=config["text_embed_dim"],
            adaln_lora_dim=config["adaln_lora_dim"],
            patch_size=config["patch_size"][1],
            max_latent_size=config["max_size"][1],
            max_latent_frames=config["max_size"][0],
            rope_ratio_t=ratio_t,
            rope_ratio_h=ratio_h,
            rope_ratio_w=ratio_w,
        )
        extra = config["extra_pos_embed_type"] is not None
    except (LookupError, TypeError, ValueError, ValidationError) as error:
        raise CheckpointError(
            f"{where.parent / CONFIG_FILE}: not the configuration of {CLASS_NAME} "
            f"({type(error).__name__}: {error}); fetch the model again"
        ) from None
    check_config(config, net, extra, where)
    return net
