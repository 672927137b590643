"""The network against an independent one: diffusers' CosmosTransformer3DModel, through folders in its own form.

Float32 on the CPU. Where the two differ on purpose, nothing is compared: diffusers takes one frame rate for the whole
batch, keeps the extra position embedding in float32 when the rest is bfloat16, and resizes the padding mask through
torchvision, which is not installed here: the test gives it as one more channel of the condition mask.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from support.training import SMALL_NET
from torch import Tensor
from torch.testing import assert_close

from cosmos_worker.config.network import NetConfig
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.weights.convert import (
    convert_weights,
    find_network,
)
from cosmos_worker.weights.diffusers import (
    build_config,
    diffusers_names,
)
from cosmos_worker.weights.load import (
    load_model,
    save_weight_file,
)
from cosmos_worker.weights.safetensors import Limits

TOLERANCE = {"atol": 2e-5, "rtol": 1e-5}
"""Outputs reach 5; the two networks order their float32 sums differently."""
GRADIENT_TOLERANCE = {"atol": 1e-6, "rtol": 2e-4}
"""Of the largest gradients, 0.02 to 0.7, the difference is 4e-7; of the smallest, 8e-4, it is 5e-8."""

NET_7B_LIKE = SMALL_NET.model_copy(update={"model_channels": 96, "num_heads": 4})
NET_14B_LIKE = NET_7B_LIKE.model_copy(
    update={"num_blocks": 3, "rope_ratio_h": 2.0, "rope_ratio_w": 2.0}
)
CASES = [
    pytest.param(NET_7B_LIKE, True, 4.0, id="7b"),
    pytest.param(NET_7B_LIKE, False, 24.0, id="7b-without-extra"),
    pytest.param(NET_14B_LIKE, True, 30.0, id="14b"),
]


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    """Module of diffusers, imported here because the import takes seconds."""
    from diffusers.models.transformers import transformer_cosmos

    return transformer_cosmos


def open_theirs(theirs: ModuleType, folder: Path, net: NetConfig) -> Any:
    """Diffusers' network from a folder; it takes the padding mask with the condition mask."""
    model, report = theirs.CosmosTransformer3DModel.from_pretrained(
        folder,
        subfolder="transformer",
        concat_padding_mask=False,
        in_channels=net.latent_channels + 2,
        output_loading_info=True,
    )
    assert not any(report.values()), report
    return model


def inputs(net: NetConfig, fps: float) -> dict[str, Tensor]:
    """Two videos of 3 latent frames of 6x4, one known; padded columns; text with zeros behind it."""
    generator = torch.Generator().manual_seed(1)
    cond = torch.zeros(2, 1, 3, 6, 4)
    cond[:, :, :1] = 1
    padding = torch.zeros(2, 1, 6, 4)
    padding[..., -1] = 1
    text = torch.randn(2, 9, net.text_channels, generator=generator)
    text[:, 5:] = 0
    return {
        "x_BCTHW": torch.randn(2, net.latent_channels, 3, 6, 4, generator=generator),
        "c_noise_B": torch.tensor([-1.2, 0.9]),
        "text_BSD": text,
        "cond_mask_B1THW": cond,
        "fps_B": torch.full((2,), fps),
        "padding_mask_B1HW": padding,
    }


def run_theirs(model: Any, given: dict[str, Tensor]) -> Tensor:
    padding = given["padding_mask_B1HW"][:, :, None].expand_as(given["cond_mask_B1THW"])
    output: Tensor = model(
        hidden_states=given["x_BCTHW"],
        timestep=given["c_noise_B"],
        encoder_hidden_states=given["text_BSD"],
        fps=float(given["fps_B"][0]),
        condition_mask=torch.cat([given["cond_mask_B1THW"], padding], dim=1),
        return_dict=False,
    )[0]
    return output


def random_model(net: NetConfig, extra: bool) -> CosmosModel:
    """Fresh weights, moved so that no layer and no gradient is zero."""
    model = CosmosModel(net, extra)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.init_weights(generator)
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def backward(output: Tensor) -> float:
    """Gradients of a squared error to a fixed target; returns the loss."""
    target = torch.randn(output.shape, generator=torch.Generator().manual_seed(2))
    loss = (output - target).square().mean()
    loss.backward()
    return loss.item()


@pytest.mark.parametrize(("net", "extra", "fps"), CASES)
def test_export_computes_the_same_in_diffusers(
    theirs: ModuleType, tmp_path: Path, net: NetConfig, extra: bool, fps: float
) -> None:
    ours, given = random_model(net, extra), inputs(net, fps)
    save_weight_file(tmp_path / "model.pt", ours.state_dict(), torch.float32)
    limits = Limits(shard_bytes=1 << 18)
    convert_weights(tmp_path / "model.pt", tmp_path / "out", "diffusers", net, limits)
    other = open_theirs(theirs, tmp_path / "out", net)

    output, expected = ours.net(**given), run_theirs(other, given)
    loss, expected_loss = backward(output), backward(expected)

    assert len(list((tmp_path / "out" / "transformer").glob("*.safetensors"))) > 1
    assert output.abs().max() > 1
    assert_close(output, expected, **TOLERANCE)
    assert_close(loss, expected_loss, atol=0, rtol=1e-6)
    gradients = {name: p.grad for name, p in other.named_parameters()}
    parameters = {f"net.{name}": p for name, p in ours.net.named_parameters()}
    names = diffusers_names(net.num_blocks)
    assert {names[name] for name in parameters} == set(gradients)
    for name, parameter in parameters.items():
        assert parameter.grad.abs().max() > 0, name
        assert_close(parameter.grad, gradients[names[name]], **GRADIENT_TOLERANCE, msg=name)


@pytest.mark.parametrize(("net", "extra", "fps"), CASES)
def test_folder_that_diffusers_writes_computes_the_same_here(
    theirs: ModuleType, tmp_path: Path, net: NetConfig, extra: bool, fps: float
) -> None:
    config = build_config(net, extra)
    torch.manual_seed(3)
    other = theirs.CosmosTransformer3DModel(**{k: v for k, v in config.items() if k[0] != "_"})
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    other.save_pretrained(tmp_path / "transformer", max_shard_size="200KB")
    given = inputs(net, fps)

    found = find_network(tmp_path, None)
    ours = load_model(tmp_path, found)
    reopened = open_theirs(theirs, tmp_path, net)

    assert found == net
    with torch.no_grad():
        assert_close(ours.net(**given), run_theirs(reopened, given), **TOLERANCE)


def test_comparison_fails_when_the_network_is_another(theirs: ModuleType, tmp_path: Path) -> None:
    ours, given = random_model(NET_7B_LIKE, True), inputs(NET_7B_LIKE, 4.0)
    save_weight_file(tmp_path / "model.pt", ours.state_dict(), torch.float32)
    stretched = NET_7B_LIKE.model_copy(update={"rope_ratio_h": 2.0})
    convert_weights(tmp_path / "model.pt", tmp_path / "out", "diffusers", stretched, Limits())
    other = open_theirs(theirs, tmp_path / "out", NET_7B_LIKE)

    with torch.no_grad(), pytest.raises(AssertionError, match="not close"):
        assert_close(ours.net(**given), run_theirs(other, given), **TOLERANCE)
