"""generate: Video2World samples of a checkpoint as <id>.mp4 and <id>.json, and generated.jsonl."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.checkpoint.weight_files import digest_weights
from cosmos_worker.checkpoint.weights import load_network
from cosmos_worker.config import GenerateConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.layout import GENERATED_FILE, Volumes
from cosmos_worker.progress import Progress
from cosmos_worker.sample import records
from cosmos_worker.sample.guards import Companions, Prompts, identify_companions
from cosmos_worker.sample.inputs import (
    SampleInput,
    check_visual_input,
    collect_inputs,
    read_known_frames,
)
from cosmos_worker.sample.negative_prompt import DEFAULT_NEGATIVE_PROMPT
from cosmos_worker.sample.video2world import (
    Sample,
    Settings,
    check_admitted,
    decode_latents,
    generate_latents,
    num_sampler_steps,
    split_batches,
)
from cosmos_worker.text.t5 import T5Encoder, encoder_identity
from cosmos_worker.tokenizer.base import VideoTokenizer, chunked_latent_frames
from cosmos_worker.tokenizer.load import EMBEDDED, load_tokenizer

logger = logging.getLogger(__name__)

Embedding = NDArray[np.float16]


def run(config: GenerateConfig, volumes: Volumes) -> dict[str, Any]:
    """Generate what is not there yet, then list and summarise all results.

    Returns:
        item, folder (address), kept (videos of an earlier run), seconds (of this one), and the summary of all videos.

    Raises:
        ConfigError: inputs or sizes that cannot be.
        DataError: unreadable inputs.
        CheckpointError: network, tokenizer or encoder do not fit.
    """
    started = time.monotonic()
    target = volumes.resolve(config.target_uri)
    inputs_file = volumes.resolve(config.inputs_file_uri) if config.inputs_file_uri else None
    inputs = collect_inputs(config.inputs, inputs_file, volumes)
    check_admitted(config.net, config.tokenizer, config.sampling)
    for one in inputs:
        check_visual_input(one, config.sampling)
    records.check_metrics(inputs, config)
    device = _choose_device(config.device)
    tokenizer = _load_tokenizer(config, volumes, device)
    digests = _digest_models(config, volumes, tokenizer)
    digests |= identify_companions(config, volumes)
    requests = {one.id: records.describe_request(one, config, digests) for one in inputs}
    finished = {key: records.read_finished(target, value) for key, value in requests.items()}
    pending = [one for one in inputs if finished[one.id] is None]
    logger.info(
        "generate item=%s videos=%d kept=%d device=%s",
        config.name,
        len(inputs),
        len(inputs) - len(pending),
        device,
    )
    if pending:
        finished |= _generate(config, volumes, tokenizer, device, inputs, finished, requests)
    results = [record for record in (finished[one.id] for one in inputs) if record is not None]
    records.write_list(target, results)
    return {
        "item": config.name,
        "folder": config.target_uri,
        "kept": len(inputs) - len(pending),
        "seconds": round(time.monotonic() - started, 1),
        **records.summarise(results),
    }


def _choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> torch.device:
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(wanted)


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
) -> tuple[dict[str, Embedding], Embedding | None]:
    """Embeddings by prompt and that of the negative prompt; the encoder is freed on return."""
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
    return by_prompt, embeddings[-1] if sampling.guidance > 0 else None


def _compute_dtype(config: GenerateConfig, device: torch.device) -> torch.dtype:
    if config.compute_dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype: torch.dtype = getattr(torch, config.compute_dtype)
    return dtype


def _generate(
    config: GenerateConfig,
    volumes: Volumes,
    tokenizer: VideoTokenizer,
    device: torch.device,
    inputs: Sequence[SampleInput],
    finished: dict[str, records.Record | None],
    requests: dict[str, records.Record],
) -> dict[str, records.Record]:
    """Write and judge the prompts of the pending inputs, then sample what is left; their records by id."""
    target = volumes.resolve(config.target_uri)
    companions = Companions(config, volumes, device, _compute_dtype(config, device))
    prompts = companions.prepare_prompts(inputs, finished)
    if config.prompt_upsampler_uri is not None:
        requests = {
            key: {**one, "final_prompt": prompts.final[key]} for key, one in requests.items()
        }
    if prompts.blocked:
        (target / GENERATED_FILE).unlink(missing_ok=True)  # from here on its results are replaced
    written = {
        key: records.write_blocked(target, requests[key], verdict)
        for key, verdict in prompts.blocked.items()
    }
    pending = [one for one in prompts.sampled if finished[one.id] is None]
    if pending:
        written |= _sample(companions, tokenizer, prompts, pending, requests)
    return written


def _sample(
    companions: Companions,
    tokenizer: VideoTokenizer,
    prompts: Prompts,
    pending: Sequence[SampleInput],
    requests: dict[str, records.Record],
) -> dict[str, records.Record]:
    """Sample, decode, judge and write the pending inputs, batch by batch; their records by id.

    Batches are those of the whole list: after an interruption the rest comes out bit-equal.
    """
    config, volumes, device = companions.config, companions.volumes, companions.device
    sampling, target = config.sampling, volumes.resolve(config.target_uri)
    inputs = prompts.sampled
    texts, negative = _embed(config, volumes, device, [prompts.final[one.id] for one in inputs])
    gc.collect()  # T5-11B is 19 GB: back to the machine before the network is loaded
    video_filter = companions.load_video_filter()
    checkpoint = volumes.resolve(config.checkpoint_uri)
    net = load_network(checkpoint, config.net, device, config.checkpoint_lora_scale)
    frames = chunked_latent_frames(sampling.num_pixel_frames, config.tokenizer.chunk_pixel_frames)
    settings = Settings(
        sampling, frames, config.text, config.sigma_data, negative, companions.dtype
    )
    lengths = [len(texts[prompts.final[one.id]]) for one in inputs]
    batches = split_batches(inputs, lengths, sampling.batch_size, config.text.padding)
    batches = [batch for batch in batches if any(one in pending for one in batch)]
    (target / GENERATED_FILE).unlink(missing_ok=True)  # from here on its results are replaced
    progress = Progress("generate", len(batches) * num_sampler_steps(sampling), "steps")
    written: dict[str, records.Record] = {}
    for batch in batches:
        started = time.monotonic()
        samples = [
            Sample(one.id, texts[prompts.final[one.id]], read_known_frames(one, sampling))
            for one in batch
        ]
        latents = generate_latents(net, tokenizer, samples, settings, progress.advance)
        videos = decode_latents(tokenizer, latents, config.sigma_data)
        seconds = (time.monotonic() - started) / len(batch)
        for one, frames in zip(batch, videos, strict=True):
            if one not in pending:
                continue
            verdict = video_filter.check(frames) if video_filter else None
            if verdict is not None:
                written[one.id] = records.write_blocked(target, requests[one.id], verdict)
                continue
            written[one.id] = records.write_result(
                target, requests[one.id], one, frames, sampling, seconds
            )
    progress.close()
    return written
