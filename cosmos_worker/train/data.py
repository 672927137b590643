"""Training samples: cached latents and text embeddings of windows, put together on the CPU, and their checks."""

from __future__ import annotations

import hashlib
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import LATENT_SCALE
from cosmos_worker.data.buckets import bucket_sizes, group_windows
from cosmos_worker.data.captions import CAPTION_UNKNOWN, leave_out_unknown, name_clips
from cosmos_worker.data.index import Window, read_index
from cosmos_worker.errors import ConfigError, DataError, RetryableError
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.storage.volumes import WORDS_FILE, write_json
from cosmos_worker.text.embeddings import CaptionFacts, EmbeddingStore, pad_text
from cosmos_worker.text.words import count_words
from cosmos_worker.tokenizer.latents import LatentStore
from cosmos_worker.train.noise import draw_caption

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """Tensors of a micro-batch, on the CPU.

    Attributes:
        x0_BCTHW: clean latents times sigma_data, float32.
        text_BSD: text embeddings, zeros where padded.
        fps_B: frames per second.
    """

    x0_BCTHW: Tensor
    text_BSD: Tensor
    fps_B: Tensor


class WindowDataset:
    """Windows of one split with latents and captions, without clips whose captions the text encoder does not know.

    Args:
        index_folder, embeddings_folder, latents_folder: results of prepare-dataset, embed-text and cache-latents.
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
            samples: numbers of windows.
            epochs: epoch of each sample, for which one of several captions is drawn; None = the first caption.
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
                self.experiment.text_padding,
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


def micro_batch_positions(
    global_batch_size: int, micro_batch_size: int, rank: int, world_size: int
) -> list[range]:
    """Positions in the global batch of each micro-batch of a process.

    Args:
        global_batch_size: samples of an optimizer step.
        micro_batch_size: samples of a forward pass, at most.
        rank: number of the process's context group, see :attr:`ProcessGroup.data_rank`.
        world_size: number of these groups.

    Raises:
        ConfigError: sizes that do not divide.
    """
    if global_batch_size % world_size:
        raise ConfigError(
            f"trainer.global_batch_size: {global_batch_size} is not a multiple of the {world_size} processes"
        )
    local = global_batch_size // world_size
    micro = min(micro_batch_size, local)
    if local % micro:
        raise ConfigError(
            f"trainer.micro_batch_size: {micro} does not divide the {local} samples of each process "
            f"(global_batch_size {global_batch_size} over {world_size} processes)"
        )
    first = rank * local
    return [range(start, start + micro) for start in range(first, first + local, micro)]


def check_same_windows(datasets: Mapping[str, WindowDataset], processes: ProcessGroup) -> None:
    """Compare the windows of all processes, each of which has left out clips with unknown captions by itself.

    Args:
        datasets: by split.
        processes: of the run; all of them call this.

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


# --- captions that the text encoder does not know ------------------------------------------------


def check_enough_windows(dataset: WindowDataset, global_batch_size: int) -> None:
    """Raise DataError if clips were left out because of their captions and fewer windows than a batch remain."""
    dropped = [name for name in dataset.words.dropped if name.startswith("train/")]
    if dropped and len(dataset) < global_batch_size:
        raise DataError(
            f"dataset: {len(dataset)} training windows are left without {len(dropped)} clips whose captions are more "
            f"than half unknown to the text encoder ({name_clips(dropped)}), fewer than one batch of "
            f"{global_batch_size}; translate these captions, use an encoder that knows their characters, or lower "
            "trainer.global_batch_size"
        )


def describe_caption_losses(index_folder: Path, store: Path, max_length: int) -> dict[str, Any]:
    """Count the captions that the text encoder truncates or does not know.

    Args:
        index_folder: result of prepare-dataset.
        store: result of embed-text.
        max_length: tokens that the encoder was given of each caption.

    Returns:
        captions: number of distinct captions in all splits; truncated, with_unknown, unknown: how many of these, see
        ``WordCounts``; dropped_clips: ids of the clips that are left out, and reason: why.
    """
    index, facts = read_index(index_folder), CaptionFacts(store)
    left = leave_out_unknown(index, facts)
    if left.num_unnoted:
        logger.warning(
            "%s: of %d captions nothing is noted, so unknown ones among them are trained on; run embed-text again",
            store, left.num_unnoted,
        )  # fmt: skip
    return {
        "captions": len(index.captions),
        **count_words(facts, index.captions, max_length).as_dict(),
        "reason": CAPTION_UNKNOWN,
        "dropped_clips": list(left.dropped),
    }


def report_caption_losses(run: Path, words: dict[str, Any]) -> None:
    """Log the result of :func:`describe_caption_losses`, and write it into the run's folder for the report."""
    dropped = words["dropped_clips"]
    logger.info(
        "words captions=%d truncated=%d with_unknown=%d unknown=%d left_out_clips=%d",
        words["captions"], words["truncated"], words["with_unknown"], words["unknown"], len(dropped),
    )  # fmt: skip
    if dropped:
        logger.warning(
            "left out clips=%d reason=%s: %s", len(dropped), CAPTION_UNKNOWN, name_clips(dropped)
        )
    write_json(run / WORDS_FILE, words)
