"""Training samples: cached latents and text embeddings of windows, put together on the CPU."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.config.experiment import (
    LATENT_SCALE,
    Experiment,
)
from cosmos_worker.data.buckets import bucket_sizes, group_windows
from cosmos_worker.data.captions import leave_out_unknown
from cosmos_worker.data.index import Window, read_index
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.process_group import Processes
from cosmos_worker.text.embeddings import CaptionFacts, EmbeddingStore, pad_text
from cosmos_worker.tokenizer.latents import LatentStore
from cosmos_worker.train.noise import draw_caption


@dataclass(frozen=True)
class Batch:
    """x0_BCTHW: latents scaled to sigma_data; text_BSD: embeddings; fps_B."""

    x0_BCTHW: Tensor
    text_BSD: Tensor
    fps_B: Tensor


class WindowDataset:
    """Windows of one split with their latents and captions, without those whose captions the encoder does not know.

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
        words = leave_out_unknown(read_index(index_folder), CaptionFacts(embeddings_folder))
        self.words, self.index = words, words.index
        self.windows: list[Window] = self.index.windows(split)
        self.sizes = bucket_sizes(experiment.video, experiment.buckets)
        self.members = _members(
            group_windows(self.windows, self.sizes, str(index_folder)), self.windows
        )
        self.latents = LatentStore(latents_folder)
        self.embeddings = EmbeddingStore(embeddings_folder)
        self.experiment = experiment

    def __len__(self) -> int:
        return len(self.windows)

    @property
    def digest(self) -> str:
        """Identity of the samples and their order."""
        names = "\n".join(
            f"{window.window_id} {' | '.join(self.index.clip(window.clip_id).captions)}"
            + (f" {window.bucket}" if window.bucket else "")
            for window in self.windows
        )
        return hashlib.sha256(names.encode()).hexdigest()[:16]

    def latent_shape(self, bucket: str | None) -> tuple[int, int, int, int]:
        """(C, T, H, W) of the samples of a bucket; None without buckets."""
        video, experiment = self.sizes[bucket], self.experiment
        return (
            experiment.net.latent_channels,
            experiment.latent_frames(video),
            video.height // LATENT_SCALE,
            video.width // LATENT_SCALE,
        )

    def captions(self, samples: Sequence[int], epochs: Sequence[int] | None = None) -> list[str]:
        """The caption of each sample.

        Args:
            samples: which.
            epochs: in which epoch each is seen: of several captions one is drawn for it; None = the first caption.
        """
        clips = [self.index.clip(self.windows[sample].clip_id) for sample in samples]
        if epochs is None:
            return [clip.caption for clip in clips]
        seed = self.experiment.trainer.seed
        return [
            clip.captions[
                draw_caption(len(clip.captions), seed, self.windows[sample].window_id, epoch)
            ]
            for clip, sample, epoch in zip(clips, samples, epochs, strict=True)
        ]

    def batch(self, samples: Sequence[int], epochs: Sequence[int] | None = None) -> Batch:
        """Put samples of one bucket together, with captions as :meth:`captions` gives them.

        Raises:
            DataError: a latent or an embedding that is missing, not finite, or of another size.
        """
        windows = [self.windows[sample] for sample in samples]
        clips = [self.index.clip(window.clip_id) for window in windows]
        bucket = windows[0].bucket
        latents = torch.stack(
            [self._latent(window, self.latent_shape(bucket)) for window in windows]
        )
        text = self.experiment.text
        fps = [self.sizes[bucket].fps or clip.fps for clip in clips]
        return Batch(
            latents * self.experiment.diffusion.sigma_data,
            pad_text(
                [self.embeddings.get(caption) for caption in self.captions(samples, epochs)],
                text.max_length,
                text.padding,
            ),
            torch.tensor(fps, dtype=torch.float32),
        )

    def _latent(self, window: Window, shape: tuple[int, int, int, int]) -> Tensor:
        latent = self.latents.get(window.window_id).float()
        if latent.shape != shape:
            raise DataError(
                f"window {window.window_id}: its latent is {tuple(latent.shape)}, the experiment's are {shape} "
                "(channels, frames, rows, columns); run cache-latents for this experiment"
            )
        return latent


def check_same_windows(datasets: Mapping[str, WindowDataset], processes: Processes) -> None:
    """Compare the windows of all processes, each of which leaves out the captions that it sees as unknown.

    Args:
        datasets: by split.
        processes: all of them call this.

    Raises:
        RetryableError: a node sees other files, such as an older listing of a network disk.
    """
    own = {
        split: f"{len(dataset)} windows of digest {dataset.digest}, {len(dataset.words.dropped)} clips left out"
        for split, dataset in datasets.items()
    }
    everyone = processes.gather((socket.gethostname(), own))
    for rank, (node, seen) in enumerate(everyone):
        first_node, first = everyone[0]
        for split, text in seen.items():
            if text != first[split]:
                raise RetryableError(
                    f"dataset: the {split} windows of process {rank} on node {node} are not those of process 0 on node "
                    f"{first_node}: {text}; instead of {first[split]}; the nodes see other files of the dataset or the "
                    "embeddings, such as an older listing of a network disk: start again, and if it comes again, let "
                    "all nodes mount the same volumes"
                )


def _members(
    groups: Mapping[str | None, Sequence[Window]], windows: Sequence[Window]
) -> dict[str | None, Tensor]:
    """Samples of each bucket: numbers of its windows among all, int64."""
    numbers = {window.window_id: number for number, window in enumerate(windows)}
    return {
        name: torch.tensor([numbers[window.window_id] for window in group], dtype=torch.int64)
        for name, group in groups.items()
    }
