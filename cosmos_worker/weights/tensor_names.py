"""Rename the tensors of files of any origin to the reference's names, ``net.*`` and ``logvar.*``.

Wrappers of PyTorch leave parts in names (``module.``, ``_orig_mod.``), trainers and ComfyUI put prefixes before them
(``model.``, ``model.diffusion_model.``), and files hold more than one network or its optimizer. The network is found
by names that only it has; what is before them is the prefix.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.errors import CheckpointError
from cosmos_worker.storage.files import counted
from cosmos_worker.weights import diffusers
from cosmos_worker.weights.lora import plain_names
from cosmos_worker.weights.tensors import (
    LOGVAR_PREFIX,
    NETWORK_PREFIX,
    Prefer,
    flat_parameter_error,
)

logger = logging.getLogger(__name__)

WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_fpw_module", "_forward_module", "_checkpoint_wrapped_module"}
)  # fmt: skip
"""Parts of names that DDP, torch.compile, FSDP, Fabric and activation checkpointing leave; no network has them."""
ANCHORS = (
    "x_embedder.proj.1.weight",
    "blocks.block0.blocks.0.block.attn.to_q.0.weight",
    "final_layer.adaLN_modulation.1.weight",
    "affline_norm.weight",
)
"""Names that the reference's network has."""
DIFFUSERS_ANCHORS = (
    "patch_embed.proj.weight",
    "transformer_blocks.0.attn1.to_q.weight",
    "time_embed.t_embedder.linear_1.weight",
)
"""The same of diffusers' network."""
IGNORED = frozenset(
    {
        "optimizer", "optim", "optimizers", "optimizer_states", "scheduler", "lr_scheduler", "lr_schedulers",
        "grad_scaler", "scaler", "trainer", "train_state", "dataloader", "rng", "rng_state", "rng_states", "callbacks",
        "loops", "iteration", "epoch", "step", "global_step", "trained_data_record", "vae", "first_stage_model",
        "cond_stage_model", "conditioner", "text_encoder", "text_encoders", "tokenizer",
    }
)  # fmt: skip
"""First parts of names that are those of optimizers, of the state of a training, and of other networks in one file."""
COUNTERS = (
    "accum_image_sample_counter",
    "accum_video_sample_counter",
    "accum_iteration",
    "accum_train_in_hours",
)
"""Buffers of NVIDIA's trainer that count what was trained on."""
SHOWN = 4


@dataclass(frozen=True)
class _Network:
    """A network in a file: the prefix of its names, and if these are diffusers' names or the reference's."""

    prefix: str
    is_diffusers: bool

    @property
    def is_average(self) -> bool:
        """True if the prefix says that it is an average over a training."""
        return any(
            part == "ema" or part.endswith("_ema") or part.startswith("ema_")
            for part in self.prefix.split(".")
        )


def own_names(names: Iterable[str], where: Path, prefer: Prefer = "average") -> dict[str, str]:
    """Name in a file → ours, of all tensors that are of the network, its uncertainty head or its corrections.

    Args:
        names: in the file, without extra states.
        where: the file, for messages.
        prefer: which of two networks is taken if one is the average of the other.

    Raises:
        CheckpointError: several networks, or one process's part of one.
    """
    cleaned = _without_wrappers(names, where)
    plain = plain_names(cleaned)
    short = {name: plain[clean] for clean, name in cleaned.items()}
    networks = _find_networks(short.values())
    if not networks:
        return _without_network(short)
    network = _choose_network(networks, short.values(), where, prefer)
    others = tuple(one.prefix for one in networks if one.prefix != network.prefix)
    return _rename(short, network, others, where)


def _without_wrappers(names: Iterable[str], where: Path) -> dict[str, str]:
    """Name without the parts of wrappers → name in the file."""
    found: dict[str, str] = {}
    for name in names:
        parts = name.split(".")
        if any("flat_param" in part for part in parts):
            raise flat_parameter_error(where, name)
        clean = ".".join(part for part in parts if part not in WRAPPERS)
        if clean in found:
            raise CheckpointError(
                f"{where}: {found[clean]} and {name} are one tensor of the network; save its state_dict() once"
            )
        found[clean] = name
    return found


def _find_networks(names: Iterable[str]) -> list[_Network]:
    found: dict[_Network, None] = {}
    for name in names:
        if name.partition(".")[0] in IGNORED:
            continue
        for anchors, is_diffusers in ((ANCHORS, False), (DIFFUSERS_ANCHORS, True)):
            for anchor in anchors:
                if name == anchor or name.endswith(f".{anchor}"):
                    found[_Network(name.removesuffix(anchor), is_diffusers)] = None
    return list(found)


def _choose_network(
    networks: Sequence[_Network], names: Iterable[str], where: Path, prefer: Prefer
) -> _Network:
    if len(networks) == 1:
        return networks[0]
    averages = [one for one in networks if one.is_average]
    regular = [one for one in networks if not one.is_average]
    if len(averages) != 1 or len(regular) != 1:
        prefixes = ", ".join(repr(one.prefix) for one in networks)
        raise CheckpointError(
            f"{where}: holds {len(networks)} networks, with names that begin with {prefixes}; save the one that is "
            "meant, alone"
        )
    chosen, other = (averages[0], regular[0]) if prefer == "average" else (regular[0], averages[0])
    names = list(names)
    _check_alike(names, chosen, other, where)
    logger.warning(
        "%s: holds %s* and %s*; %s* is taken, the %s. For the other one: cosmos-worker export --network %s --format pt "
        "--from %s --to FOLDER",
        where,
        regular[0].prefix,
        averages[0].prefix,
        chosen.prefix,
        "average over the training" if chosen.is_average else "weights of its last step",
        "regular" if chosen.is_average else "average",
        where,
    )
    return chosen


def _check_alike(names: Sequence[str], chosen: _Network, other: _Network, where: Path) -> None:
    """Make sure that the chosen network has all tensors of the other one, so that both are never mixed."""

    def under(prefix: str, longer: str) -> set[str]:
        found = {
            name.removeprefix(prefix)
            for name in names
            if name.startswith(prefix)
            and not (longer.startswith(prefix) and name.startswith(longer))
        }
        return {
            name
            for name in found
            if not name.endswith((*COUNTERS, "pos_embedder.seq"))
            and not name.startswith(LOGVAR_PREFIX)
            and not (not prefix and _is_ignored(name))
        }

    absent = sorted(under(other.prefix, chosen.prefix) - under(chosen.prefix, other.prefix))
    if absent:
        raise CheckpointError(
            f"{where}: {chosen.prefix}* lacks {counted(len(absent), 'tensor')} that {other.prefix}* has, "
            f"such as {absent[0]}; take the other: cosmos-worker export "
            f"--network {'regular' if chosen.is_average else 'average'} --format pt --from {where} --to FOLDER"
        )


def _rename(
    short: Mapping[str, str], network: _Network, others: Sequence[str], where: Path
) -> dict[str, str]:
    """Name in the file → ours; those of other networks and of optimizers are ignored."""
    prefix = network.prefix
    outer = prefix.removesuffix(NETWORK_PREFIX)
    inner = [name.removeprefix(prefix) for name in short.values() if name.startswith(prefix)]
    known = (diffusers.reference_names(inner) or {}) if network.is_diffusers else {}
    found, ignored = {}, []
    for name, plain in short.items():
        logvar = next(
            (p for p in (f"{outer}{LOGVAR_PREFIX}", LOGVAR_PREFIX) if plain.startswith(p)), None
        )
        is_own = plain.startswith(prefix) and not any(
            plain.startswith(one) for one in others if one.startswith(prefix)
        )
        is_other = not is_own and any(plain.startswith(one) for one in others)
        if logvar is not None:
            found[name] = LOGVAR_PREFIX + plain.removeprefix(logvar)
        elif is_own and not (not prefix and _is_ignored(plain)):
            rest = plain.removeprefix(prefix)
            ours = known.get(rest, rest) if network.is_diffusers else f"{NETWORK_PREFIX}{rest}"
            if not rest.endswith(COUNTERS):
                found[name] = ours
        elif is_other or _is_ignored(plain):
            ignored.append(name)
        else:
            found[name] = plain
    if ignored:
        logger.info(
            "%s: %s of other parts ignored, such as %s",
            where,
            counted(len(ignored), "tensor"),
            ignored[0],
        )
    if prefix not in ("", NETWORK_PREFIX):
        logger.info("%s: names of the network begin with %r", where, prefix)
    return found


def _is_ignored(name: str) -> bool:
    return name.partition(".")[0] in IGNORED


def _without_network(short: Mapping[str, str]) -> dict[str, str]:
    """Names in which no network is found, such as those of corrections alone."""
    bare = not any(name.startswith(NETWORK_PREFIX) for name in short.values())
    return {
        name: f"{NETWORK_PREFIX}{plain}" if bare and not plain.startswith(LOGVAR_PREFIX) else plain
        for name, plain in short.items()
    }
