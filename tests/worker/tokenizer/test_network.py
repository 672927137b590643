import ast
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.tokenizer.network import (
    AutoencoderConfig,
    CausalVideoAutoencoder,
    load_autoencoder,
)

KEYS = Path(__file__).parents[2] / "data" / "tokenizer_keys.txt"
TINY = AutoencoderConfig(channels=4, num_res_blocks=1)


def tiny_autoencoder(config=TINY):
    torch.manual_seed(0)
    return CausalVideoAutoencoder(config).eval().requires_grad_(False)


def test_full_size_has_the_released_names_shapes_and_parameters():
    expected = {}
    for line in KEYS.read_text().splitlines():
        name, shape = line.split(" ", 1)
        expected[name] = ast.literal_eval(shape)

    with torch.device("meta"):
        network = CausalVideoAutoencoder(AutoencoderConfig())
    state = {name: tuple(value.shape) for name, value in network.state_dict().items()}

    without_bias = {
        name.removesuffix(".weight"): shape
        for name, shape in state.items()
        if not name.endswith(".bias")
    }
    assert without_bias == expected
    assert len(state) == 315
    assert sum(value.numel() for value in network.parameters()) == 105_653_696


def test_first_latents_do_not_see_later_frames():
    network = tiny_autoencoder()
    video = torch.randn(1, 3, 17, 16, 24)

    latent = network.encode(video)

    torch.testing.assert_close(network.encode(video[:, :, :1]), latent[:, :, :1])
    torch.testing.assert_close(network.encode(video[:, :, :9]), latent[:, :, :2])


def test_decoded_frames_do_not_see_later_latents():
    network = tiny_autoencoder()
    latent = torch.randn(1, 16, 3, 2, 3)

    video = network.decode(latent)

    assert video.shape == (1, 3, 17, 16, 24)
    torch.testing.assert_close(network.decode(latent[:, :, :2]), video[:, :, :9])


@pytest.mark.parametrize(
    ("config", "factor_t", "factor_s"),
    [
        (replace(TINY, patch_size=2), 8, 8),
        (replace(TINY, temporal_compression=4), 4, 8),
        (replace(TINY, spatial_compression=16), 8, 16),
        (replace(TINY, z_channels=8, latent_channels=6), 8, 8),
    ],
)
def test_other_shapes_keep_their_compression(config, factor_t, factor_s):
    network = tiny_autoencoder(config)
    video = torch.randn(1, 3, 1 + 2 * factor_t, 2 * factor_s, 3 * factor_s)

    latent = network.encode(video)

    assert latent.shape == (1, config.latent_channels, 3, 2, 3)
    assert network.decode(latent).shape == video.shape


def test_load_autoencoder_needs_no_wavelet_constants():
    network = tiny_autoencoder()
    state = {name: value for name, value in network.state_dict().items() if "patcher" not in name}
    video = torch.randn(1, 3, 9, 16, 16)

    loaded = load_autoencoder(state, TINY)

    assert torch.equal(loaded.encode(video), network.encode(video))
    assert loaded.encoder.patcher3d.wavelets.device.type == "cpu"


def test_load_autoencoder_names_missing_unknown_and_misshaped_weights():
    state = dict(tiny_autoencoder().state_dict())
    state["quant_conv.conv3d.extra"] = state.pop("quant_conv.conv3d.bias")
    state["encoder.norm_out.norm.weight"] = torch.zeros(3)

    with pytest.raises(CheckpointError) as caught:
        load_autoencoder(state, TINY)

    assert "3 entries do not fit" in str(caught.value)
    assert "missing quant_conv.conv3d.bias" in str(caught.value)
    assert "unknown quant_conv.conv3d.extra" in str(caught.value)
    assert "encoder.norm_out.norm.weight is (3,) instead of (16,)" in str(caught.value)


def test_config_refuses_another_formulation():
    with pytest.raises(ConfigError, match="formulation: got 'VAE'; only 'AE' is implemented"):
        AutoencoderConfig.from_reference({"formulation": "VAE"})


def test_config_refuses_attention_outside_of_the_middle():
    with pytest.raises(ConfigError, match="attn_resolutions: \\[64\\] puts attention"):
        AutoencoderConfig.from_reference({"attn_resolutions": [64], "resolution": 1024})
