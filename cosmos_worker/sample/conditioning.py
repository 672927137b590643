"""Conditioning images and videos: checked before any model is loaded, and their known frames at the size of the result.

Shapes: T frames, H rows, W columns, C = 3 colours; all in pixels.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cosmos_worker.config.choices import Fit
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.data.distortion import Distortion, describe_distortion
from cosmos_worker.data.video.files import open_video
from cosmos_worker.data.video.fit import (
    cut_or_fill,
    scaled_size,
)
from cosmos_worker.errors import ConfigError, DataError
from cosmos_worker.sample.images import READ_TEXT, image_format, read_image
from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.tokenizer.tokenizer import video_from_pixels

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
"""File names that promise an image, for messages only: a file is an image or a video by its content."""
MIN_FPS, MAX_FPS = 0.5, 1000.0
MAX_ASPECT = 32
"""Images and videos with one side longer than 32 times the other are refused as a mistake."""
BLACK = -1.0
KEEP_ASPECT = (
    "crop it before, or set spec.dataset.fit to Crop or Pad, which changes the frames of the training too "
    "(video2world: --fit crop or --fit pad)"
)

Frames = NDArray[np.uint8]


def check_visual_input(
    one: SampleInput, sampling: SamplingConfig, fit: Fit = "stretch"
) -> SampleInput:
    """Read the known frames once, before any model is loaded.

    Args:
        one: the input, whose files are there.
        sampling: size of the result and number of its known frames.
        fit: how another aspect ratio is brought to that size.

    Returns:
        The input with the frames per second of its video (None for an image) and notes on the changes to it.

    Raises:
        ConfigError: an image where more than one known frame is wanted; a ground truth that
            cannot begin with the known frames.
        DataError: an image or a video that is too short or not readable.
        OSError: the volume does not give the file's content.
    """
    where, wanted = f"{one.where}: visual_input", sampling.num_input_frames
    fps: float | None = None
    notes: tuple[str, ...] = ()
    if is_image(one):
        if wanted > 1:
            raise ConfigError(
                f"{where}: {one.visual_input} is an image, but num_input_frames is "
                f"{wanted}; give a video or set num_input_frames to 1"
            )
        try:
            picture = read_image(one.visual_input)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        rows, columns = picture.pixels_HWC.shape[:2]
        notes = picture.notes
    else:
        rows, columns, fps = _check_video(one, sampling)
    if max(rows, columns) > MAX_ASPECT * min(rows, columns):
        raise DataError(
            f"{where}: {one.visual_input} is {columns}x{rows}, one side more than {MAX_ASPECT} times the other; "
            "cut it to the shape of the video"
        )
    shape = Distortion(str(one.visual_input), rows, columns, sampling.height, sampling.width, fit)
    distortion = describe_distortion(shape, KEEP_ASPECT)
    return replace(one, fps=fps, notes=(*one.notes, *notes, *filter(None, [distortion])))


def _check_video(one: SampleInput, sampling: SamplingConfig) -> tuple[int, int, float]:
    """Rows, columns and frames per second of a conditioning video whose known frames can be read."""
    where, wanted = f"{one.where}: visual_input", sampling.num_input_frames
    try:
        reader = open_video(one.visual_input)
        num_frames = reader.num_frames
        if num_frames >= wanted:
            frames = _known_frames(one, sampling)
    except DataError as error:
        if one.visual_input.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{where}: {error}") from None
        raise DataError(
            f"{where}: {one.visual_input} is neither an image ({READ_TEXT}) nor a video by its content; save it again"
        ) from None
    if num_frames < wanted:
        raise DataError(
            f"{where}: {one.visual_input} has {num_frames} frames, fewer than "
            f"num_input_frames {wanted}; give a longer video"
        )
    if not MIN_FPS <= reader.fps <= MAX_FPS:
        raise DataError(
            f"{where}: {one.visual_input} says {reader.fps:g} frames per second, outside of {MIN_FPS:g} to "
            f"{MAX_FPS:g}; re-encode it"
        )
    is_own_truth = one.ground_truth is not None and one.ground_truth.samefile(one.visual_input)
    if is_own_truth and sampling.input_frames == "last" and num_frames > wanted:
        raise ConfigError(
            f"{one.where}: ground_truth is the conditioning video itself, whose last frames are known; "
            "set input_frames to 'first' or give what follows as ground_truth"
        )
    return frames.shape[1], frames.shape[2], reader.fps


def is_image(one: SampleInput) -> bool:
    """Say whether the conditioning file is an image by its content, readable or not."""
    return image_format(one.visual_input) is not None


def read_known_frames(one: SampleInput, sampling: SamplingConfig, fit: Fit = "stretch") -> Tensor:
    """Read the known frames at the size of the result.

    Returns:
        float32 (3, num_input_frames, height, width) in [-1, 1]; resized by antialiased bicubic
        interpolation, with the cut or the black borders of ``fit``.

    Raises:
        DataError: the file cannot be read.

    Source: cosmos_predict1 inference. Differs: x / 127.5 - 1 as in training, where the
    reference has x / 128 - 1; sampling.pixel_range=legacy repeats that. The reference always stretches.
    """
    video_CTHW = video_from_frames(_known_frames(one, sampling), sampling)
    return resize_bicubic(video_CTHW, sampling, fit)


def video_from_frames(frames_THWC: Frames, sampling: SamplingConfig) -> Tensor:
    """Frames as the tokenizer takes them, float32 (3, T, H, W) in [-1, 1]."""
    video_CTHW = video_from_pixels(torch.from_numpy(frames_THWC)[None])[0]
    if sampling.pixel_range == "legacy":
        video_CTHW = (video_CTHW + 1) * (127.5 / 128) - 1
    return video_CTHW


def read_last_known_frame(
    one: SampleInput, sampling: SamplingConfig, fit: Fit = "stretch"
) -> Frames:
    """Read the last known frame in the resolution of its file, uint8 (H, W, 3) RGB; with fit "crop" its cut-out.

    Raises:
        DataError: the file cannot be read.
    """
    frame: Frames = _known_frames(one, sampling)[-1]
    if fit != "crop":
        return frame
    rows, columns = frame.shape[:2]
    height = min(rows, max(1, round(columns * sampling.height / sampling.width)))
    width = min(columns, max(1, round(rows * sampling.width / sampling.height)))
    cropped_CHW = cut_or_fill(torch.from_numpy(frame).permute(2, 0, 1), height, width, 0)
    cropped: Frames = cropped_CHW.permute(1, 2, 0).contiguous().numpy()
    return cropped


def _known_frames(one: SampleInput, sampling: SamplingConfig) -> Frames:
    """Read the known frames at the size of their file, uint8 (T, H, W, 3)."""
    if is_image(one):
        return read_image(one.visual_input).pixels_HWC[None]
    reader = open_video(one.visual_input)
    last = reader.num_frames - sampling.num_input_frames
    first = 0 if sampling.input_frames == "first" else last
    return reader.get(range(first, first + sampling.num_input_frames))


def resize_bicubic(video_CTHW: Tensor, sampling: SamplingConfig, fit: Fit = "stretch") -> Tensor:
    """Resize each frame by antialiased bicubic interpolation, clamp it to [-1, 1], then cut or fill it as ``fit`` says.

    Frames that have the wanted size already are not changed.
    """
    rows, columns = video_CTHW.shape[2:]
    size = scaled_size(rows, columns, sampling.height, sampling.width, fit)
    if size != (rows, columns):
        frames_TCHW = torch.nn.functional.interpolate(
            video_CTHW.transpose(0, 1),
            size=size,
            mode="bicubic",
            antialias=True,
            align_corners=False,
        )
        video_CTHW = frames_TCHW.transpose(0, 1).clamp(-1, 1)
    return cut_or_fill(video_CTHW, sampling.height, sampling.width, BLACK)
