"""Operations of the network by its sizes, against those that PyTorch counts while it runs."""

from __future__ import annotations

import pytest
import torch
from support.training import SMALL_NET, small_experiment, small_model
from torch.utils.flop_counter import FlopCounterMode

from cosmos_worker.config.flops import forward_flops, run_flops, training_flops

TEXT_TOKENS = 8
LATENT = (3, 4, 4)
TOKENS = 3 * 2 * 2


@pytest.mark.parametrize("extra", [True, False])
def test_forward_flops_are_those_of_the_network(extra: bool) -> None:
    net = small_model(extra_pos_emb=extra).net
    text = torch.zeros(1, TEXT_TOKENS, SMALL_NET.text_channels)
    mask = torch.zeros(1, 1, *LATENT)

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 16, *LATENT), torch.zeros(1), text, mask, torch.ones(1))

    assert forward_flops(SMALL_NET, TOKENS, TEXT_TOKENS) == counter.get_total_flops()


def test_flops_of_a_run_are_those_of_all_its_samples() -> None:
    experiment = small_experiment()
    options = experiment.trainer

    one = training_flops(experiment, LATENT)

    assert one == 3 * forward_flops(SMALL_NET, TOKENS, experiment.text.max_length)
    assert run_flops(experiment) == options.max_steps * options.global_batch_size * one
