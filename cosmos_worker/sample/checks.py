"""Checks of an inference item that need no model; they run before the training and again before the sampling."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from cosmos_worker.config.network import LATENT_SCALE, NetConfig, TokenizerConfig
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import ItemConfig
from cosmos_worker.data.text_files import printable
from cosmos_worker.data.video.files import open_video
from cosmos_worker.errors import ConfigError, DataError, UserError
from cosmos_worker.metrics.push import parse_instruction
from cosmos_worker.sample.conditioning import check_visual_input
from cosmos_worker.sample.inputs import SampleInput, collect_inputs, raise_all
from cosmos_worker.sample.sampler import evaluations_per_interval
from cosmos_worker.storage.volumes import Volumes

logger = logging.getLogger(__name__)

MAX_RATE_DIFFERENCE = 0.01
"""Frame rates of a result and of its input or ground truth that differ by a larger share are noted."""


def check_item(
    item: ItemConfig, net: NetConfig, tokenizer: TokenizerConfig, volumes: Volumes
) -> list[SampleInput]:
    """Read everything that an inference item names: list, images, videos, ground truth.

    Args:
        item: the inference item.
        net: network that samples it.
        tokenizer: its tokenizer.
        volumes: where addresses lie on this machine.

    Returns:
        The inputs, each with the frame rate of its result and notes on the changes to its file.

    Raises:
        ConfigError: inputs or sizes that are not allowed.
        DataError: inputs that cannot be read; the message has at most 10 problems.
        OSError: a volume does not give the content of a file.
    """
    inputs_file = volumes.resolve(item.inputs_file_uri) if item.inputs_file_uri else None
    inputs = collect_inputs(item.inputs, inputs_file, volumes)
    check_admitted(net, tokenizer, item.sampling)
    checked: list[SampleInput] = []
    problems: list[UserError] = []
    for one in inputs:
        try:
            known = check_visual_input(one, item.sampling, item.fit)
            checked.append(check_metrics(known, item))
        except UserError as error:
            problems.append(error)
    raise_all(problems)
    checked = with_rates(item, checked)
    _log_notes(item, checked)
    return checked


def check_admitted(net: NetConfig, tokenizer: TokenizerConfig, sampling: SamplingConfig) -> None:
    """Check the wanted video against what network and tokenizer admit.

    Raises:
        ConfigError: with every problem: name, value, limit.
    """
    problems = []
    for name, value in (("height", sampling.height), ("width", sampling.width)):
        largest = net.max_latent_size * LATENT_SCALE
        if value > largest:
            problems.append(
                f"sampling.{name}: {value} is more than the network admits; use at most {largest} "
                f"(net.max_latent_size {net.max_latent_size})"
            )
    frames, chunk = sampling.num_pixel_frames, tokenizer.chunk_pixel_frames
    most = 1 + (net.max_latent_frames - 1) * LATENT_SCALE
    if frames > most:
        problems.append(
            f"sampling.num_pixel_frames: {frames} is more than the network admits; use at most {most} "
            f"(net.max_latent_frames {net.max_latent_frames})"
        )
    if frames > chunk and frames % chunk:
        problems.append(
            f"sampling.num_pixel_frames: {frames} is more than one chunk of the tokenizer and no "
            f"multiple of it; use at most {chunk} (tokenizer.chunk_pixel_frames)"
        )
    if frames <= sampling.num_input_frames:
        problems.append(
            f"sampling.num_pixel_frames: {frames} leaves no frame to generate after "
            f"num_input_frames {sampling.num_input_frames}; use more frames"
        )
    least = evaluations_per_interval(sampling)
    if sampling.num_steps < least:
        problems.append(
            f"sampling.num_steps: {sampling.num_steps} is no step of {sampling.sampler}; use {least} or more"
        )
    if sampling.sigma_min >= sampling.sigma_max:
        problems.append(
            f"sampling.sigma_min: {sampling.sigma_min} is not below sigma_max {sampling.sigma_max}"
        )
    if problems:
        raise ConfigError("; ".join(problems))


def check_metrics(one: SampleInput, item: ItemConfig) -> SampleInput:
    """Check before the sampling that the metrics of an item can be measured for an input.

    Returns:
        The input, with a note if the frame rate of its ground truth is not that of the result.

    Raises:
        ConfigError: psnr without ground truth, or push with a prompt that is no instruction of the push example.
        DataError: a ground truth that is shorter than the video or not readable.
    """
    if "push" in item.metrics and parse_instruction(one.prompt) is None:
        raise ConfigError(
            f"{one.where}: prompt: {one.prompt!r} is no instruction of the push example, so the metric "
            "'push' cannot judge it; write 'push the red cube left' or remove the metric"
        )
    if "psnr" not in item.metrics:
        return one
    if one.ground_truth is None:
        raise ConfigError(
            f"{one.where}: ground_truth is missing, which the metric 'psnr' needs; give it or "
            "remove the metric"
        )
    try:
        truth = open_video(one.ground_truth)
        num_frames, truth_fps = truth.num_frames, truth.fps
    except DataError as error:
        raise DataError(f"{one.where}: ground_truth: {error}") from None
    if num_frames < item.sampling.total_pixel_frames:
        raise DataError(
            f"{one.where}: ground_truth: {one.ground_truth} has {num_frames} frames, fewer than "
            f"{_describe_length(item.sampling)}; give a longer video or generate fewer frames"
        )
    fps = one.fps if item.fps_of_inputs and one.fps is not None else item.sampling.fps
    if abs(truth_fps - fps) <= MAX_RATE_DIFFERENCE * fps:
        return one
    note = f"its ground truth has {truth_fps:g} frames per second, the result {fps:g}; frame is compared with frame"
    return replace(one, notes=(*one.notes, note))


def _describe_length(sampling: SamplingConfig) -> str:
    if sampling.num_passes == 1:
        return f"num_pixel_frames {sampling.num_pixel_frames}"
    return f"the {sampling.total_pixel_frames} frames of num_passes {sampling.num_passes}"


def with_rates(item: ItemConfig, inputs: Sequence[SampleInput]) -> list[SampleInput]:
    """Set the frame rate of each input's result; None stands for the rate of the item's sampling.

    With ``fps_of_inputs`` a video goes on at its own rate, and an image takes the rate of the item's videos if they
    have one in common.
    """
    if not item.fps_of_inputs:
        return [_with_rate_of_item(one, item) for one in inputs]
    rates = {one.fps for one in inputs if one.fps is not None}
    if len(rates) < 2:
        return [replace(one, fps=next(iter(rates), None)) for one in inputs]
    note = (
        f"sampled at {item.sampling.fps:g} frames per second, as it is an image and the videos of the item have "
        "different rates; set parameters.fps to choose"
    )
    return [replace(one, notes=(*one.notes, note)) if one.fps is None else one for one in inputs]


def _with_rate_of_item(one: SampleInput, item: ItemConfig) -> SampleInput:
    """Give an input the rate of its item, with a note if its known frames were recorded at another rate."""
    wanted, known = item.sampling.fps, item.sampling.num_input_frames
    notes = one.notes
    if one.fps is not None and known > 1 and abs(one.fps - wanted) > MAX_RATE_DIFFERENCE * wanted:
        note = (
            f"its {known} known frames are {one.fps:g} a second and are taken as they are, the result has {wanted:g}; "
            f"re-encode it (ffmpeg -i OLD -r {wanted:g} NEW), or choose parameters.fps"
        )
        notes = (*notes, note)
    return replace(one, fps=None, notes=notes)


def _log_notes(item: ItemConfig, inputs: Sequence[SampleInput]) -> None:
    """Log each note once, with the first input that has it and the number of others."""
    by_note: dict[str, list[SampleInput]] = {}
    for one in inputs:
        for note in one.notes:
            by_note.setdefault(note, []).append(one)
    for note, having in by_note.items():
        more = f" and {len(having) - 1} more" if len(having) > 1 else ""
        shown = printable(f"{having[0].where}{more}: {having[0].visual_input}: {note}")
        logger.warning("item=%s %s", item.name, shown)
