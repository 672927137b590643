"""Conditioning, loss and gradients against the reference's tensors."""

from __future__ import annotations

from pathlib import Path

import torch
from support.vectors import load_vector, net_config, under
from torch.testing import assert_close

from cosmos_worker.diffusion.edm import Noise, denoise, edm_loss, loss_weight, scalings
from cosmos_worker.model.dit import CosmosModel

SIGMA_DATA = 0.5


def test_training_step_matches_reference(train_vector_path: Path) -> None:
    values, tensors = load_vector(train_vector_path)
    state, given, wanted = (under(tensors, name) for name in ("state_dict", "inputs", "outputs"))
    model = CosmosModel(net_config(values), any(k.startswith("net.extra_pos") for k in state))
    model.net.pos_embedder.init_positions()
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    B = len(given["x0"])
    dropped_text = bool((given["text"] == 0).all())
    noise = Noise(
        given["sigma"].expand(B),
        given["epsilon"],
        given["augment_sigma"].expand(B),
        given["augment_noise"],
        torch.full((B,), values["inputs/n_cond"]),
        torch.full((B,), values["inputs/video_cond_bool"], dtype=torch.bool),
        torch.full((B,), not dropped_text),
    )
    use_logvar = values["inputs/loss_add_logvar"]

    result = denoise(
        model,
        given["x0"],
        given["text"],
        torch.full((B,), float(values["inputs/fps"])),
        noise,
        SIGMA_DATA,
    )
    loss = edm_loss(
        result, given["x0"], noise.sigma_B, SIGMA_DATA, use_logvar, only_generated=False
    )
    loss.total.backward()

    if "net_xt" in wanted:
        assert_close(result.net_input_BCTHW, wanted["net_xt"], atol=1e-6, rtol=1e-6)
    assert_close(result.x0_pred_BCTHW, wanted["x0_pred"], atol=5e-6, rtol=1e-5)
    assert_close(
        loss_weight(noise.sigma_B, SIGMA_DATA), wanted["weight"].expand(B), atol=1e-6, rtol=1e-6
    )
    assert_close(loss.mse, wanted["mse_mean"], atol=1e-6, rtol=1e-6)
    assert_close(loss.edm, wanted["edm_loss_mean"], atol=1e-6, rtol=2e-6)
    if use_logvar:
        assert_close(result.logvar_B, wanted["logvar"].flatten().expand(B), atol=1e-6, rtol=1e-6)
        assert_close(loss.total, wanted["kendall_mean"], atol=1e-6, rtol=2e-6)
    parameters = dict(model.named_parameters())
    gradients = under(wanted, "grads")
    assert gradients
    for key, expected in gradients.items():
        got = parameters[key].grad
        assert_close(
            torch.zeros_like(expected) if got is None else got,
            expected,
            atol=2e-5,
            rtol=1e-4,
            msg=key,
        )


def test_scalings_match_reference(scalars_vector_path: Path) -> None:
    _, tensors = load_vector(scalars_vector_path)
    sigma = tensors["sigma"]

    result = scalings(sigma, SIGMA_DATA)

    for name in ("c_skip", "c_out", "c_in", "c_noise"):
        assert_close(getattr(result, name), tensors[name], atol=1e-12, rtol=1e-12)
    assert_close(loss_weight(sigma, SIGMA_DATA), tensors["weight"], atol=1e-12, rtol=1e-12)
