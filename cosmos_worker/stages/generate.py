"""generate: Video2World samples of a checkpoint as <id>.mp4 and <id>.json, and generated.jsonl."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails.verdict import Blocked
from cosmos_worker.runtime.process_group import (
    Team,
    check_team,
    form_team,
    join_processes,
)
from cosmos_worker.runtime.progress import Progress
from cosmos_worker.sample import kept_passes, records
from cosmos_worker.sample.checks import check_item
from cosmos_worker.sample.conditioning import read_known_frames
from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.sample.kept_passes import KeptPasses
from cosmos_worker.sample.passes import (
    HOST,
    Keep,
    Models,
    generate_videos,
)
from cosmos_worker.sample.prompts import (
    DEFAULT_NEGATIVE_PROMPT,
    unknown_shares,
    with_unknown,
)
from cosmos_worker.sample.prompts_and_guards import (
    Companions,
    FrameGuards,
    Prompts,
    Seen,
    identify_companions,
)
from cosmos_worker.sample.sampler import (
    Sample,
    Settings,
    num_sampler_steps,
    split_batches,
)
from cosmos_worker.storage.volumes import (
    GENERATED_FILE,
    Volumes,
)
from cosmos_worker.text.t5 import T5Encoder, encoder_identity
from cosmos_worker.tokenizer.load import EMBEDDED, load_tokenizer
from cosmos_worker.tokenizer.tokenizer import (
    VideoTokenizer,
    chunked_latent_frames,
)
from cosmos_worker.weights.files import digest_weights
from cosmos_worker.weights.load import load_network

logger = logging.getLogger(__name__)

Embedding = NDArray[np.float16]


@dataclass(frozen=True)
class Work:
    """What is to be done, as process 0 finds it: all inputs, what each asks for, and what is there."""

    inputs: list[SampleInput]
    requests: dict[str, records.Record]
    finished: dict[str, records.Record | None]

    @property
    def pending(self) -> list[SampleInput]:
        """Inputs without a result."""
        return [one for one in self.inputs if self.finished[one.id] is None]


def run(config: GenerateConfig, volumes: Volumes) -> dict[str, Any]:
    """Generate what is not there yet, then list and summarise all results; alone, or as one process of several.

    Returns:
        item, folder (address), kept (videos of an earlier run), seconds (of this one), and the summary of all videos.

    Raises:
        ConfigError: inputs or sizes that cannot be, or processes that cannot share them.
        DataError: unreadable inputs.
        CheckpointError: network, tokenizer or encoder do not fit.
    """
    started = time.monotonic()
    with join_processes(config.device, None) as processes:
        frames = _num_latent_frames(config)
        check_team(processes.world_size, config.context_parallel, frames)
        place, device = (processes.rank, processes.world_size), processes.device
        team = form_team(*place, config.context_parallel, device)
        is_main = processes.is_main
        inputs = check_item(config, config.net, config.tokenizer, volumes) if is_main else []
        tokenizer = _load_tokenizer(config, volumes, device)
        work = team.from_main(
            _find_work(config, volumes, tokenizer, inputs) if processes.is_main else None
        )
        logger.info(
            "generate item=%s videos=%d kept=%d device=%s processes=%d",
            config.name,
            len(work.inputs),
            len(work.inputs) - len(work.pending),
            device.type,
            processes.world_size,
        )
        finished = dict(work.finished)
        if work.pending:
            finished.update(_generate(config, volumes, tokenizer, device, work, team))
        results = [record for one in work.inputs if (record := finished[one.id]) is not None]
        if processes.is_main:
            kept_passes.remove_all(volumes.resolve(config.target_uri))
            records.write_list(volumes.resolve(config.target_uri), results)
    return {
        "item": config.name,
        "folder": config.target_uri,
        "kept": len(work.inputs) - len(work.pending),
        "seconds": round(time.monotonic() - started, 1),
        **records.summarise(results),
    }


def _num_latent_frames(config: GenerateConfig) -> int:
    return chunked_latent_frames(
        config.sampling.num_pixel_frames, config.tokenizer.chunk_pixel_frames
    )


def _find_work(
    config: GenerateConfig,
    volumes: Volumes,
    tokenizer: VideoTokenizer,
    inputs: list[SampleInput],
) -> Work:
    target = volumes.resolve(config.target_uri)
    digests = _digest_models(config, volumes, tokenizer)
    digests |= identify_companions(config, volumes)
    requests = {one.id: records.describe_request(one, config, digests) for one in inputs}
    finished = {key: records.read_finished(target, value) for key, value in requests.items()}
    return Work(inputs, requests, finished)


def _load_tokenizer(
    config: GenerateConfig, volumes: Volumes, device: torch.device
) -> VideoTokenizer:
    folder: Path | Literal["embedded"] = EMBEDDED
    if config.tokenizer_uri != EMBEDDED:
        folder = volumes.resolve(config.tokenizer_uri)
    tokenizer = load_tokenizer(folder, config.tokenizer, device)
    if tokenizer.latent_channels != config.net.latent_channels:
        raise CheckpointError(
            f"{config.tokenizer_uri}: the tokenizer has {tokenizer.latent_channels} latent channels, the "
            f"network takes {config.net.latent_channels} (net.latent_channels); use a tokenizer of the model"
        )
    if "tokenizer" in config.offload:
        tokenizer.move(HOST)
    return tokenizer


def _digest_models(
    config: GenerateConfig, volumes: Volumes, tokenizer: VideoTokenizer
) -> dict[str, str]:
    checkpoint = volumes.resolve(config.checkpoint_uri)
    if not checkpoint.exists():
        raise CheckpointError(f"{checkpoint}: no such weight file; publish the model first")
    return {
        "checkpoint_sha256": digest_weights(checkpoint),
        "tokenizer_digest": tokenizer.digest,
        "encoder_identity": encoder_identity(
            volumes.resolve(config.encoder_uri), config.text.max_length
        ),
    }


def _embed(
    config: GenerateConfig, volumes: Volumes, device: torch.device, prompts: Sequence[str]
) -> tuple[dict[str, Embedding], Embedding | None, dict[str, float]]:
    """Embeddings by prompt, that of the negative prompt, and unknown shares; the encoder is freed on return."""
    sampling = config.sampling
    texts = list(dict.fromkeys(prompts))
    if sampling.guidance > 0:
        negative = sampling.negative_prompt
        texts.append(DEFAULT_NEGATIVE_PROMPT if negative is None else negative)
    encoder = T5Encoder(volumes.resolve(config.encoder_uri), device)
    if encoder.dim != config.net.text_channels:
        raise CheckpointError(
            f"{config.encoder_uri}: embeddings are {encoder.dim} wide, the network takes "
            f"{config.net.text_channels} (net.text_channels); use the encoder that the model was trained with"
        )
    embeddings = encoder.encode(texts, config.text.max_length)
    by_prompt = dict(zip(texts, embeddings, strict=True))
    unknown = unknown_shares(encoder.tokenizer, texts)
    return by_prompt, embeddings[-1] if sampling.guidance > 0 else None, unknown


def _compute_dtype(config: GenerateConfig, device: torch.device) -> torch.dtype:
    if config.compute_dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, config.compute_dtype)
    return dtype


@dataclass(frozen=True)
class Order:
    """What is sampled, now that prompts are written and judged.

    Attributes:
        prompts: of all inputs.
        requests: id → what is asked for, the final prompt included.
        held: id → record of an input that gets no video because of its prompt.
        pending: inputs that are to get one.
    """

    prompts: Prompts
    requests: dict[str, records.Record]
    held: dict[str, records.Record]
    pending: list[SampleInput]


def _prepare(companions: Companions, work: Work) -> Order:
    """Write and judge the prompts of the pending inputs; those that are blocked get their records."""
    config, requests = companions.config, work.requests
    target = companions.volumes.resolve(config.target_uri)
    prompts = companions.prepare_prompts(work.inputs, work.finished)
    if config.prompt_upsampler_uri is not None:
        requests = {
            key: {**one, "final_prompt": prompts.final[key]} for key, one in requests.items()
        }
    if prompts.blocked:
        (target / GENERATED_FILE).unlink(missing_ok=True)  # from here on its results are replaced
    held = {
        key: records.write_blocked(target, requests[key], verdict)
        for key, verdict in prompts.blocked.items()
    }
    pending = [one for one in prompts.sampled if work.finished[one.id] is None]
    return Order(prompts, requests, held, pending)


def _generate(
    config: GenerateConfig,
    volumes: Volumes,
    tokenizer: VideoTokenizer,
    device: torch.device,
    work: Work,
    team: Team,
) -> dict[str, records.Record]:
    """Write and judge the prompts of the pending inputs, then sample what is left; their records by id."""
    companions = Companions(config, volumes, device, _compute_dtype(config, device))
    order = team.from_main(_prepare(companions, work) if team.rank == 0 else None)
    written = dict(order.held)
    if order.pending:
        written |= _sample(companions, tokenizer, order, team)
    return written


def _sample(
    companions: Companions, tokenizer: VideoTokenizer, order: Order, team: Team
) -> dict[str, records.Record]:
    """Sample, decode, judge and write the pending inputs, batch by batch; the records of all processes by id.

    Batches are those of the whole list: after an interruption, and by any number of processes, the rest comes out
    bit-equal.
    """
    config, volumes, inputs = companions.config, companions.volumes, order.prompts.sampled
    sampling, final = config.sampling, order.prompts.final
    prompts = [final[one.id] for one in inputs]
    texts, negative, unknown = team.from_main(
        _embed(config, volumes, companions.device, prompts) if team.rank == 0 else None
    )
    order = replace(order, requests=with_unknown(order.requests, final, unknown))
    gc.collect()  # T5-11B is 19 GB: back to the machine before the network is loaded
    guards = companions.load_frame_guards() if team.writes else None
    models = _load_models(companions, tokenizer, team)
    frames, dtype = _num_latent_frames(config), companions.dtype
    settings = Settings(sampling, frames, config.text, config.sigma_data, negative, dtype)
    whole, keys = _cut_batches(companions, order, [len(texts[prompt]) for prompt in prompts])
    batches = [batch for batch in team.own_batches(whole) if batch[0].id in keys]
    target = volumes.resolve(config.target_uri)
    if team.rank == 0:  # from here on its results are replaced
        (target / GENERATED_FILE).unlink(missing_ok=True)
        kept_passes.remove_others(target, keys.values())
    team.meet()
    steps = num_sampler_steps(sampling)
    total = len(batches) * steps * sampling.num_passes
    progress = Progress("generate", total, "steps") if team.rank == 0 else None
    advance = None if progress is None else progress.advance
    written: dict[str, records.Record] = {}
    for batch in batches:
        kept = KeptPasses.of(target, keys[batch[0].id], len(batch), sampling)
        finished = kept.load() if team.writes else []
        num_finished = team.agree_on(len(finished))
        finished = finished or kept.stand_in(num_finished)
        if progress is not None:
            progress.leave_out(num_finished * steps)
        samples = [
            Sample(
                one.id, texts[final[one.id]], read_known_frames(one, sampling, config.fit), one.fps
            )
            for one in batch
        ]
        keep = _keep_safe(kept, guards) if team.writes else None
        videos = generate_videos(models, samples, settings, advance, team.agree, finished, keep)
        if team.writes:
            seconds = kept.elapsed_s() / len(batch)
            wanted = [pair for pair in zip(batch, videos, strict=True) if pair[0] in order.pending]
            written |= _write(companions, order, guards, wanted, seconds)
            kept.remove()
    if progress is not None:
        progress.close()
    return {name: record for part in team.gather(written) for name, record in part.items()}


def _cut_batches(
    companions: Companions, order: Order, lengths: Sequence[int]
) -> tuple[list[list[SampleInput]], dict[str, str]]:
    """The batches of the whole list, and the keys of those with a pending video by their first video.

    Args:
        companions: with the document.
        order: what is sampled.
        lengths: tokens of each prompt.
    """
    config, inputs = companions.config, order.prompts.sampled
    whole = split_batches(inputs, lengths, config.sampling.batch_size, config.text.padding)
    keys = {
        batch[0].id: kept_passes.batch_key(
            [order.requests[one.id] for one in batch], config, companions.dtype
        )
        for batch in whole
        if any(one in order.pending for one in batch)
    }
    return whole, keys


def _keep_safe(kept: KeptPasses, guards: FrameGuards | None) -> Keep:
    """Keeps passes, but none with a frame that guardrails would hold back or blur."""

    def may_be_kept(frames_THWC: NDArray[np.uint8]) -> bool:
        if guards is None:
            return True
        seen = guards.apply(frames_THWC)
        return isinstance(seen, Seen) and not seen.num_blurred

    def keep(number: int, frames_BTHWC: NDArray[np.uint8]) -> None:
        if all(may_be_kept(one) for one in frames_BTHWC):
            kept.add(number, frames_BTHWC)

    return keep


def _load_models(companions: Companions, tokenizer: VideoTokenizer, team: Team) -> Models:
    config, device = companions.config, companions.device
    checkpoint = companions.volumes.resolve(config.checkpoint_uri)
    place = HOST if "network" in config.offload else device
    net = load_network(checkpoint, config.net, place, config.checkpoint_lora_scale)
    if team.context_group is not None:
        net.share_frames(team.context_group)
    return Models(net, tokenizer, device, config.offload)


def _write(
    companions: Companions,
    order: Order,
    guards: FrameGuards | None,
    videos: Sequence[tuple[SampleInput, NDArray[np.uint8]]],
    seconds: float,
) -> dict[str, records.Record]:
    """Judge, blur and write videos; their records by id."""
    target = companions.volumes.resolve(companions.config.target_uri)
    written = {}
    for one, frames in videos:
        request = order.requests[one.id]
        seen = Seen(frames) if guards is None else guards.apply(frames)
        if isinstance(seen, Blocked):
            written[one.id] = records.write_blocked(target, request, seen)
            continue
        written[one.id] = records.write_result(
            target,
            request,
            one,
            seen.frames_THWC,
            companions.config.sampling,
            seconds,
            seen.num_blurred,
        )
    return written
