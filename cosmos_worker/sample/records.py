"""Results on disk: <id>.mp4, <id>.json beside it, and what the list of them says in all.

An input that a guardrail holds back has a record with ``blocked`` and no video.

<id>.json is written after its video and removed before the video is replaced, so a video with a
record is whole and was made by what the record says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import (
    Fit,
    GenerateConfig,
    ItemConfig,
)
from cosmos_worker.data.video.files import (
    open_video,
    read_video,
    read_window,
    write_video,
)
from cosmos_worker.errors import ConfigError, DataError
from cosmos_worker.guardrails.verdict import Blocked
from cosmos_worker.metrics.psnr import score_prediction
from cosmos_worker.metrics.push import (
    parse_instruction,
    score_push,
)
from cosmos_worker.sample.inputs import SampleInput, sampling_of
from cosmos_worker.sample.prompts import count_unknown
from cosmos_worker.storage.volumes import (
    GENERATED_FILE,
    MODEL_FILE,
    VIDEO_READER_VERSION,
    atomic_write,
    sha256_of_file,
    write_json,
)

Record = dict[str, Any]
LATER_SAMPLING = {"num_passes": 1}
"""Options of sampling that records of earlier versions do not name, and what those did."""
LATER = {"fit": "stretch", "video_reader": 1}
"""The same of other entries."""
MAX_RATE_DIFFERENCE = 0.01
"""Rates of a result and its ground truth that differ by a larger share are told."""
UPSAMPLER_IDENTITY = "prompt_upsampler_identity"
GUARDRAILS_IDENTITY = "guardrails_identity"
COMPANIONS = (UPSAMPLER_IDENTITY, GUARDRAILS_IDENTITY)
"""What decides the answers of companions: in a request, and so in its record, only if it asks for them."""


def check_metrics(one: SampleInput, item: ItemConfig) -> SampleInput:
    """Fail early on metrics that an input cannot have.

    Returns:
        The input, with a note if its ground truth is of another rate.

    Raises:
        ConfigError: psnr without ground truth; push for another sentence.
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
            f"{_length(item.sampling)}; give a longer video or generate fewer frames"
        )
    fps = one.fps if item.fps_of_inputs and one.fps is not None else item.sampling.fps
    if abs(truth_fps - fps) <= MAX_RATE_DIFFERENCE * fps:
        return one
    note = f"its ground truth has {truth_fps:g} frames per second, the result {fps:g}; frame is compared with frame"
    return replace(one, notes=(*one.notes, note))


def _length(sampling: SamplingConfig) -> str:
    if sampling.num_passes == 1:
        return f"num_pixel_frames {sampling.num_pixel_frames}"
    return f"the {sampling.total_pixel_frames} frames of num_passes {sampling.num_passes}"


def describe_request(
    one: SampleInput, config: GenerateConfig, digests: Mapping[str, str]
) -> Record:
    """Everything that decides a result, as JSON: the first half of its record.

    Args:
        one: the input.
        config: the stage's document.
        digests: of the models, by name (checkpoint_sha256, ...).
    """
    sampling = sampling_of(one, config.sampling)
    request = {
        "id": one.id,
        "item": config.name,
        "prompt": one.prompt,
        "seed": config.sampling.seed,
        "known_frames": config.sampling.num_input_frames,
        "visual_input": str(one.visual_input),
        "visual_input_sha256": sha256_of_file(one.visual_input),
        "ground_truth": str(one.ground_truth) if one.ground_truth else None,
        "ground_truth_sha256": sha256_of_file(one.ground_truth) if one.ground_truth else None,
        "sampling": sampling.model_dump(mode="json", exclude={"batch_size", "seed"}),
        "fit": config.fit,
        "video_reader": VIDEO_READER_VERSION,
        "text": config.text.model_dump(mode="json"),
        "net": config.net.model_dump(mode="json"),
        "sigma_data": config.sigma_data,
        "checkpoint": config.checkpoint_uri,
        "checkpoint_lora_scale": config.checkpoint_lora_scale,
        "metrics_wanted": list(config.metrics),
        **digests,
    }
    normalised: Record = json.loads(json.dumps(request))
    return normalised


def video_path(folder: Path, sample_id: str) -> Path:
    """The result's video."""
    return folder / f"{sample_id}.mp4"


def record_path(folder: Path, sample_id: str) -> Path:
    """The result's record."""
    return folder / f"{sample_id}.json"


def read_finished(folder: Path, request: Record) -> Record | None:
    """The record of a finished result that was made by exactly this request, else None."""
    path, video = record_path(folder, request["id"]), video_path(folder, request["id"])
    if not path.is_file():
        return None
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # not ours or cut off: made again, like any other record that does not fit
        return None
    if not isinstance(record, dict) or not _is_of(record, request):
        return None
    if is_blocked(record):
        return None if video.exists() else record
    is_whole = video.is_file() and record.get("video_sha256") == sha256_of_file(video)
    return record if is_whole else None


def _is_of(record: Record, request: Record) -> bool:
    """Whether a record was made by a request; earlier versions did not write what came later.

    A companion that the record had and the request does not ask for makes another result, too.
    """
    if any(record.get(name) != request.get(name) for name in COMPANIONS):
        return False
    known = {**LATER, **record}
    if isinstance(known.get("sampling"), dict):
        known["sampling"] = {**LATER_SAMPLING, **known["sampling"]}
    known["checkpoint"] = _checkpoint_name(known.get("checkpoint"))
    wanted = {**request, "checkpoint": _checkpoint_name(request["checkpoint"])}
    return all(known.get(key) == value for key, value in wanted.items())


def _checkpoint_name(address: object) -> str:
    """A folder counts as its model.pt, by which documents named it before there were other forms."""
    return str(address).removesuffix(f"/{MODEL_FILE}")


def is_blocked(record: Mapping[str, Any]) -> bool:
    """Whether a guardrail has held the input back."""
    return record.get("blocked") is not None


def write_result(
    folder: Path,
    request: Record,
    one: SampleInput,
    frames_THWC: NDArray[np.uint8],
    sampling: SamplingConfig,
    seconds: float,
    num_blurred: int | None = None,
) -> Record:
    """Write the video, measure the written file, write the record.

    Args:
        folder: where results are.
        request: what was asked for.
        one: the input.
        frames_THWC: every frame, RGB.
        sampling: settings of the item.
        seconds: that it took.
        num_blurred: frames in which a face was blurred; None = nothing looked for faces.

    Returns:
        The record.
    """
    video, record = video_path(folder, one.id), record_path(folder, one.id)
    record.unlink(missing_ok=True)
    write_video(video, frames_THWC, sampling_of(one, sampling).fps)
    document = {
        **request,
        "video": video.name,
        "video_sha256": sha256_of_file(video),
        "seconds": round(seconds, 3),
        "metrics": measure(video, one, sampling, request["metrics_wanted"], request["fit"]),
    }
    if one.notes:
        document["notes"] = list(one.notes)
    if num_blurred is not None:
        document["frames_with_faces"] = num_blurred
    write_json(record, document)
    return document


def write_blocked(folder: Path, request: Record, verdict: Blocked) -> Record:
    """Write the record of an input that gets no video; a video of an earlier request goes.

    Returns:
        The record.
    """
    record = record_path(folder, request["id"])
    record.unlink(missing_ok=True)
    video_path(folder, request["id"]).unlink(missing_ok=True)
    document = {**request, "video": None, "blocked": verdict.as_record(), "metrics": {}}
    write_json(record, document)
    return document


def measure(
    video: Path,
    one: SampleInput,
    sampling: SamplingConfig,
    wanted: Sequence[str],
    fit: Fit = "stretch",
) -> dict[str, Any]:
    """Metrics of a written video file, decoded again; the ground truth is brought to its size as ``fit`` says."""
    metrics: dict[str, Any] = {}
    if not wanted:
        return metrics
    frames = read_video(video)
    if "psnr" in wanted:
        assert one.ground_truth is not None  # by check_metrics
        length, height, width = frames.shape[:3]
        truth = read_window(one.ground_truth, 0, length, height, width, fit)
        score = score_prediction(frames, truth, sampling.num_input_frames)
        metrics |= {
            "psnr_db": round(score.psnr_db, 4),
            "copy_psnr_db": round(score.copy_psnr_db, 4),
            "gain_db": round(score.gain_db, 4),
        }
    if "push" in wanted:
        push = score_push(frames, one.prompt)
        metrics |= {
            "follows": push.follows,
            "direction": push.direction,
            "displacement_px": [
                None if math.isnan(way) else round(way, 2) for way in push.displacement_px
            ],
        }
    return metrics


def write_list(folder: Path, records: Sequence[Record]) -> None:
    """Write generated.jsonl: one record a line, in the order of the inputs."""
    with atomic_write(folder / GENERATED_FILE, "w") as stream:
        for record in records:
            stream.write(json.dumps(record, sort_keys=True) + "\n")


def read_list(folder: Path) -> list[Record]:
    """Read generated.jsonl.

    Raises:
        DataError: absent or damaged.
    """
    path = folder / GENERATED_FILE
    if not path.is_file():
        raise DataError(f"{path}: no such file; run generate with this target first")
    try:
        with path.open(encoding="utf-8") as lines:  # splitlines() would split at U+2028 in a prompt
            return [json.loads(line) for line in lines]
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); run generate again") from None


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """Means over all written videos; a metric that was not measured is absent.

    Returns:
        videos, seconds_per_video, with inputs that guardrails held back blocked (how many), with prompts that
        are more than half unknown to the text encoder unknown_prompts (how many), with a search for faces
        with_faces (videos in which some were blurred), and with
        metrics mean_psnr_db, mean_copy_psnr_db, gain_db, follow_share (0 to 1).
    """
    written = [record for record in records if not is_blocked(record)]
    summary: dict[str, Any] = {"videos": len(written)}
    if len(written) < len(records):
        summary["blocked"] = len(records) - len(written)
    if unknown := count_unknown(written):
        summary["unknown_prompts"] = unknown
    if not written:
        return summary
    summary["seconds_per_video"] = round(fmean(record["seconds"] for record in written), 3)
    searched = [record["frames_with_faces"] for record in written if "frames_with_faces" in record]
    if searched:
        summary["with_faces"] = sum(count > 0 for count in searched)
    metrics = [record["metrics"] for record in written]
    if all("psnr_db" in one for one in metrics):
        mean = fmean(one["psnr_db"] for one in metrics)
        copied = fmean(one["copy_psnr_db"] for one in metrics)
        summary |= {
            "mean_psnr_db": round(mean, 3),
            "mean_copy_psnr_db": round(copied, 3),
            "gain_db": round(mean - copied, 3),
        }
    if all("follows" in one for one in metrics):
        summary["follow_share"] = round(fmean(one["follows"] for one in metrics), 4)
    return summary
