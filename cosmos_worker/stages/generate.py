"""generate: Video2World samples of a checkpoint as <id>.mp4 and <id>.json, and generated.jsonl.

One video goes through five files:

1. ``stages/generate.py`` (this one) gives each process its batches, and writes each video once it is filtered.
2. ``sample/passes.py`` samples a batch pass by pass; each pass continues the one before.
3. ``sample/sampler.py`` samples one pass: known frames and text to latents, latents to pixels.
4. ``diffusion/samplers.py`` takes the steps from noise to latents, by the formulas of ``diffusion/edm.py``.
5. ``model/dit.py`` is the network that each step evaluates.

Before that way, ``sample/checks.py`` reads and checks the inputs, and ``sample/plan.py`` prepares prompts and batches.
Beside it, ``guardrails/apply.py`` filters frames, ``sample/kept_passes.py`` keeps the passes of an interrupted run, and
``sample/records.py`` writes videos, their metrics and the list of them.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails.apply import FilteredFrames, FrameGuardrails, Guardrails
from cosmos_worker.guardrails.verdict import Blocked
from cosmos_worker.runtime.process_group import (
    ProcessGroup,
    check_context_parallel,
    join_processes,
)
from cosmos_worker.runtime.progress import Progress
from cosmos_worker.sample import kept_passes, records
from cosmos_worker.sample.checks import check_item
from cosmos_worker.sample.conditioning import read_known_frames
from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.sample.kept_passes import KeptPasses
from cosmos_worker.sample.passes import HOST, Frames, Keep, Models, generate_videos
from cosmos_worker.sample.plan import GenerationPlan, Records, make_plan
from cosmos_worker.sample.sampler import Sample, Settings, num_sampler_steps
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.tokenizer.load import EMBEDDED, load_tokenizer
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer, chunked_latent_frames
from cosmos_worker.weights.load import load_network


def run(config: GenerateConfig, volumes: Volumes) -> dict[str, Any]:
    """Generate the videos that an earlier run has not, then list and summarise all results.

    The process is alone, or one of several that torchrun has started.

    Returns:
        item, folder (address), kept (videos of an earlier run), seconds (of this run), and the summary of all videos.

    Raises:
        ConfigError: inputs or sizes that are not allowed, or processes that cannot share them.
        DataError: unreadable inputs.
        CheckpointError: network, tokenizer or encoder do not fit.
    """
    started = time.monotonic()
    with join_processes(config.device, None) as joined:
        frames, device = _num_latent_frames(config), joined.device
        check_context_parallel(joined.world_size, config.context_parallel, frames)
        processes = joined.new_cpu_group().with_context_parallel(config.context_parallel)
        is_main = processes.is_main
        inputs = check_item(config, config.net, config.tokenizer, volumes) if is_main else []
        tokenizer = _load_tokenizer(config, volumes, device)
        plan = processes.from_main(
            make_plan(config, volumes, tokenizer, inputs, device, processes.world_size)
            if is_main
            else None
        )
        found = {**plan.finished, **plan.blocked}
        if plan.batches:
            writes = processes.context.is_main
            guardrails = _load_guardrails(config, volumes, device) if writes else None
            models = _load_models(config, volumes, tokenizer, processes, plan.compute_dtype)
            target = volumes.resolve(config.target_uri)
            found |= _sample_batches(config, target, plan, models, guardrails, processes)
        results = [found[one.id] for one in plan.inputs]
        if is_main:
            kept_passes.remove_all(volumes.resolve(config.target_uri))
            records.write_list(volumes.resolve(config.target_uri), results)
    return {
        "item": config.name,
        "folder": config.target_uri,
        "kept": len(plan.finished),
        "seconds": round(time.monotonic() - started, 1),
        **records.summarise(results),
    }


def _num_latent_frames(config: GenerateConfig) -> int:
    """Latent frames T of one pass."""
    return chunked_latent_frames(
        config.sampling.num_pixel_frames, config.tokenizer.chunk_pixel_frames
    )


def _load_tokenizer(
    config: GenerateConfig, volumes: Volumes, device: torch.device
) -> VideoTokenizer:
    folder: Path | Literal["embedded"] = EMBEDDED
    if config.tokenizer_uri != EMBEDDED:
        folder = volumes.resolve(config.tokenizer_uri)
    tokenizer = load_tokenizer(folder, config.tokenizer, device, config.tokenizer_runtime)
    if tokenizer.latent_channels != config.net.latent_channels:
        raise CheckpointError(
            f"{config.tokenizer_uri}: the tokenizer has {tokenizer.latent_channels} latent channels, the "
            f"network takes {config.net.latent_channels} (net.latent_channels); use a tokenizer of the model"
        )
    if "tokenizer" in config.offload:
        tokenizer.move(HOST)
    return tokenizer


def _load_guardrails(
    config: GenerateConfig, volumes: Volumes, device: torch.device
) -> FrameGuardrails | None:
    """Load the guardrails of frames; None if the item asks for none."""
    if config.guardrails is None:
        return None
    return Guardrails.from_config(config.guardrails, volumes).load_for_frames(device)


def _load_models(
    config: GenerateConfig,
    volumes: Volumes,
    tokenizer: VideoTokenizer,
    processes: ProcessGroup,
    dtype: torch.dtype,
) -> Models:
    checkpoint, device = volumes.resolve(config.checkpoint_uri), processes.device
    first_device = HOST if "network" in config.offload else device
    net = load_network(checkpoint, config.net, first_device, config.checkpoint_lora_scale, dtype)
    if processes.context.handle is not None:
        net.share_frames(processes.context.handle)
    return Models(net, tokenizer, device, config.offload)


def _sample_batches(
    config: GenerateConfig,
    target: Path,
    plan: GenerationPlan,
    models: Models,
    guardrails: FrameGuardrails | None,
    processes: ProcessGroup,
) -> Records:
    """Sample, filter and write the pending videos batch by batch; the records of all processes by id."""
    sampling = config.sampling
    settings = Settings(
        sampling, _num_latent_frames(config), config.text, config.sigma_data,
        plan.embeddings.negative_LD, plan.compute_dtype, text_padding=config.text_padding,
    )  # fmt: skip
    if processes.is_main:
        records.remove_list(target)
        kept_passes.remove_others(target, [batch.key for batch in plan.batches if batch.pending])
    processes.barrier()
    own = [batch for batch in processes.own_batches(plan.batches) if batch.pending]
    steps = num_sampler_steps(sampling)
    total = len(own) * steps * sampling.num_passes
    progress = Progress("generate", total, "steps") if processes.is_main else None
    written: Records = {}
    for batch in own:
        kept = KeptPasses.of(target, batch.key, len(batch.inputs), sampling)
        finished_passes = _load_passes(kept, processes)
        if progress is not None:
            progress.leave_out(len(finished_passes) * steps)
        videos = generate_videos(
            models,
            [_read_sample(one, config, plan) for one in batch.inputs],
            settings,
            None if progress is None else progress.advance,
            processes.context.tensor_from_main,
            finished_passes,
            _keep_unfiltered(kept, guardrails) if processes.context.is_main else None,
        )
        if processes.context.is_main:
            seconds = kept.elapsed_s() / len(batch.inputs)
            for one, frames in zip(batch.inputs, videos, strict=True):
                if one.id in batch.pending:
                    filtered = _filter_frames(guardrails, frames)
                    written[one.id] = _write(config, target, plan, one, filtered, seconds)
            kept.remove()
    if progress is not None:
        progress.close()
    return {name: record for part in processes.gather(written) for name, record in part.items()}


def _read_sample(one: SampleInput, config: GenerateConfig, plan: GenerationPlan) -> Sample:
    """Known frames and embedding of one video."""
    text_LD = plan.embeddings.by_prompt[plan.final_prompts[one.id]]
    return Sample(one.id, text_LD, read_known_frames(one, config.sampling, config.fit), one.fps)


def _load_passes(kept: KeptPasses, processes: ProcessGroup) -> list[Frames]:
    """Passes of a batch that an earlier attempt has finished; black frames where a process only helps to compute."""
    passes = kept.load() if processes.context.is_main else []
    num_passes = processes.context.from_main(len(passes))
    return passes or kept.stand_in(num_passes)


def _filter_frames(
    guardrails: FrameGuardrails | None, frames_THWC: NDArray[np.uint8]
) -> Blocked | FilteredFrames:
    """Apply the guardrails of frames to a video, if there are some."""
    if guardrails is None:
        return FilteredFrames(frames_THWC)
    return guardrails.filter_frames(frames_THWC)


def _keep_unfiltered(kept: KeptPasses, guardrails: FrameGuardrails | None) -> Keep:
    """Callback that keeps the frames of a pass, unless guardrails would block or blur some of them."""

    def is_unfiltered(frames_THWC: NDArray[np.uint8]) -> bool:
        filtered = _filter_frames(guardrails, frames_THWC)
        return isinstance(filtered, FilteredFrames) and not filtered.num_blurred

    def keep(number: int, frames_BTHWC: NDArray[np.uint8]) -> None:
        if all(is_unfiltered(frames) for frames in frames_BTHWC):
            kept.add(number, frames_BTHWC)

    return keep


def _write(
    config: GenerateConfig,
    target: Path,
    plan: GenerationPlan,
    one: SampleInput,
    filtered: Blocked | FilteredFrames,
    seconds: float,
) -> records.Record:
    """Write a video and its record with metrics, or the record of an input that is blocked."""
    request = plan.requests[one.id]
    if isinstance(filtered, Blocked):
        return records.write_blocked(target, request, filtered)
    return records.write_result(
        target, request, one, filtered.frames_THWC, config.sampling, seconds, filtered.num_blurred
    )
