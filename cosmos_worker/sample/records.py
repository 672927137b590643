"""Results on disk: <id>.mp4 with its record <id>.json, their list generated.jsonl, and the summary of a list.

The first half of a record is the request: everything that decides the video, as JSON. The second half is the result:
the video's digest, its metrics, the seconds that it took. An input that a guardrail has blocked has a record with
``blocked`` and no video.

<id>.json is written after its video and removed before the video is replaced, so a video with a record is whole and
was made by the request in it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_worker.config.choices import Fit
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.data.video.files import (
    read_video,
    read_window,
    write_video,
)
from cosmos_worker.errors import DataError
from cosmos_worker.guardrails.verdict import Blocked
from cosmos_worker.metrics.psnr import score_prediction
from cosmos_worker.metrics.push import (
    score_push,
)
from cosmos_worker.sample.inputs import SampleInput, sampling_of
from cosmos_worker.storage.volumes import (
    GENERATED_FILE,
    MODEL_FILE,
    VIDEO_READER_VERSION,
    atomic_write,
    sha256_of_file,
    write_json,
)
from cosmos_worker.text.tokens import MOSTLY_UNKNOWN

Record = dict[str, Any]
DEFAULT_SAMPLING_ENTRIES = {"num_passes": 1}
"""Options of sampling that records of earlier versions lack → the values that those versions used."""
DEFAULT_ENTRIES = {"fit": "stretch", "video_reader": 1}
"""Other entries that records of earlier versions lack → the values that those versions used."""
UPSAMPLER_IDENTITY = "prompt_upsampler_identity"
GUARDRAILS_IDENTITY = "guardrails_identity"
AUXILIARY_IDENTITIES = (UPSAMPLER_IDENTITY, GUARDRAILS_IDENTITY)
"""Entries of a request that stand for the models of upsampler and guardrails; absent if they are not asked for."""
UNKNOWN_TEXT = "unknown_text"
"""Entry of a record: share of its prompt (0 to 1) that the text encoder does not know; absent = it knows all."""


def describe_request(
    one: SampleInput, config: GenerateConfig, digests: Mapping[str, str]
) -> Record:
    """The request of a video: everything that decides it, as JSON.

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
        "text": {**config.text.model_dump(mode="json"), "padding": config.text_padding},
        "net": config.net.model_dump(mode="json"),
        "sigma_data": config.sigma_data,
        "checkpoint": config.checkpoint_uri,
        "checkpoint_lora_scale": config.checkpoint_lora_scale,
        "metrics_wanted": list(config.metrics),
        **digests,
    }
    normalised: Record = json.loads(json.dumps(request))
    return normalised


def add_unknown_shares(
    requests: Mapping[str, Record], prompts: Mapping[str, str], shares: Mapping[str, float]
) -> dict[str, Record]:
    """Add `UNKNOWN_TEXT` to the requests whose final prompt is not wholly known to the text encoder.

    Args:
        requests: by id.
        prompts: final prompts by id.
        shares: unknown share by prompt, of those that have one.
    """
    return {
        key: {**one, UNKNOWN_TEXT: shares[prompts[key]]} if prompts.get(key) in shares else one
        for key, one in requests.items()
    }


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
    except ValueError:  # another program's file, or cut off: the video is made again
        return None
    if not isinstance(record, dict) or not _is_of(record, request):
        return None
    if is_blocked(record):
        return None if video.exists() else record
    is_whole = video.is_file() and record.get("video_sha256") == sha256_of_file(video)
    return record if is_whole else None


def _is_of(record: Record, request: Record) -> bool:
    """Say whether a record was made by a request, also one of an earlier version, which lacks later entries.

    A record made with an upsampler or guardrails that the request no longer asks for is of another request, too.
    """
    if any(record.get(name) != request.get(name) for name in AUXILIARY_IDENTITIES):
        return False
    known = {**DEFAULT_ENTRIES, **record}
    if isinstance(known.get("sampling"), dict):
        known["sampling"] = {**DEFAULT_SAMPLING_ENTRIES, **known["sampling"]}
    known["checkpoint"] = _checkpoint_name(known.get("checkpoint"))
    wanted = {**request, "checkpoint": _checkpoint_name(request["checkpoint"])}
    return all(known.get(key) == value for key, value in wanted.items())


def _checkpoint_name(address: object) -> str:
    """Address of a checkpoint without model.pt at its end: earlier documents name the file, later ones its folder."""
    return str(address).removesuffix(f"/{MODEL_FILE}")


def is_blocked(record: Mapping[str, Any]) -> bool:
    """Say whether a guardrail has blocked the input, so that it has no video."""
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
        request: of the video.
        one: the input.
        frames_THWC: every frame, uint8 RGB.
        sampling: settings of the item.
        seconds: that the video took.
        num_blurred: frames in which a face was blurred; None = no guardrail looked for faces.

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
    """Write the record of an input that gets no video, and remove the video of an earlier request.

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
        assert one.ground_truth is not None  # by checks.check_metrics
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


def remove_list(folder: Path) -> None:
    """Remove generated.jsonl, before the results that it lists are replaced."""
    (folder / GENERATED_FILE).unlink(missing_ok=True)


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
        videos (number of them) and seconds_per_video; blocked: inputs without video, if there are some;
        unknown_prompts: prompts that are more than half unknown to the text encoder, if there are some; with_faces:
        videos in which faces were blurred, if a guardrail looked for them; and of the metrics mean_psnr_db,
        mean_copy_psnr_db, gain_db and follow_share (0 to 1).
    """
    written = [record for record in records if not is_blocked(record)]
    summary: dict[str, Any] = {"videos": len(written)}
    if len(written) < len(records):
        summary["blocked"] = len(records) - len(written)
    num_unknown = sum(record.get(UNKNOWN_TEXT, 0) > MOSTLY_UNKNOWN for record in written)
    if num_unknown:
        summary["unknown_prompts"] = num_unknown
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
