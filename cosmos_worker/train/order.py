"""The order in which windows are seen: a function of seed and position, by bucket where there are several.

Every bucket is an endless sequence of permutations of its own, as :class:`DataOrder` has it, cut into batches. What is
left of an epoch and fills no batch begins the next epoch's first one, so no window is ever dropped, and all are
seen equally often. Epoch e of the whole has the batches of every bucket that end in its own epoch e, in an order
permuted by (seed, e). With one bucket that is DataOrder itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.train.noise import sample_generator


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


@lru_cache(maxsize=2)
def turns(counts: tuple[int, ...], seed: int, epoch: int) -> Tensor:
    """Whose turn it is: bucket of every batch of an epoch, int64 (sum of counts,); not to be changed.

    Args:
        counts: batches of each bucket in this epoch.
        seed: of the run.
        epoch: which.
    """
    buckets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    generator = sample_generator("buckets", seed, epoch)
    return buckets[torch.randperm(len(buckets), generator=generator)]


@dataclass(frozen=True)
class BucketOrder:
    """An endless sequence of batches, each of one bucket.

    Args:
        whole: number of samples, batch size, seed and digest of the dataset: what a checkpoint stores.
        members: samples of each bucket by its name, ascending, int64; None names the only one of a dataset
            without buckets.
    """

    whole: DataOrder
    members: Mapping[str | None, Tensor]

    def __post_init__(self) -> None:
        size = self.whole.global_batch_size
        for name, samples in self.members.items():
            if len(samples) < size:
                raise DataError(
                    f"dataset: bucket {name} has {len(samples)} training windows, fewer than one batch of {size}; "
                    "remove the bucket, lower trainer.global_batch_size or add data"
                )

    @cached_property
    def _own(self) -> list[DataOrder]:
        whole = self.whole
        return [
            DataOrder(len(samples), whole.global_batch_size, whole.seed, whole.digest)
            for samples in self.members.values()
        ]

    def _begun(self, epoch: int) -> list[int]:
        """Batches of each bucket before an epoch."""
        return [epoch * own.num_samples // own.global_batch_size for own in self._own]

    def _epoch_of(self, step: int) -> int:
        """The epoch of a batch: the last that begins at it or before."""
        # no bucket has begun more batches than its share, and each lacks less than one: two more at most
        epoch = step * self.whole.global_batch_size // self.whole.num_samples
        while sum(self._begun(epoch + 1)) <= step:
            epoch += 1
        return epoch

    def _turn(self, step: int) -> tuple[int, int]:
        """Whose turn it is, by its number among the buckets, and how many batches of it came before."""
        epoch = self._epoch_of(step)
        begun, ended = self._begun(epoch), self._begun(epoch + 1)
        counts = tuple(end - begin for begin, end in zip(begun, ended, strict=True))
        buckets, turn = turns(counts, self.whole.seed, epoch), step - sum(begun)
        bucket = int(buckets[turn])
        return bucket, begun[bucket] + int((buckets[:turn] == bucket).sum())

    def bucket(self, step: int) -> str | None:
        """The bucket of optimizer step ``step``; None without buckets."""
        return list(self.members)[self._turn(step)[0]]

    def batch(self, step: int) -> list[int]:
        """Samples of optimizer step ``step``, all of one bucket."""
        bucket, before = self._turn(step)
        own = self._own[bucket].batch(before)
        samples: list[int] = list(self.members.values())[bucket][own].tolist()
        return samples

    def epochs(self, step: int) -> list[int]:
        """The epoch of its bucket that each sample of :meth:`batch` belongs to."""
        bucket, before = self._turn(step)
        return self._own[bucket].epochs(before)

    def describe(self) -> Iterator[str]:
        """A line for each bucket: its windows, and its share of the batches. Nothing without buckets."""
        for name, samples in self.members.items():
            if name is not None:
                share = len(samples) / self.whole.num_samples
                yield f"bucket={name} windows={len(samples)} share_of_batches={share:.3f} dropped=0"
