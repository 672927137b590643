"""Content keys: hashes of the values that decide a stage's result, and of no others. Pure.

Folder names contain the key of their content, so an address in a document already stands for the work that made it.
Where an address does not (a published model, the caller's own files), the keys of the stages or the fingerprints of
the files are hashed as well (``needs``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cosmos_worker.config.identity import TRAINER_PACE
from cosmos_worker.config.moved_options import as_before
from cosmos_worker.config.source import Source
from cosmos_worker.config.stages import GenerateConfig, StageConfig, TrainConfig
from cosmos_worker.config.training import (
    AccelerationConfig,
    LoraConfig,
    OptimizerConfig,
    decays,
)
from cosmos_worker.storage.volumes import (
    MODEL_FILE,
    VIDEO_READER_VERSION,
    content_key,
)

PUBLISHED_NAME = ("job", "job_namespace", "published_uri")
"""Fields by which a stage checks, before the training, that the published name is free."""
COMMON_FIELDS = ("key", "target_uri", "verify")
"""Fields of all stage documents, of which none decides a result."""
SAME_WITHIN_ROUNDING = ("tokenizer_runtime",)
"""Options whose values give the same numbers within rounding, as another GPU does; latents of before stay valid."""
NOT_DECIDING: dict[str, tuple[str, ...]] = {
    "fetch-model": (),
    "prepare-dataset": ("min_clips", "num_workers"),
    # generate encodes texts that the store lacks, so a longer inference list repeats nothing
    "embed-text": ("batch_size", "extra_captions"),
    "cache-latents": ("tokenizer.batch_size", *SAME_WITHIN_ROUNDING),
    "check-inputs": ("tokenizer.batch_size", *PUBLISHED_NAME),
    "train": (
        "tokenizer_uri",  # decodes what people look at
        *SAME_WITHIN_ROUNDING,
        "start_from",  # a checkpoint of the same training
        *PUBLISHED_NAME,
        "experiment.tokenizer.batch_size",
        "experiment.parallel",
        "experiment.optimizer.implementation",
        "experiment.acceleration.attention",
        "experiment.acceleration.compile",
        *(f"experiment.trainer.{name}" for name in TRAINER_PACE),
    ),
    "publish": ("job_namespace", "job_uid"),
    "generate": (
        "tokenizer.batch_size",
        *SAME_WITHIN_ROUNDING,
        "embeddings_uri",  # of the same encoder
        "sampling.batch_size",
        "text.dropout",
        "context_parallel",
        "offload",
        "device",
        "compile",
    ),
    "report": (),
}
"""Values of each stage's document that do not decide its result."""
UNUSED_WITHOUT: dict[str, dict[str, str]] = {
    "prepare-dataset": {"validation_seed": "validation_fraction"},
}
"""Values that decide nothing while another value is zero; they are then hashed as their defaults in ``ADDED``."""
ADDED: dict[str, dict[str, Any]] = {
    "prepare-dataset": {
        "buckets": [],
        "camera_name": None,
        "frame_rate": "constant",
        "fit": "stretch",
        "validation_fraction": 0.0,
        "validation_seed": 0,
    },
    "embed-text": {"max_unknown_fraction": 0.05},
    "cache-latents": {"buckets": [], "fit": "stretch"},
    "train": {
        "model_lora_scale": None,
        "experiment.buckets": [],
        "experiment.lora": LoraConfig().model_dump(mode="json"),
        "experiment.optimizer.state_bits": OptimizerConfig().state_bits,
        "experiment.acceleration": {"linear": AccelerationConfig().linear},
    },
    "publish": {"last_step": None, "adapter_of": None},
    "generate": {
        "checkpoint_lora_scale": None,
        "fit": "stretch",
        "fps_of_inputs": False,
        "prompt_upsampler_uri": None,
        "guardrails.face_blur": False,
        "guardrails": None,
        "sampling.num_passes": 1,
    },
}
"""Options that were added later, with their defaults: a default is not hashed, so that earlier work is reused."""
READS_VIDEOS = ("prepare-dataset", "cache-latents", "check-inputs", "generate")
"""Stages whose results depend on the frames that the video reader returns; its version is part of their keys."""
WEIGHTS: dict[str, str] = {"train": "model_uri", "generate": "checkpoint_uri"}
"""Fields with addresses of weights: a folder is hashed as its model.pt, which was the only form of weights once."""


def stage_key(kind: str, document: StageConfig, needs: Sequence[str] = ()) -> str:
    """Content key of a stage.

    Args:
        kind: the worker's command.
        document: its document; ``key`` and ``target_uri`` are ignored.
        needs: keys and fingerprints that the addresses in the document do not contain.
    """
    return _key_of(kind, _values(document), needs)


def run_key(document: TrainConfig) -> str:
    """Content key of a training run's folder: runs that differ in length alone share it where one continues the other.

    One continues the other where the learning rate is constant after its warm-up; a run keeps the warm-up that it began
    with. The number of steps is in the key of the stage, which names the completion marker.
    """
    values = _values(document)
    if not decays(document.experiment.optimizer):
        _remove(values, "experiment.trainer.max_steps")
    return _key_of("train", values, ())


def _values(document: StageConfig) -> dict[str, Any]:
    """The values of a document that are hashed, options by the names that they had first."""
    values = document.model_dump(mode="json", exclude=set(COMMON_FIELDS))
    if isinstance(document, TrainConfig):
        values["experiment"] = as_before(values["experiment"])
    if isinstance(document, GenerateConfig):
        values["text"]["padding"] = values.pop("text_padding")
    return values


def _key_of(kind: str, values: dict[str, Any], needs: Sequence[str]) -> str:
    """The key of a document's values; changes ``values``."""
    for path in NOT_DECIDING[kind]:
        _remove(values, path)
    for name, switch in UNUSED_WITHOUT.get(kind, {}).items():
        if not values[switch]:
            values[name] = ADDED[kind][name]
    for path, default in ADDED.get(kind, {}).items():
        parent, name = _parent(values, path), path.rpartition(".")[2]
        if parent is not None and parent[name] == default:
            del parent[name]
    weights = WEIGHTS.get(kind)
    if weights is not None and values[weights] is not None:
        values[weights] = f"{values[weights].removesuffix(f'/{MODEL_FILE}')}/{MODEL_FILE}"
    whole: dict[str, Any] = {"kind": kind, "document": values, "needs": list(needs)}
    if kind in READS_VIDEOS:
        whole["video_reader"] = VIDEO_READER_VERSION
    return content_key(whole)


def source_key(kind: str, source: Source, fingerprints: Mapping[str, str]) -> str:
    """Content key of files, from their address, and from the fingerprint of a local folder if the caller knows it.

    A URL with a SHA-256 is identified by that alone, so a mirror of the same archive is the same source.
    """
    if source.url is not None and source.url.sha256 is not None:
        return content_key({"kind": kind, "sha256": source.url.sha256})
    value: dict[str, Any] = {"kind": kind, "source": source.model_dump(mode="json")}
    if source.path is not None and source.path in fingerprints:
        value["fingerprint"] = fingerprints[source.path]
    return content_key(value)


def _parent(values: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The block of a document that holds a value; None where the document has no such block."""
    block: dict[str, Any] | None = values
    for part in path.split(".")[:-1]:
        block = None if block is None else block[part]
    return block


def _remove(values: dict[str, Any], path: str) -> None:
    parent = _parent(values, path)
    if parent is not None:
        del parent[path.rpartition(".")[2]]
