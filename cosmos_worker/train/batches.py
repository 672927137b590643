"""Training samples: cached latents and text embeddings of windows, put together on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.data.index import Window, read_index
from cosmos_worker.options import Experiment
from cosmos_worker.text.batch import pad_text
from cosmos_worker.text.store import EmbeddingStore
from cosmos_worker.tokenizer.store import LatentStore


@dataclass(frozen=True)
class Batch:
    """x0_BCTHW: latents scaled to sigma_data; text_BSD: embeddings; fps_B."""

    x0_BCTHW: Tensor
    text_BSD: Tensor
    fps_B: Tensor


class WindowDataset:
    """Windows of one split with their latents and captions.

    Args:
        index_folder, embeddings_folder, latents_folder: results of the stages before training.
        split: train or val.
        experiment: sizes and text options.
    """

    def __init__(
        self,
        index_folder: Path,
        embeddings_folder: Path,
        latents_folder: Path,
        split: str,
        experiment: Experiment,
    ) -> None:
        self.index = read_index(index_folder)
        self.windows: list[Window] = self.index.windows(split)
        self.latents = LatentStore(latents_folder)
        self.embeddings = EmbeddingStore(embeddings_folder)
        self.experiment = experiment

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def digest(self) -> str:
        """Identity of the samples and their order."""
        names = "\n".join(
            f"{window.window_id} {self.index.clip(window.clip_id).caption}"
            for window in self.windows
        )
        return hashlib.sha256(names.encode()).hexdigest()[:16]

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """(C, T, H, W) of one sample."""
        video, net = self.experiment.video, self.experiment.net
        return (
            net.latent_channels,
            self.experiment.num_latent_frames,
            video.height // 8,
            video.width // 8,
        )

    def batch(self, samples: Sequence[int]) -> Batch:
        """Put samples together.

        Raises:
            DataError: a latent or an embedding that is missing or not finite.
        """
        windows = [self.windows[sample] for sample in samples]
        clips = [self.index.clip(window.clip_id) for window in windows]
        latents = torch.stack([self.latents.get(window.window_id).float() for window in windows])
        text = self.experiment.text
        fps = [self.experiment.video.fps or clip.fps for clip in clips]
        return Batch(
            latents * self.experiment.diffusion.sigma_data,
            pad_text(
                [self.embeddings.get(clip.caption) for clip in clips], text.max_length, text.padding
            ),
            torch.tensor(fps, dtype=torch.float32),
        )
