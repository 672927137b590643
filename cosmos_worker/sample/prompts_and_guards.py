"""Upsampler and guardrails in the order in which a video meets them: prompts before the sampling, frames after it.

Each model is loaded for all inputs at once and given back before the next; only the video filter and the blur of
faces stay while videos are sampled, so that no frame is written that they have not seen.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config.stages import (
    GenerateConfig,
    GuardrailsConfig,
)
from cosmos_worker.guardrails import (
    retinaface,
    text_classifier,
    upsampler,
    video,
)
from cosmos_worker.guardrails.faces import FaceBlur
from cosmos_worker.guardrails.pretrained import (
    folder_identity,
    give_back_memory,
)
from cosmos_worker.guardrails.text import (
    Blocklist,
    list_files,
)
from cosmos_worker.guardrails.verdict import (
    VIDEO_FILTER,
    Blocked,
)
from cosmos_worker.guardrails.video import VideoFilter
from cosmos_worker.sample.conditioning import read_last_known_frame
from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.sample.records import GUARDRAILS_IDENTITY, UPSAMPLER_IDENTITY
from cosmos_worker.storage.volumes import (
    FACE_FILE,
    FILTER_FILE,
    Volumes,
    sha256_of_file,
)


@dataclass(frozen=True)
class Seen:
    """A video that may be written.

    Attributes:
        frames_THWC: every frame, RGB.
        num_blurred: frames in which a face was blurred; None = nothing looked for faces.
    """

    frames_THWC: NDArray[np.uint8]
    num_blurred: int | None = None


@dataclass(frozen=True)
class FrameGuards:
    """What looks at the frames of a video before it is written.

    Attributes:
        judge: says which are safe.
        face_blur: blurs the faces of those that are; None = nothing does.
    """

    judge: VideoFilter
    face_blur: FaceBlur | None

    def apply(self, frames_THWC: NDArray[np.uint8]) -> Blocked | Seen:
        """Judge, then blur.

        Args:
            frames_THWC: every frame, RGB.

        Returns:
            What is wrong with the video, or what may be written.

        Raises:
            DataError: a frame that cannot be judged, or whose faces cannot be found.
        """
        verdict = self.judge.check(frames_THWC)
        if verdict is not None:
            return verdict
        if self.face_blur is None:
            return Seen(frames_THWC)
        return Seen(*self.face_blur.blur(frames_THWC))


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prompts:
    """What is left of the inputs once their prompts are written and judged.

    Attributes:
        final: id → the prompt that the network is given.
        blocked: id → why a pending input gets no video.
        sampled: inputs that are sampled, finished ones included, in the order given.
    """

    final: dict[str, str]
    blocked: dict[str, Blocked]
    sampled: list[SampleInput]


def identify_companions(config: GenerateConfig, volumes: Volumes) -> dict[str, str]:
    """Check everything that upsampler and guardrails need, before any long work.

    Returns:
        What decides their answers, by name; nothing for what is not asked for.

    Raises:
        CheckpointError: a folder that is absent or not what it should be, or a package that it needs is.
        DataError: word lists that are absent or damaged.
    """
    found = {}
    if config.prompt_upsampler_uri is not None:
        folder = volumes.resolve(config.prompt_upsampler_uri)
        upsampler.check_folder(folder)
        found[UPSAMPLER_IDENTITY] = folder_identity(folder)
    if config.guardrails is not None:
        found[GUARDRAILS_IDENTITY] = _identify_guardrails(config.guardrails, volumes)
    return found


def _identify_guardrails(config: GuardrailsConfig, volumes: Volumes) -> str:
    folder = volumes.resolve(config.folder_uri)
    classifier = volumes.resolve(config.text_classifier_uri)
    encoder = volumes.resolve(config.image_encoder_uri)
    Blocklist(folder)
    text_classifier.check_folder(classifier)
    video.check_encoder(encoder)
    video.read_classifier(folder / FILTER_FILE)
    files = [*list_files(folder), folder / FILTER_FILE]
    if config.face_blur:
        retinaface.read_detector(folder / FACE_FILE)
        files.append(folder / FACE_FILE)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder)}:{sha256_of_file(path)}:".encode())
    for part in (classifier, encoder):
        digest.update(folder_identity(part).encode())
    return digest.hexdigest()[:20]


@dataclass(frozen=True)
class Companions:
    """Upsampler and guardrails of a document, loaded when their turn comes.

    Attributes:
        config: the stage's document.
        volumes: where its folders are.
        device: where to compute.
        dtype: of the weights of the models that read and write text.
    """

    config: GenerateConfig
    volumes: Volumes
    device: torch.device
    dtype: torch.dtype

    def prepare_prompts(
        self, inputs: Sequence[SampleInput], finished: Mapping[str, Mapping[str, Any] | None]
    ) -> Prompts:
        """Write and judge the prompts of all inputs without a result; those of finished ones are in their records.

        Args:
            inputs: all inputs.
            finished: id → record of a finished result, or None.
        """
        records = {key: record for key, record in finished.items() if record is not None}
        pending = [one for one in inputs if one.id not in records]
        final = {key: one.get("final_prompt", one["prompt"]) for key, one in records.items()}
        final |= self._upsample(pending)
        blocked = self._screen(pending, final)
        held = {key for key, record in records.items() if _was_held(record)} | set(blocked)
        return Prompts(final, blocked, [one for one in inputs if one.id not in held])

    def _upsample(self, pending: Sequence[SampleInput]) -> dict[str, str]:
        if self.config.prompt_upsampler_uri is None or not pending:
            return {one.id: one.prompt for one in pending}
        folder = self.volumes.resolve(self.config.prompt_upsampler_uri)
        writer = upsampler.PromptUpsampler(folder, self.device, self.dtype)
        texts = {}
        for one in pending:
            frame = read_last_known_frame(one, self.config.sampling, self.config.fit)
            texts[one.id] = writer.write(one.prompt, frame)
            logger.info("upsampled id=%s prompt=%r", one.id, texts[one.id])
        del writer
        give_back_memory()
        return texts

    def _screen(
        self, pending: Sequence[SampleInput], final: Mapping[str, str]
    ) -> dict[str, Blocked]:
        """The user's prompt and the one that the network would be given: the first that is wrong blocks."""
        guards = self.config.guardrails
        if guards is None:
            return {}
        texts = {one.id: list(dict.fromkeys((one.prompt, final[one.id]))) for one in pending}
        blocked = _first_wrong(Blocklist(self.volumes.resolve(guards.folder_uri)), texts)
        rest = {key: value for key, value in texts.items() if key not in blocked}
        if rest:
            folder = self.volumes.resolve(guards.text_classifier_uri)
            classifier = text_classifier.TextClassifier(folder, self.device, self.dtype)
            blocked |= _first_wrong(classifier, rest)
            del classifier
            give_back_memory()
        for key, verdict in blocked.items():
            logger.warning("blocked id=%s by=%s reason=%s", key, verdict.by, verdict.reason)
        return blocked

    def load_frame_guards(self) -> FrameGuards | None:
        """What looks at frames, if guardrails are asked for.

        Raises:
            CheckpointError: its folders are not what they should be.
        """
        guards = self.config.guardrails
        if guards is None:
            return None
        folder = self.volumes.resolve(guards.folder_uri)
        encoder = self.volumes.resolve(guards.image_encoder_uri)
        return FrameGuards(
            video.VideoFilter(folder, encoder, self.device),
            FaceBlur(folder, self.device) if guards.face_blur else None,
        )


def _was_held(record: Mapping[str, Any]) -> bool:
    """Whether a finished input was blocked before it was sampled."""
    verdict = record.get("blocked")
    return verdict is not None and verdict["by"] != VIDEO_FILTER


def _first_wrong(
    judge: Blocklist | text_classifier.TextClassifier, texts: Mapping[str, Sequence[str]]
) -> dict[str, Blocked]:
    found = {}
    for key, prompts in texts.items():
        verdict = next((wrong for text in prompts if (wrong := judge.check(text))), None)
        if verdict is not None:
            found[key] = verdict
    return found
