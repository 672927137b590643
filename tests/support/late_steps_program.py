"""Steps of sharded processes, checked at once and later: ``late_steps_program.py SHARDING``, started by torchrun.

Fails if the two differ in one bit from each other or from PyTorch's own norm and update.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import OptimizerConfig, ParallelConfig
from cosmos_worker.errors import DataError
from cosmos_worker.model.dtensor import is_dtensor, local_part
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train import step as steps
from cosmos_worker.train.data import Batch
from cosmos_worker.train.gradients import Gradients, clip_gradients
from cosmos_worker.train.noise import draw_noise
from cosmos_worker.train.optimizer import build_optimizer
from cosmos_worker.train.parallelize import parallelize
from support.training import SMALL_NET, small_experiment, small_model

SHAPE = (SMALL_NET.latent_channels, 3, 4, 4)
MESHES = {"full": ((2,), None), "hybrid": ((2, 2), ("copies", "shards"))}


def by_pytorch(model: nn.Module, experiment: Experiment, describe: Callable[[], str]) -> Gradients:
    """As :func:`clip_gradients`, by PyTorch's own functions."""
    grads = [one.grad for one in model.parameters() if one.grad is not None]
    norm = torch.nn.utils.get_total_norm(grads).full_tensor()  # type: ignore[attr-defined]
    torch.nn.utils.clip_grads_with_norm_(model.parameters(), experiment.optimizer.clip_norm, norm)
    return Gradients(norm, (), torch.zeros(0), True, describe)


class Run:
    """A sharded network with its optimizer."""

    def __init__(self, sharding: str) -> None:
        sizes, names = MESHES[sharding]
        mesh = init_device_mesh("cpu", sizes, mesh_dim_names=names)
        self.model = small_model()
        config = ParallelConfig(sharding=sharding)
        parallelize(self.model, config, ProcessGroup(), mesh, torch.float32)
        assert all(is_dtensor(one) for one in self.model.parameters())
        self.optimizer = build_optimizer(self.model, OptimizerConfig(learning_rate=1e-3))

    def step(self, number: int, checks_later: bool, scale: float = 1.0) -> Gradients:
        generator = torch.Generator().manual_seed(10 * number + dist.get_rank())
        latents = scale * torch.randn(2, *SHAPE, generator=generator)
        text = torch.randn(2, 8, SMALL_NET.text_channels, generator=generator)
        batch = Batch(latents, text, torch.full((2,), 10.0))
        noise = draw_noise(SHAPE, small_experiment(), "train", number, [0, 1])
        return steps.train_step(
            self.model,
            self.optimizer,
            [(batch, noise)],
            small_experiment(),
            torch.device("cpu"),
            lambda: f"step {number}",
            checks_later=checks_later,
        ).gradients

    def values(self) -> list[Tensor]:
        """Copies of the shards of weights and moments, and of the counts of steps."""
        states = [value for one in self.optimizer.state.values() for value in one.values()]
        return [local_part(value).detach().clone() for value in [*self.model.parameters(), *states]]


def main(sharding: str) -> None:
    dist.init_process_group("gloo")
    runs = {name: Run(sharding) for name in ("pytorch", "now", "late")}
    for number in range(3):
        steps.clip_gradients = by_pytorch
        norms = [runs["pytorch"].step(number, False).norm]
        steps.clip_gradients = clip_gradients
        norms += [runs[name].step(number, name == "late").norm for name in ("now", "late")]
        assert torch.equal(norms[0], norms[1]), norms
        assert torch.equal(norms[0], norms[2]), norms
    before = runs["pytorch"].values()
    for name in ("now", "late"):
        found = runs[name].values()
        assert len(found) == len(before)
        assert all(torch.equal(*pair) for pair in zip(before, found, strict=True)), name

    # only one process has a bad sample, and all leave out the update
    bad = runs["late"].step(3, True, scale=1e30 if dist.get_rank() == 1 else 1.0)
    after = runs["late"].values()
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    with pytest.raises(DataError, match="step 3: NaN or infinite gradient"):
        bad.check()
    sys.stdout.write("equal\n")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
