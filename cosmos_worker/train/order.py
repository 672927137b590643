"""The order in which windows are seen: a function of seed and position, so that any process can continue it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError, DataError


@lru_cache(maxsize=16)  # two for each bucket
def permutation(num_samples: int, seed: int, epoch: int) -> Tensor:
    """Order of the samples in an epoch, int64 (num_samples,); kept for the next step, not to be changed."""
    generator = torch.Generator().manual_seed((seed << 32) + epoch)
    return torch.randperm(num_samples, generator=generator)


@dataclass(frozen=True)
class DataOrder:
    """An endless sequence of permutations, one an epoch.

    Args:
        num_samples: windows of the dataset.
        global_batch_size: samples per optimizer step.
        seed: of the permutations.
        digest: identity of the dataset, compared when a run is continued.
    """

    num_samples: int
    global_batch_size: int
    seed: int
    digest: str

    def __post_init__(self) -> None:
        if self.num_samples < self.global_batch_size:
            raise DataError(
                f"dataset: {self.num_samples} training windows are fewer than one batch of "
                f"{self.global_batch_size}; lower trainer.global_batch_size or add data"
            )

    def batch(self, step: int) -> list[int]:
        """Samples of optimizer step ``step``; batches run on across the end of an epoch."""
        epoch, offset = divmod(step * self.global_batch_size, self.num_samples)
        samples = permutation(self.num_samples, self.seed, epoch)[offset:]
        if len(samples) < self.global_batch_size:
            samples = torch.cat([samples, permutation(self.num_samples, self.seed, epoch + 1)])
        first: list[int] = samples[: self.global_batch_size].tolist()
        return first

    def epochs(self, step: int) -> list[int]:
        """The epoch that each sample of :meth:`batch` belongs to."""
        first = step * self.global_batch_size
        return [(first + i) // self.num_samples for i in range(self.global_batch_size)]

    def state(self, step: int) -> dict[str, int | str]:
        """What a checkpoint after ``step`` steps stores."""
        return {**asdict(self), "position": step * self.global_batch_size}

    def check_state(self, state: dict[str, int | str], where: str) -> None:
        """Compare with a checkpoint.

        Raises:
            CheckpointError: another dataset, batch size or seed.
        """
        differing = [
            f"{name} (checkpoint {state.get(name)!r}, now {value!r})"
            for name, value in asdict(self).items()
            if state.get(name) != value
        ]
        if differing:
            raise CheckpointError(
                f"{where}: was trained on another data order: {', '.join(differing)}; "
                "continue with the same dataset and batch size, or start a run of another name"
            )
