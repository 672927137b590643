"""Held-out losses at fixed noise: under the training's own distribution, and at chosen noise levels.

A window whose clip has several captions has the first of them, so that losses of different steps are comparable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train.data import WindowDataset
from cosmos_worker.train.noise import (
    draw_noise,
    draw_noise_of_level,
)
from cosmos_worker.train.step import batch_loss

D = TypeVar("D")


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean EDM loss over held-out windows.

    Attributes:
        loss: at noise drawn as in training.
        by_sigma: at each of ``trainer.validation_sigmas``.
    """

    loss: float
    by_sigma: dict[float, float] = field(default_factory=dict)

    def rounded(self) -> HeldOutLoss:
        """Losses rounded to the six significant digits that are written, so that all files agree."""

        def digits(value: float) -> float:
            return float(f"{value:.6g}")

        levels = {sigma: digits(value) for sigma, value in self.by_sigma.items()}
        return HeldOutLoss(digits(self.loss), levels)


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


@torch.no_grad()
def held_out_loss(
    model: CosmosModel,
    held_out: WindowDataset,
    experiment: Experiment,
    processes: ProcessGroup,
) -> HeldOutLoss:
    """Losses with the weights as they are now, not their average; the processes divide the windows.

    Losses at noise levels are comparable between experiments: one known frame with the noise of sampling, nothing
    dropped, the mean over generated frames only, noise that depends on window and level only.
    """
    options = experiment.trainer

    def of_training(shape: Sequence[int], samples: Sequence[int], draw: int) -> Noise:
        return draw_noise(shape, experiment, "validation", draw, samples)

    def of_level(shape: Sequence[int], samples: Sequence[int], sigma: float) -> Noise:
        known = min(1, experiment.conditioning.max_cond_latent_frames, shape[1] - 1)
        names = [held_out.windows[sample].window_id for sample in samples]
        return draw_noise_of_level(shape, sigma, known, names)

    def mean(
        draws: Sequence[D],
        noise_of: Callable[[Sequence[int], Sequence[int], D], Noise],
        *,
        only_generated: bool,
    ) -> float:
        batches = _micro_batches(held_out, options.micro_batch_size)
        work = [(samples, draw) for samples in batches for draw in draws]
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

    loss = mean(
        range(options.validation_draws),
        of_training,
        only_generated=not experiment.compat.known_frames_in_loss,
    )
    levels = {
        sigma: mean([sigma], of_level, only_generated=True) for sigma in options.validation_sigmas
    }
    return HeldOutLoss(loss, levels)


def _micro_batches(held_out: WindowDataset, size: int) -> list[list[int]]:
    """All held-out windows by number, at most ``size`` together, each batch of one bucket."""
    return [
        samples.tolist()
        for members in held_out.members.values()
        for samples in members.split(size)
        if len(samples)
    ]
