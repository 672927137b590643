import pytest
import torch

from cosmos_worker.config.network import TokenizerConfig
from cosmos_worker.errors import ConfigError, DataError
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.tokenizer.tokenizer import (
    pixels_from_video,
    video_from_pixels,
)

CONFIG = TokenizerConfig(chunk_pixel_frames=17, dtype="float32", batch_size=2)


def random_pixels(num_frames):
    generator = torch.Generator().manual_seed(0)
    shape = (3, num_frames, 16, 24, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("num_frames", [1, 9, 17, 34])
def test_embedded_tokenizer_gives_back_every_pixel(num_frames):
    tokenizer = load_tokenizer("embedded", CONFIG, "cpu")
    pixels = random_pixels(num_frames)

    latent = tokenizer.encode(video_from_pixels(pixels))

    assert latent.shape[:2] == (3, tokenizer.latent_channels)
    assert torch.equal(pixels_from_video(tokenizer.decode(latent)), pixels)


def test_embedded_first_latent_shows_the_first_frame_only():
    tokenizer = load_tokenizer("embedded", CONFIG, "cpu")
    video = video_from_pixels(random_pixels(17))

    first = tokenizer.encode(video)[:, :, :1]

    torch.testing.assert_close(tokenizer.encode(video[:, :, :1]), first)


def test_longer_videos_are_independent_chunks():
    tokenizer = load_tokenizer("embedded", CONFIG, "cpu")
    video = video_from_pixels(random_pixels(51))

    latent = tokenizer.encode(video)

    assert latent.shape[2] == 9
    second = tokenizer.encode(video[:, :, 17:34])
    assert torch.equal(latent[:, :, 3:6], second)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 10, 16, 16), r"T=10: use 8n\+1 frames: 9 or 17"),
        ((1, 3, 20, 16, 16), r"T=20: use a multiple of the chunk 17: 17 or 34"),
        ((1, 3, 9, 12, 16), r"H=12: use a multiple of 8: 8 or 16"),
        ((1, 3, 8, 16, 4), r"T=8: .*: 1 or 9; W=4: use a multiple of 8: 8 or 16"),
        ((1, 3, 0, 16, 16), r"T=0: use 8n\+1 frames: 1 or 9"),
        ((3, 9, 16, 16), r"give floating point \(B, 3, T, H, W\)"),
    ],
)
def test_encode_says_the_nearest_allowed_size(shape, message):
    tokenizer = load_tokenizer("embedded", CONFIG, "cpu")

    with pytest.raises(DataError, match=message):
        tokenizer.encode(torch.zeros(shape))


def test_encode_refuses_bytes():
    tokenizer = load_tokenizer("embedded", CONFIG, "cpu")

    with pytest.raises(DataError, match=r"got torch\.uint8"):
        tokenizer.encode(torch.zeros(1, 3, 9, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 16, 2, 2, 2), r"give \(B, 1536, T, H, W\)"),
        ((1, 1536, 4, 2, 2), r"T=4: use a multiple of the latent chunk 3: 3 or 6"),
    ],
)
def test_decode_says_the_allowed_shape(shape, message):
    tokenizer = load_tokenizer("embedded", CONFIG, "cpu")

    with pytest.raises(DataError, match=message):
        tokenizer.decode(torch.zeros(shape))


def test_chunk_must_have_8n_plus_1_frames():
    config = TokenizerConfig(chunk_pixel_frames=16)

    with pytest.raises(ConfigError, match=r"chunk_pixel_frames: 16: use 8n\+1 frames: 9 or 17"):
        load_tokenizer("embedded", config, "cpu")


def test_pixels_from_video_clamps():
    video = torch.tensor([-2.0, -1.0, 0.0, 1.0, 3.0]).reshape(1, 1, 1, 1, 5).expand(1, 3, 1, 1, 5)

    assert pixels_from_video(video)[0, 0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]
