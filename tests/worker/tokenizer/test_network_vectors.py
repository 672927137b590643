import re

import pytest
import torch
from support.vectors import load_vector, under

from cosmos_worker.tokenizer.network import AutoencoderConfig, load_autoencoder

TOLERANCE = 2.5e-5
RELATIVE_TO_PEAK = 2e-6
"""Decoded pixels of random weights reach 20, where the reference's own float32 result lies 2.6e-5 from float64."""


def test_tokenizer_vectors(tokenizer_vector_path):
    values, tensors = load_vector(tokenizer_vector_path)
    config = AutoencoderConfig.from_reference(under(values, "config"))
    network = load_autoencoder(under(tensors, "state_dict"), config)
    cases = sorted({match[1] for key in tensors if (match := re.match(r"cases/(.+)/x$", key))})

    assert cases
    for case in cases:
        expected = under(tensors, f"cases/{case}")
        with torch.no_grad():
            latent, video = network.encode(expected["x"]), network.decode(expected["z"])
        torch.testing.assert_close(latent, expected["z"], rtol=0, atol=TOLERANCE)
        tolerance = max(TOLERANCE, RELATIVE_TO_PEAK * float(expected["y"].abs().max()))
        torch.testing.assert_close(video, expected["y"], rtol=0, atol=tolerance)


def test_tokenizer_vectors_fail_when_one_weight_is_off(tokenizer_vector_path):
    values, tensors = load_vector(tokenizer_vector_path)
    config = AutoencoderConfig.from_reference(under(values, "config"))
    network = load_autoencoder(under(tensors, "state_dict"), config)
    case = next(key for key in tensors if key.endswith("/x")).rsplit("/", 1)[0]

    with torch.no_grad():
        network.encoder.mid.attn_1[1].v.conv3d.weight.mul_(1.01)
        latent = network.encode(tensors[f"{case}/x"])

    with pytest.raises(AssertionError, match="not close"):
        torch.testing.assert_close(latent, tensors[f"{case}/z"], rtol=0, atol=TOLERANCE)
