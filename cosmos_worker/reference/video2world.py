"""video2world: the reference's inference command line, run by the generate stage."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosmos_worker.config.captions import (
    TextError,
    normalise_caption,
)
from cosmos_worker.config.documents import parse_document
from cosmos_worker.config.network import TextConfig, TokenizerConfig
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.errors import ConfigError, DataError
from cosmos_worker.reference import video2world_flags as flags
from cosmos_worker.sample.conditioning import check_visual_input
from cosmos_worker.sample.inputs import (
    SampleInput,
    default_id,
    raise_problems,
    read_inputs_file,
)
from cosmos_worker.sample.records import is_blocked, record_path, video_path
from cosmos_worker.stages import generate
from cosmos_worker.storage.volumes import (
    Volumes,
    atomic_write,
)
from cosmos_worker.tokenizer.tokenizer import chunked_latent_frames
from cosmos_worker.weights.convert import find_network
from cosmos_worker.weights.files import (
    has_adapter,
    locate,
)

logger = logging.getLogger(__name__)

RELEASED_CHUNK = 121
"""Pixel frames that the released tokenizer encodes together."""


def collect(options: argparse.Namespace) -> list[SampleInput]:
    """Read the inputs that the flags name; the ids of a batch are the numbers of its lines, from 0.

    Raises:
        ConfigError: wrong flags.
        DataError: wrong lines of the batch file.
    """
    if options.batch_input_path is None:
        name = options.video_save_name or flags.DEFAULT_NAME
        path = options.input_image_or_video_path
        inputs = [SampleInput(name, _prompt(options.prompt), path, None, "the command line")]
        raise_problems(ConfigError, inputs)
        return inputs
    listed = read_inputs_file(options.batch_input_path, 0, Path())
    for number, one in enumerate(listed):
        if one.ground_truth is not None or one.id != default_id(number):
            raise DataError(
                f"{one.where}: id and ground_truth are for inference items; give visual_input and prompt only"
            )
    inputs = [
        SampleInput(str(number), one.prompt, one.visual_input, None, one.where)
        for number, one in enumerate(listed)
    ]
    raise_problems(DataError, inputs)
    return inputs


def _prompt(text: str) -> str:
    try:
        return normalise_caption(text)
    except TextError as error:
        raise ConfigError(f"--prompt: {error}; write it anew") from None


def build_config(
    options: argparse.Namespace, inputs: Sequence[SampleInput], processes: int
) -> GenerateConfig:
    """Build the document of the generate stage.

    Raises:
        ConfigError: values that are not allowed, or a network that neither folder nor flags name.
        CheckpointError: the folder holds no weights.
    """
    root, experiment = options.checkpoint_dir, options.experiment
    folder = root / options.diffusion_transformer_dir
    weights = locate(folder)
    net = None if experiment else flags.named_network(options.diffusion_transformer_dir)
    text, tokenizer = TextConfig(), TokenizerConfig(chunk_pixel_frames=RELEASED_CHUNK)
    sigma_data = 0.5
    if experiment:
        known = get_experiment(experiment)
        text, tokenizer, sigma_data = known.text, known.tokenizer, known.diffusion.sigma_data
    document: dict[str, Any] = {
        "key": flags.COMMAND,
        "target_uri": str(options.video_save_folder),
        "name": flags.COMMAND,
        "checkpoint_uri": str(folder if has_adapter(folder) else weights),
        "net": net or find_network(folder, experiment),
        "text": text,
        "sigma_data": sigma_data,
        "tokenizer_uri": str(root / options.tokenizer_dir),
        "tokenizer": tokenizer,
        "tokenizer_runtime": options.tokenizer_runtime,
        "encoder_uri": str(root / options.text_encoder_dir),
        "inputs": [
            {"prompt": one.prompt, "visual_input_uri": str(one.visual_input), "id": one.id}
            for one in inputs
        ],
        "sampling": flags.sampling_values(options),
        "fit": options.fit,
        "context_parallel": processes,
        "offload": flags.offloaded_models(options),
        **flags.auxiliary_models(options),
    }
    return parse_document(GenerateConfig, document, flags.COMMAND)


def _check_sharing(config: GenerateConfig, processes: int) -> None:
    frames = chunked_latent_frames(
        config.sampling.num_pixel_frames, config.tokenizer.chunk_pixel_frames
    )
    if frames % processes:
        raise ConfigError(
            f"--num_gpus: {processes} does not divide the {frames} latent frames of "
            f"{config.sampling.num_pixel_frames} pixel frames; use a number that does"
        )


def run(options: argparse.Namespace, processes: int, is_main: bool) -> dict[str, Any]:
    """Generate ``<folder>/<name>.mp4`` as the flags say, with the final prompt in ``<name>.txt``.

    Args:
        options: parsed flags.
        processes: number of processes that torchrun has started, or 1.
        is_main: true for the process that writes the texts.

    Returns:
        The result of the generate stage.

    Raises:
        ConfigError: flags that contradict each other, are missing, or have values that are not allowed.
        DataError: wrong lines of the batch file, unreadable inputs.
        CheckpointError: models that are missing or do not fit.
    """
    flags.check_flags(options)
    if options.num_gpus != processes:
        raise ConfigError(
            f"--num_gpus: got {options.num_gpus}, but torchrun has started {processes} processes; use equal numbers"
        )
    inputs = collect(options)
    config = build_config(options, inputs, processes)
    _check_sharing(config, processes)
    for one in inputs:
        check_visual_input(one, config.sampling, config.fit)
    result = generate.run(config, Volumes())
    if is_main:
        _write_prompts(options.video_save_folder, inputs)
    return result


def _write_prompts(folder: Path, inputs: Sequence[SampleInput]) -> None:
    """Write the final prompt beside each video; an input that guardrails have blocked has neither."""
    for one in inputs:
        record = json.loads(record_path(folder, one.id).read_text(encoding="utf-8"))
        text = video_path(folder, one.id).with_suffix(".txt")
        if is_blocked(record):
            text.unlink(missing_ok=True)
            logger.warning("%s gets no video: %s", one.where, record["blocked"]["reason"])
            continue
        with atomic_write(text, "w") as stream:
            stream.write(record.get("final_prompt", record["prompt"]))
