"""The plan of a generate stage: prompts and their embeddings, batches, and the results that are there already.

The models of prompts (upsampler, text classifier, text encoder) are loaded, used and freed here, before the network is
loaded.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails import upsampler
from cosmos_worker.guardrails.apply import Guardrails
from cosmos_worker.guardrails.pretrained import folder_identity
from cosmos_worker.sample import records
from cosmos_worker.sample.inputs import SampleInput, split_batches
from cosmos_worker.sample.kept_passes import batch_key
from cosmos_worker.sample.prompts import (
    PreparedPrompts,
    PromptEmbeddings,
    embed_prompts,
    prepare_prompts,
)
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.t5 import encoder_identity
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer
from cosmos_worker.weights.files import digest_weights

logger = logging.getLogger(__name__)

Records = dict[str, records.Record]
"""Id of an input → its record."""


@dataclass(frozen=True)
class Batch:
    """Videos that are sampled together.

    Attributes:
        inputs: one per video.
        pending: ids of those whose video is written; the others only fill their places.
        key: name of the folder of its kept passes.
    """

    inputs: list[SampleInput]
    pending: frozenset[str]
    key: str


@dataclass(frozen=True)
class GenerationPlan:
    """Everything that process 0 decides before sampling begins; the other processes are given it.

    Attributes:
        inputs: all inputs of the item, in the order of its list.
        compute_dtype: of the network's matrix products.
        requests: id → everything that decides the video, the final prompt included; the first half of its record.
        finished: records of results that an earlier run has written and that still answer their requests.
        blocked: records of inputs that get no video because of their prompt.
        final_prompts: id → the prompt that the network is given.
        embeddings: of the final prompts.
        batches: all inputs that no guardrail of prompts has blocked, finished ones included; empty if no video is to
            be made.
    """

    inputs: list[SampleInput]
    compute_dtype: torch.dtype
    requests: Records
    finished: Records
    blocked: Records = field(default_factory=dict)
    final_prompts: dict[str, str] = field(default_factory=dict)
    embeddings: PromptEmbeddings = field(default_factory=lambda: PromptEmbeddings({}, None, {}))
    batches: list[Batch] = field(default_factory=list)


def make_plan(
    config: GenerateConfig,
    volumes: Volumes,
    tokenizer: VideoTokenizer,
    inputs: list[SampleInput],
    device: torch.device,
    num_processes: int,
) -> GenerationPlan:
    """Find the results that are there, and prepare the others up to the sampling.

    Records of inputs whose prompt is blocked are written here, since nothing more happens to these.

    Args:
        config: of the stage.
        volumes: where addresses lie on this machine.
        tokenizer: its digest decides the videos.
        inputs: all inputs, checked.
        device: where the models of prompts compute.
        num_processes: for the log.

    Raises:
        CheckpointError: a model that is absent, or of another kind than it should be.
        DataError: word lists that are damaged, or a prompt that cannot be upsampled or embedded.
    """
    target = volumes.resolve(config.target_uri)
    models = identify_models(config, volumes, tokenizer)
    requests = {one.id: records.describe_request(one, config, models) for one in inputs}
    read = {key: records.read_finished(target, request) for key, request in requests.items()}
    finished = {key: record for key, record in read.items() if record is not None}
    logger.info(
        "generate item=%s videos=%d kept=%d device=%s processes=%d",
        config.name, len(inputs), len(finished), device.type, num_processes,
    )  # fmt: skip
    dtype = resolve_compute_dtype(config, device)
    plan = GenerationPlan(inputs, dtype, requests, finished)
    if len(finished) == len(inputs):
        return plan
    prompts = prepare_prompts(config, volumes, device, dtype, inputs, finished)
    if config.prompt_upsampler_uri is not None:
        requests = {
            key: {**request, "final_prompt": prompts.final[key]}
            for key, request in requests.items()
        }
    if prompts.blocked:
        records.remove_list(target)
    blocked = {
        key: records.write_blocked(target, requests[key], verdict)
        for key, verdict in prompts.blocked.items()
    }
    plan = replace(plan, requests=requests, blocked=blocked, final_prompts=prompts.final)
    if all(one.id in finished for one in prompts.sampled):
        return plan
    return _plan_batches(config, volumes, device, plan, prompts)


def _plan_batches(
    config: GenerateConfig,
    volumes: Volumes,
    device: torch.device,
    plan: GenerationPlan,
    prompts: PreparedPrompts,
) -> GenerationPlan:
    """Embed the final prompts and cut the inputs into batches.

    Batches are cut from all inputs that were ever sampled, finished ones included. A batch is therefore the same after
    an interruption and for any number of processes, and its videos come out bit-equal.
    """
    texts = [prompts.final[one.id] for one in prompts.sampled]
    embeddings = embed_prompts(config, volumes, device, texts)
    gc.collect()  # T5-11B is 19 GB: back to the machine before the network is loaded
    requests = records.add_unknown_shares(plan.requests, prompts.final, embeddings.unknown)
    lengths = [len(embeddings.by_prompt[text]) for text in texts]
    batches = split_batches(
        prompts.sampled, lengths, config.sampling.batch_size, config.text_padding
    )
    return replace(
        plan,
        requests=requests,
        embeddings=embeddings,
        batches=[
            Batch(
                inputs=batch,
                pending=frozenset(one.id for one in batch if one.id not in plan.finished),
                key=batch_key([requests[one.id] for one in batch], config, plan.compute_dtype),
            )
            for batch in batches
        ],
    )


def resolve_compute_dtype(config: GenerateConfig, device: torch.device) -> torch.dtype:
    """Type of the network's matrix products and of the weights of upsampler and text classifier."""
    if config.compute_dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, config.compute_dtype)
    return dtype


def identify_models(
    config: GenerateConfig, volumes: Volumes, tokenizer: VideoTokenizer
) -> Mapping[str, str]:
    """Check the files of all models before any long work, and digest what decides their answers.

    Returns:
        Digests by their names in a record; upsampler and guardrails are among them only if they are asked for.

    Raises:
        CheckpointError: a folder or a package is absent, or a folder holds another model.
        DataError: word lists that are absent or damaged.
    """
    checkpoint = volumes.resolve(config.checkpoint_uri)
    if not checkpoint.exists():
        raise CheckpointError(f"{checkpoint}: no such weight file; publish the model first")
    found = {
        "checkpoint_sha256": digest_weights(checkpoint),
        "tokenizer_digest": tokenizer.digest,
        "encoder_identity": encoder_identity(
            volumes.resolve(config.encoder_uri), config.text.max_length
        ),
    }
    if config.prompt_upsampler_uri is not None:
        folder = volumes.resolve(config.prompt_upsampler_uri)
        upsampler.check_folder(folder)
        found[records.UPSAMPLER_IDENTITY] = folder_identity(folder)
    if config.guardrails is not None:
        guardrails = Guardrails.from_config(config.guardrails, volumes)
        found[records.GUARDRAILS_IDENTITY] = guardrails.identify()
    return found
