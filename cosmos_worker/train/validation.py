"""Held-out losses at fixed noise: under the training's own distribution, and at chosen noise levels.

A window whose clip has several captions has the first of them, so that losses of different steps are comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import TrainerConfig
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.dtensor import reshard
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train.data import WindowDataset
from cosmos_worker.train.ema import PowerEma
from cosmos_worker.train.noise import (
    draw_noise,
    draw_noise_of_level,
)
from cosmos_worker.train.step import batch_loss

D = TypeVar("D")
T = TypeVar("T")
NoiseOf = Callable[[Sequence[int], Sequence[int], D], Noise]
"""Noise for latents of a shape (C, T, H, W), of these windows, in this draw."""


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean EDM loss over held-out windows.

    Attributes:
        loss: at noise drawn as in training.
        by_sigma: at each of ``trainer.validation_sigmas``.
        of_average: as ``loss``, with the averaged weights; None = not taken.
    """

    loss: float
    by_sigma: dict[float, float] = field(default_factory=dict)
    of_average: float | None = None

    def rounded(self) -> HeldOutLoss:
        """Losses rounded to the six significant digits that are written, so that all files agree."""

        def digits(value: float) -> float:
            return float(f"{value:.6g}")

        levels = {sigma: digits(value) for sigma, value in self.by_sigma.items()}
        average = None if self.of_average is None else digits(self.of_average)
        return HeldOutLoss(digits(self.loss), levels, average)


def check_held_out(experiment: Experiment, held_out: WindowDataset) -> None:
    """Raise ConfigError if an option needs held-out windows and there are none."""
    trainer = experiment.trainer
    wanted = {
        "trainer.validation_sigmas": bool(trainer.validation_sigmas),
        "trainer.keep_best": trainer.keep_best,
        "trainer.sample_every_steps": trainer.sample_every_steps is not None,
    }
    asked = [name for name, is_asked in wanted.items() if is_asked]
    if asked and not len(held_out):
        raise ConfigError(
            f"{', '.join(asked)}: the dataset has no usable clip in its split val; add some, or leave the option out"
        )


def choose_windows(held_out: WindowDataset, count: int | None) -> list[int]:
    """Numbers of the held-out windows whose loss is taken, ascending: as many of each clip, evenly over its length.

    Args:
        held_out: all held-out windows.
        count: how many at most; None = all. With more clips than that, every so many-th clip gives one.
    """
    of_clips: dict[str, list[int]] = {}
    for number, window in enumerate(held_out.windows):
        of_clips.setdefault(window.clip_id, []).append(number)
    wanted = len(held_out) if count is None else min(count, len(held_out))
    quotas = dict.fromkeys(of_clips, 0)
    while wanted:
        unspent = [clip for clip, numbers in of_clips.items() if quotas[clip] < len(numbers)]
        for clip in _evenly(unspent, min(wanted, len(unspent))):
            quotas[clip] += 1
            wanted -= 1
    return sorted(
        number for clip, numbers in of_clips.items() for number in _evenly(numbers, quotas[clip])
    )


def _evenly(items: Sequence[T], count: int) -> list[T]:
    """So many of the items, each from the middle of an equal part of them."""
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def describe_held_out(held_out: WindowDataset, options: TrainerConfig) -> str:
    """One log line: of how many of the held-out windows the losses are taken."""
    chosen = choose_windows(held_out, options.validation_windows)
    clips = {held_out.windows[number].clip_id for number in chosen}
    all_clips = {window.clip_id for window in held_out.windows}
    hint = "" if len(chosen) == len(held_out) else "; trainer.validation_windows sets how many"
    return (
        f"held-out losses windows={len(chosen)} of {len(held_out)} clips={len(clips)} of {len(all_clips)} "
        f"draws={options.validation_draws}{hint}"
    )


@torch.no_grad()
def held_out_loss(
    model: CosmosModel,
    held_out: WindowDataset,
    experiment: Experiment,
    processes: ProcessGroup,
    ema: PowerEma | None = None,
) -> HeldOutLoss:
    """Losses over the chosen windows, with the weights as they are now; the processes divide the windows.

    Losses at noise levels are comparable between experiments: one known frame with the noise of sampling, nothing
    dropped, the mean over generated frames only, noise that depends on window and level only.

    Args:
        model: the network, sharded or not.
        held_out: all held-out windows.
        experiment: of the run.
        processes: of the run; all of them call this.
        ema: the average, if its loss is to be taken too; None = it is not.
    """
    options = experiment.trainer
    chosen = choose_windows(held_out, options.validation_windows)
    batches = _micro_batches(held_out, chosen, options.least_micro_batch)

    def of_training(shape: Sequence[int], samples: Sequence[int], draw: int) -> Noise:
        return draw_noise(shape, experiment, "validation", draw, samples)

    def of_level(shape: Sequence[int], samples: Sequence[int], sigma: float) -> Noise:
        known = min(1, experiment.conditioning.max_cond_latent_frames, shape[1] - 1)
        names = [held_out.windows[sample].window_id for sample in samples]
        return draw_noise_of_level(shape, sigma, known, names)

    def mean(draws: Sequence[D], noise_of: NoiseOf[D], *, only_generated: bool) -> float:
        work = [(samples, draw) for samples in batches for draw in draws]
        return _mean_loss(
            model, held_out, experiment, processes, work, noise_of, only_generated=only_generated
        )

    def at_noise_of_training() -> float:
        draws = range(options.validation_draws)
        only_generated = not experiment.compat.known_frames_in_loss
        return mean(draws, of_training, only_generated=only_generated)

    loss = at_noise_of_training()
    levels = {
        sigma: mean([sigma], of_level, only_generated=True) for sigma in options.validation_sigmas
    }
    if ema is None:
        return HeldOutLoss(loss, levels)
    with ema.in_use(model):
        of_average = at_noise_of_training()
    reshard(model)
    return HeldOutLoss(loss, levels, of_average)


def _mean_loss(
    model: CosmosModel,
    held_out: WindowDataset,
    experiment: Experiment,
    processes: ProcessGroup,
    work: Sequence[tuple[Sequence[int], D]],
    noise_of: NoiseOf[D],
    *,
    only_generated: bool,
) -> float:
    """The mean over batches of windows, each with a draw of noise, which the processes divide."""
    totals = torch.zeros(2, device=processes.device)
    for i in range(-(-len(work) // processes.data_size)):
        item = i * processes.data_size + processes.data_rank
        # the network may be sharded over all processes, so those without work repeat some
        samples, draw = work[item % len(work)]
        batch = held_out.batch(samples)
        noise = noise_of(batch.x0_BCTHW.shape[1:], samples, draw)
        loss = batch_loss(
            model,
            batch,
            noise,
            experiment.diffusion,
            processes.device,
            only_generated=only_generated,
        )
        if item < len(work):
            totals += torch.stack([loss.edm, torch.ones_like(loss.edm)]) * len(samples)
    total, count = processes.mean(totals).tolist()
    return float(total / count)


def _micro_batches(held_out: WindowDataset, chosen: Sequence[int], size: int) -> list[list[int]]:
    """The chosen windows by number, at most ``size`` together, each batch of one bucket."""
    wanted = set(chosen)
    batches = []
    for members in held_out.members.values():
        own = [number for number in members.tolist() if number in wanted]
        batches += [own[i : i + size] for i in range(0, len(own), size)]
    return batches
