"""Our network and diffusers' CosmosTransformer3DModel with the same weights and inputs. Benchmarks import this."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cosmos_worker.config.network import NetConfig
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.weights.diffusers import build_config, diffusers_names

FPS = 4.0
TEXT_TOKENS = 512


@dataclass(frozen=True)
class Inputs:
    """One sample with one known latent frame, and a target for a squared error.

    B 1, C latent channels, T latent frames of H x W, S text tokens.
    """

    x_BCTHW: Tensor
    c_noise_B: Tensor
    text_BSD: Tensor
    cond_mask_B1THW: Tensor
    target_BCTHW: Tensor

    @property
    def num_tokens(self) -> int:
        """Tokens of 1 x 2 x 2 latent pixels."""
        return self.x_BCTHW[0, 0].numel() // 4


def random_inputs(net: NetConfig, size: tuple[int, int, int], text_tokens: int) -> Inputs:
    """Inputs of (T, H, W) latent pixels; always the same."""
    generator = torch.Generator().manual_seed(1)
    shape = (1, net.latent_channels, *size)
    cond = torch.zeros(1, 1, *size)
    cond[:, :, :1] = 1
    return Inputs(
        torch.randn(shape, generator=generator),
        torch.tensor([0.3]),
        torch.randn(1, text_tokens, net.text_channels, generator=generator),
        cond,
        torch.randn(shape, generator=generator),
    )


def our_network(net: NetConfig) -> CosmosModel:
    """Random weights that let every layer do something."""
    model = CosmosModel(net, extra_pos_emb=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.init_weights(generator)
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    return model


def run_ours(model: CosmosModel, given: Inputs) -> Tensor:
    """F of our network, (B, C, T, H, W)."""
    fps_B = torch.tensor([FPS])
    out: Tensor = model.net(
        given.x_BCTHW, given.c_noise_B, given.text_BSD, given.cond_mask_B1THW, fps_B
    )
    return out


def their_network(model: CosmosModel, takes_padding_mask: bool = True) -> nn.Module:
    """Diffusers' network with the weights of ours.

    Args:
        model: ours.
        takes_padding_mask: the padding mask comes with the condition mask; False = as its pipeline runs it.

    Raises:
        RuntimeError: a weight is missing or left over.
    """
    from diffusers.models.transformers.transformer_cosmos import CosmosTransformer3DModel

    net = model.net.config
    config = {k: v for k, v in build_config(net, True).items() if not k.startswith("_")}
    if takes_padding_mask:
        config |= {"concat_padding_mask": False, "in_channels": net.latent_channels + 2}
    theirs: nn.Module = CosmosTransformer3DModel(**config)
    names = diffusers_names(net.num_blocks)
    state = {names[name]: one.clone() for name, one in model.state_dict().items() if name in names}
    theirs.load_state_dict(state)
    return theirs


def run_theirs(model: Any, given: Inputs) -> Tensor:  # noqa: ANN401 - diffusers has no types
    """The same of diffusers' network."""
    no_padding = torch.zeros_like(given.cond_mask_B1THW)
    out: Tensor = model(
        hidden_states=given.x_BCTHW,
        timestep=given.c_noise_B,
        encoder_hidden_states=given.text_BSD,
        fps=FPS,
        condition_mask=torch.cat([given.cond_mask_B1THW, no_padding], dim=1),
        return_dict=False,
    )[0]
    return out


def check_same(ours: CosmosModel, theirs: nn.Module, given: Inputs) -> None:
    """Check that both compute the same output and gradients in float32.

    Raises:
        AssertionError: they differ by more than rounding; names what differs.
    """
    names = diffusers_names(ours.net.config.num_blocks)
    outputs = run_ours(ours, given), run_theirs(theirs, given)
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-4)
    for output in outputs:
        (output - given.target_BCTHW).square().mean().backward()
    gradients = {name: one.grad for name, one in theirs.named_parameters()}
    for name, parameter in ours.net.named_parameters():
        expected = gradients[names[f"net.{name}"]]
        assert parameter.grad is not None, name
        assert expected is not None, name
        difference = (parameter.grad - expected).norm() / expected.norm()
        assert difference < 1e-3, f"gradient of {name} differs by {difference:.1e} of its norm"
    for model in (ours, theirs):
        model.zero_grad(set_to_none=True)
