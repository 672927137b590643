"""Checks of the models that a job takes from the Hugging Face Hub by their names alone. Pure."""

from __future__ import annotations

from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import NET_7B, NET_14B

NVIDIA = "nvidia"
FAMILY = "Cosmos-Predict1"
NETS = {"7B": NET_7B, "14B": NET_14B}
SHAPE = ("model_channels", "num_blocks", "num_heads")
"""Options of a network that tell the sizes apart."""

T5_WIDTHS = {
    **{f"google-t5/t5-{size}": width for size, width in (("small", 512), ("base", 768))},
    **{f"google-t5/t5-{size}": 1024 for size in ("large", "3b", "11b")},
    **{
        f"google/{family}-{size}": width
        for family in ("flan-t5", "t5-v1_1")
        for size, width in (
            ("small", 512),
            ("base", 768),
            ("large", 1024),
            ("xl", 2048),
            ("xxl", 4096),
        )
    },
}
"""Repository of a T5 → the width of its embeddings (d_model)."""


def model_problems(job: PostTrainingJob, experiment: Experiment) -> list[str]:
    """Names of models that do not fit the experiment, where the name alone says what is fetched."""
    return _network_problems(job, experiment) + _encoder_problems(job, experiment)


def _network_problems(job: PostTrainingJob, experiment: Experiment) -> list[str]:
    model = job.spec.model
    if model.source is not None or experiment.trainer.init == "random":
        return []
    size = next((size for size, net in NETS.items() if _shape(net) == _shape(experiment.net)), None)
    if size is None:
        return [
            f"spec.model.source: missing; the network of experiment {experiment.name} is neither the 7B nor the 14B of "
            f"{FAMILY}, so that {model.name!r} on the Hugging Face Hub does not fit it; give the source of its weights"
        ]
    wanted = f"{FAMILY}-{size}-Video2World"
    owner, _, name = model.name.rpartition("/")
    if owner not in (
        "",
        NVIDIA,
    ):  # anybody's own post-trained model, unless its name says that it is none
        foreign = "cosmos" in name.lower() and not name.lower().startswith(wanted.lower())
        return [_other_model(model.name, experiment, wanted)] if foreign else []
    return [] if name == wanted else [_other_model(model.name, experiment, wanted)]


def _other_model(name: str, experiment: Experiment, wanted: str) -> str:
    return (
        f"spec.model.name: {name!r} is not the model of experiment {experiment.name}; use {wanted}, or give "
        "spec.model.source, with which the name is free"
    )


def _shape(net: object) -> tuple[object, ...]:
    return tuple(getattr(net, name) for name in SHAPE)


def _encoder_problems(job: PostTrainingJob, experiment: Experiment) -> list[str]:
    embeddings, wanted = job.spec.embeddings, experiment.net.text_channels
    width = T5_WIDTHS.get(embeddings.encoder)
    if embeddings.source is not None or width in (None, wanted):
        return []
    fitting = [name for name, width in T5_WIDTHS.items() if width == wanted]
    advice = f"use {' or '.join(fitting)}" if fitting else "give spec.embeddings.source"
    return [
        f"spec.embeddings.encoder: {embeddings.encoder!r} has embeddings of width {width}, and experiment "
        f"{experiment.name} takes {wanted} (net.text_channels); {advice}"
    ]
