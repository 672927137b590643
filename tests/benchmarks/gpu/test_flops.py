"""The operations that utilisation is measured in, against PyTorch's count of a step of the benchmark."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.network import Variant, build, random_batch
from benchmarks.gpu.sizes import TINY
from cosmos_worker.config.flops import TRAINING_FACTOR, sample_flops
from cosmos_worker.train.step import batch_loss

CPU = torch.device("cpu")
NOT_COMPUTED = 0.1
"""Share of the gradients of inputs, text and patches, which nobody needs, in this small network; 0.2 % in the 7B."""


@pytest.mark.parametrize("samples", [1, 3])
def test_operations_of_a_step_are_those_that_pytorch_counts(samples: int) -> None:
    experiment = Variant(compiled=False, samples=samples).apply(TINY.stack("long", 2))
    model = build(experiment, CPU)
    batch, noise = random_batch(experiment, samples)

    # the kernel that keeps the matrix computes nothing again in its backward pass
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        batch_loss(model, batch, noise, experiment.diffusion, CPU).total.backward()

    counted = counter.get_total_flops()
    formula = samples * TRAINING_FACTOR * sample_flops(experiment)
    assert (1 - NOT_COMPUTED) * formula <= counted <= formula
