"""The guardrails of a document in the order in which a video meets them: first its prompts, then its frames.

Prompts meet the word lists and the text classifier before anything is sampled. Frames meet the video filter and then
the face blur before they are written. Each model is loaded when its turn comes. The list of inputs is not known here:
prompts are texts by id, videos are arrays.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cosmos_worker.config.stages import GuardrailsConfig
from cosmos_worker.guardrails import retinaface, text_classifier, video_filter
from cosmos_worker.guardrails.blocklist import Blocklist, list_files
from cosmos_worker.guardrails.faces import FaceBlur
from cosmos_worker.guardrails.pretrained import folder_identity, give_back_memory
from cosmos_worker.guardrails.text_classifier import TextClassifier
from cosmos_worker.guardrails.verdict import Blocked
from cosmos_worker.guardrails.video_filter import VideoFilter
from cosmos_worker.storage.volumes import FACE_FILE, FILTER_FILE, Volumes, sha256_of_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FilteredFrames:
    """A video that the guardrails let pass, ready to be written.

    Attributes:
        frames_THWC: every frame, uint8 RGB; faces are pixelated if a guardrail does that.
        num_blurred: frames in which a face was blurred; None if no guardrail looked for faces.
    """

    frames_THWC: NDArray[np.uint8]
    num_blurred: int | None = None


@dataclass(frozen=True)
class FrameGuardrails:
    """The guardrails of frames, with their models loaded.

    Attributes:
        video_filter: finds unsafe frames.
        face_blur: blurs the faces of safe frames; None if faces are not blurred.
    """

    video_filter: VideoFilter
    face_blur: FaceBlur | None

    def filter_frames(self, frames_THWC: NDArray[np.uint8]) -> Blocked | FilteredFrames:
        """Judge a video, then blur its faces.

        Args:
            frames_THWC: every frame, uint8 RGB; not changed.

        Returns:
            The reason why the video must not be written, or the frames that may be.

        Raises:
            DataError: a frame that cannot be judged, or whose faces cannot be found.
        """
        verdict = self.video_filter.check(frames_THWC)
        if verdict is not None:
            return verdict
        if self.face_blur is None:
            return FilteredFrames(frames_THWC)
        return FilteredFrames(*self.face_blur.blur(frames_THWC))


@dataclass(frozen=True)
class Guardrails:
    """Folders of the guardrails on this machine; no model is loaded yet.

    Attributes:
        folder: word lists, classifier of the video filter, and the network that finds faces.
        text_classifier: a chat model of the Llama Guard kind.
        image_encoder: the SigLIP model whose features the video filter classifies.
        face_blur: whether faces are blurred.
    """

    folder: Path
    text_classifier: Path
    image_encoder: Path
    face_blur: bool

    @classmethod
    def from_config(cls, config: GuardrailsConfig, volumes: Volumes) -> Guardrails:
        """The guardrails of a document, whose addresses the volumes resolve."""
        return cls(
            volumes.resolve(config.folder_uri),
            volumes.resolve(config.text_classifier_uri),
            volumes.resolve(config.image_encoder_uri),
            config.face_blur,
        )

    def identify(self) -> str:
        """Check all files that the guardrails need, before any long work, and digest them.

        Returns:
            20 hex digits that stand for everything that decides the verdicts.

        Raises:
            CheckpointError: a folder or a package is absent, or a folder holds another model.
            DataError: word lists that are absent or damaged.
        """
        Blocklist(self.folder)
        text_classifier.check_folder(self.text_classifier)
        video_filter.check_encoder(self.image_encoder)
        video_filter.read_classifier(self.folder / FILTER_FILE)
        files = [*list_files(self.folder), self.folder / FILTER_FILE]
        if self.face_blur:
            retinaface.read_detector(self.folder / FACE_FILE)
            files.append(self.folder / FACE_FILE)
        digest = hashlib.sha256()
        for path in files:
            digest.update(f"{path.relative_to(self.folder)}:{sha256_of_file(path)}:".encode())
        for part in (self.text_classifier, self.image_encoder):
            digest.update(folder_identity(part).encode())
        return digest.hexdigest()[:20]

    def judge_prompts(
        self, texts: Mapping[str, Sequence[str]], device: torch.device, dtype: torch.dtype
    ) -> dict[str, Blocked]:
        """Judge the texts of each input by the word lists, then those that pass by the text classifier.

        Args:
            texts: id → texts of one input, such as its prompt and the upsampled prompt; the first bad one blocks it.
            device: where the classifier computes.
            dtype: of the classifier's weights.

        Returns:
            Id → verdict, of the inputs that are blocked.

        Raises:
            CheckpointError: the classifier cannot be loaded.
            DataError: word lists that are absent or damaged.
        """
        blocked = _first_verdicts(Blocklist(self.folder), texts)
        rest = {key: value for key, value in texts.items() if key not in blocked}
        if rest:
            classifier = TextClassifier(self.text_classifier, device, dtype)
            blocked |= _first_verdicts(classifier, rest)
            del classifier
            give_back_memory()
        for key, verdict in blocked.items():
            logger.warning("blocked id=%s by=%s reason=%s", key, verdict.by, verdict.reason)
        return blocked

    def load_for_frames(self, device: torch.device) -> FrameGuardrails:
        """Load the guardrails of frames; they stay loaded while videos are sampled.

        Raises:
            CheckpointError: a model cannot be loaded.
        """
        return FrameGuardrails(
            VideoFilter(self.folder, self.image_encoder, device),
            FaceBlur(self.folder, device) if self.face_blur else None,
        )


def _first_verdicts(
    judge: Blocklist | TextClassifier, texts: Mapping[str, Sequence[str]]
) -> dict[str, Blocked]:
    """Id → the first verdict on one of its texts, of the ids that have one."""
    found = {}
    for key, of_input in texts.items():
        verdict = next((wrong for text in of_input if (wrong := judge.check(text))), None)
        if verdict is not None:
            found[key] = verdict
    return found
