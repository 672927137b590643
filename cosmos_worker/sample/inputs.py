"""What to generate: the list of inputs, checked before any model is loaded, and their known frames."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cosmos_worker.config import GenerateInput
from cosmos_worker.data.video import open_video
from cosmos_worker.errors import ConfigError, DataError, UserError
from cosmos_worker.layout import Volumes
from cosmos_worker.sampling_options import SamplingConfig
from cosmos_worker.tokenizer.base import video_from_pixels

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
REQUIRED_KEYS, OPTIONAL_KEYS = ("visual_input", "prompt"), ("ground_truth", "id")
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class SampleInput:
    """One video to generate.

    Attributes:
        id: file name of the result without suffix, unique in the list.
        prompt: text, not blank.
        visual_input: image or video whose frames are known.
        ground_truth: video to compare with; it begins with the known frames.
        where: the line or the list entry that asked for it, for messages.
    """

    id: str
    prompt: str
    visual_input: Path
    ground_truth: Path | None
    where: str


def collect_inputs(
    listed: Sequence[GenerateInput], inputs_file: Path | None, volumes: Volumes
) -> list[SampleInput]:
    """Inputs of the job, then those of the file, checked.

    Raises:
        ConfigError: no input at all, or wrong entries of the job.
        DataError: wrong lines of the file; at most 10 are told.
    """
    inputs = _from_job(listed, volumes)
    raise_problems(ConfigError, inputs)
    if inputs_file is not None:
        from_file = read_inputs_file(inputs_file, len(inputs), inputs_file.parent)
        raise_problems(DataError, from_file)
        inputs += from_file
    if not inputs:
        raise ConfigError("inputs: the list is empty; give inputs or inputs_file_uri")
    seen: dict[str, str] = {}
    for one in inputs:
        if one.id in seen:
            raise ConfigError(
                f"{one.where}: id {one.id!r} is used by {seen[one.id]} too; give each input its own"
            )
        seen[one.id] = one.where
    return inputs


def _from_job(listed: Sequence[GenerateInput], volumes: Volumes) -> list[SampleInput]:
    return [
        SampleInput(
            id=one.id if one.id is not None else default_id(position),
            prompt=one.prompt.strip(),
            visual_input=volumes.resolve(one.visual_input_uri),
            ground_truth=volumes.resolve(one.ground_truth_uri) if one.ground_truth_uri else None,
            where=f"inputs.{position}",
        )
        for position, one in enumerate(listed)
    ]


def default_id(position: int) -> str:
    """Name of an input that has none: its position, three digits or more."""
    return f"{position:03d}"


def read_inputs_file(path: Path, num_before: int, folder: Path) -> list[SampleInput]:
    """The lines of a JSONL file, each with its position as fallback id.

    Args:
        path: of {"visual_input": PATH, "prompt": TEXT}.
        num_before: position of the first line.
        folder: where relative paths begin.

    Raises:
        ConfigError: no such file.
        DataError: lines that are no such objects; at most 10 are told.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"{path}: no such file; inputs_file_uri names a JSONL file of "
            '{"visual_input": PATH, "prompt": TEXT}'
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8"
        ) from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(
            f'{path}: the file is empty; give one {{"visual_input": PATH, "prompt": TEXT}} a line'
        )
    inputs: list[SampleInput] = []
    problems: list[str] = []
    for position, (number, line) in enumerate(lines, num_before):
        where = f"{path}:{number}"
        try:
            inputs.append(_from_line(line, where, default_id(position), folder))
        except DataError as error:
            problems.append(str(error))
    _raise_problems(DataError, problems)
    return inputs


def _from_line(line: str, where: str, fallback_id: str, folder: Path) -> SampleInput:
    try:
        entry: Any = json.loads(line)
    except ValueError as error:
        raise DataError(f"{where}: not JSON ({error}); got {line[:60]!r}") from None
    if not isinstance(entry, dict):
        raise DataError(f"{where}: got {type(entry).__name__}; give an object with {_KEYS_TEXT}")
    unknown = sorted(set(entry) - set(REQUIRED_KEYS) - set(OPTIONAL_KEYS))
    if unknown:
        raise DataError(f"{where}: unknown key {unknown[0]!r}; allowed: {_KEYS_TEXT}")
    for key in (*REQUIRED_KEYS, *(key for key in OPTIONAL_KEYS if key in entry)):
        if not isinstance(entry.get(key), str):
            raise DataError(f"{where}: {key}: got {entry.get(key)!r}; give a text")
    truth = entry.get("ground_truth")
    return SampleInput(
        id=entry.get("id", fallback_id),
        prompt=entry["prompt"].strip(),
        visual_input=folder / entry["visual_input"] if entry["visual_input"] else Path(),
        ground_truth=folder / truth if truth else None,
        where=where,
    )


_KEYS_TEXT = ", ".join((*REQUIRED_KEYS, *OPTIONAL_KEYS))


def _problems(one: SampleInput) -> list[str]:
    found = []
    if not one.prompt:
        found.append(f"{one.where}: prompt: is blank; write what the video shows")
    if not ID.fullmatch(one.id) or one.id == "generated":
        found.append(
            f"{one.where}: id: got {one.id!r}; use letters, digits, '.', '_', '-', at most 100, "
            "beginning with a letter or digit, not 'generated'"
        )
    for name, path in (("visual_input", one.visual_input), ("ground_truth", one.ground_truth)):
        if path is not None and not path.is_file():
            found.append(f"{one.where}: {name}: no such file {path}; correct the path")
    return found


def raise_problems(error: type[UserError], inputs: Sequence[SampleInput]) -> None:
    """Raise an error that names what is wrong with inputs; at most 10 problems are told."""
    _raise_problems(error, [problem for one in inputs for problem in _problems(one)])


def _raise_problems(error: type[UserError], problems: Sequence[str]) -> None:
    if not problems:
        return
    more = len(problems) - SHOWN_PROBLEMS
    rest = f"; and {more} more" if more > 0 else ""
    raise error("; ".join(problems[:SHOWN_PROBLEMS]) + rest)


# --- known frames ----------------------------------------------------------------------------


def check_visual_input(one: SampleInput, sampling: SamplingConfig) -> None:
    """Fail early on inputs that cannot give the known frames.

    Raises:
        ConfigError: an image where more than one known frame is wanted; a ground truth that
            cannot begin with the known frames.
        DataError: a video that is too short or not readable.
    """
    wanted = sampling.num_input_frames
    if is_image(one.visual_input):
        if wanted > 1:
            raise ConfigError(
                f"{one.where}: visual_input: {one.visual_input} is an image, but num_input_frames is "
                f"{wanted}; give a video or set num_input_frames to 1"
            )
        return
    num_frames = open_video(one.visual_input).num_frames
    if num_frames < wanted:
        raise DataError(
            f"{one.where}: visual_input: {one.visual_input} has {num_frames} frames, fewer than "
            f"num_input_frames {wanted}; give a longer video"
        )
    same = one.ground_truth is not None and one.ground_truth.samefile(one.visual_input)
    if same and sampling.input_frames == "last" and num_frames > wanted:
        raise ConfigError(
            f"{one.where}: ground_truth is the conditioning video itself, whose last frames are known; "
            "set input_frames to 'first' or give what follows as ground_truth"
        )


def common_fps(inputs: Sequence[SampleInput]) -> float | None:
    """Frames per second of the conditioning videos; None if all are images.

    Raises:
        ConfigError: videos of different rates, which one item cannot have.
    """
    found: dict[float, SampleInput] = {}
    for one in inputs:
        if not is_image(one.visual_input):
            found.setdefault(open_video(one.visual_input).fps, one)
    if len(found) > 1:
        told = ", ".join(f"{one.visual_input} has {fps:g}" for fps, one in found.items())
        raise ConfigError(
            f"{next(iter(found.values())).where}: visual_input: videos of different frames per second: {told}; set "
            "parameters.fps, or give each rate an item of its own"
        )
    return next(iter(found), None)


def is_image(path: Path) -> bool:
    """Whether the file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_known_frames(one: SampleInput, sampling: SamplingConfig) -> Tensor:
    """The known pixel frames at the size of the result.

    Returns:
        float32 (3, num_input_frames, height, width) in [-1, 1]; resized by antialiased bicubic
        interpolation without crop.

    Raises:
        DataError: the file cannot be read.

    Source: cosmos_predict1 inference, facts 8.2. Differs: x / 127.5 - 1 as in training, where the
    reference has x / 128 - 1; sampling.pixel_range=legacy repeats that.
    """
    return resize_bicubic(video_from_frames(_known_frames(one, sampling), sampling), sampling)


def video_from_frames(frames_THWC: NDArray[np.uint8], sampling: SamplingConfig) -> Tensor:
    """Frames as the tokenizer takes them, float32 (3, T, H, W) in [-1, 1]."""
    video_CTHW = video_from_pixels(torch.from_numpy(frames_THWC)[None])[0]
    if sampling.pixel_range == "legacy":
        video_CTHW = (video_CTHW + 1) * (127.5 / 128) - 1
    return video_CTHW


def read_last_known_frame(one: SampleInput, sampling: SamplingConfig) -> NDArray[np.uint8]:
    """The last known frame at the size of its file, uint8 (H, W, 3) RGB.

    Raises:
        DataError: the file cannot be read.
    """
    frame: NDArray[np.uint8] = _known_frames(one, sampling)[-1]
    return frame


def _known_frames(one: SampleInput, sampling: SamplingConfig) -> NDArray[np.uint8]:
    """The known frames at the size of their file, uint8 (T, H, W, 3)."""
    if is_image(one.visual_input):
        return _read_image(one.visual_input)[None]
    reader = open_video(one.visual_input)
    last = reader.num_frames - sampling.num_input_frames
    first = 0 if sampling.input_frames == "first" else last
    return reader.get(range(first, first + sampling.num_input_frames))


def _read_image(path: Path) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as an image ({reason}); save it again") from None


def resize_bicubic(video_CTHW: Tensor, sampling: SamplingConfig) -> Tensor:
    """Antialiased bicubic resize of each frame, clamped to [-1, 1]; equal sizes stay as they are."""
    size = (sampling.height, sampling.width)
    if video_CTHW.shape[2:] == size:
        return video_CTHW
    frames_TCHW = torch.nn.functional.interpolate(
        video_CTHW.transpose(0, 1), size=size, mode="bicubic", antialias=True, align_corners=False
    )
    return frames_TCHW.transpose(0, 1).clamp(-1, 1)
