import pytest
import torch
from support.tiny_tokenizer import (
    CELL,
    Encoder,
    cosine_basis,
    tiny_mean_std,
    write_script,
    write_tiny_tokenizer,
)

from cosmos_worker.config.network import TokenizerConfig
from cosmos_worker.errors import CheckpointError, ConfigError, DataError
from cosmos_worker.tokenizer.load import load_tokenizer

CONFIG = TokenizerConfig(chunk_pixel_frames=17, dtype="bfloat16", batch_size=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def own_folder(folder, tmp_path):
    """A folder whose files a test may damage."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def random_video(num_frames, batch=1):
    return torch.rand(batch, 3, num_frames, 16, 24) * 2 - 1


def blocky_video(num_frames, batch=1):
    """Constant in each 8x8 block and over time: the tiny tokenizer keeps it."""
    return (
        torch.rand(batch, 3, 1, 2, 3)
        .repeat_interleave(8, 3)
        .repeat_interleave(8, 4)
        .expand(-1, -1, num_frames, -1, -1)
    )


def test_encode_normalises_each_channel_and_latent_frame(folder):
    tokenizer = load_tokenizer(folder, CONFIG, "cpu", "torchscript")
    video = random_video(17)
    mean, std = (values.view(16, 16)[None, :, :3, None, None] for values in tiny_mean_std())

    latent = tokenizer.encode(video)

    with torch.no_grad():
        raw = Encoder()(video)[0]
    assert latent.dtype == torch.float32
    torch.testing.assert_close(latent, (raw - mean) / std)


@pytest.mark.parametrize("num_frames", [1, 9, 17, 34])
def test_decode_inverts_encode(folder, num_frames):
    tokenizer = load_tokenizer(folder, CONFIG, "cpu", "torchscript")
    video = blocky_video(num_frames, batch=3)

    latent = tokenizer.encode(video)

    num_chunks = max(1, num_frames // 17)
    expected = (3, tokenizer.latent_channels, num_chunks + (num_frames - num_chunks) // 8, 2, 3)
    assert latent.shape == expected
    torch.testing.assert_close(tokenizer.decode(latent), video, atol=1e-5, rtol=0)


def test_a_single_frame_is_encoded_as_the_first_of_a_chunk(folder):
    tokenizer = load_tokenizer(folder, CONFIG, "cpu", "torchscript")
    video = random_video(17)

    torch.testing.assert_close(tokenizer.encode(video[:, :, :1]), tokenizer.encode(video)[:, :, :1])


def test_each_chunk_is_normalised_from_the_first_time_slot(folder):
    tokenizer = load_tokenizer(folder, CONFIG, "cpu", "torchscript")
    video = random_video(51, batch=2)

    latent = tokenizer.encode(video)

    torch.testing.assert_close(latent[:, :, 3:6], tokenizer.encode(video[:, :, 17:34]))


def test_calls_hold_at_most_the_configured_number_of_chunks(own_folder):
    class Counting(torch.nn.Module):
        def forward(self, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            assert video.shape[0] <= 2, "batch limit"
            return video[:, :1, ::8, ::8, ::8].repeat(1, 16, 1, 1, 1), torch.zeros(1)

    write_script(Counting(), own_folder / "encoder.jit")
    tokenizer = load_tokenizer(own_folder, CONFIG, "cpu", "torchscript")

    assert tokenizer.encode(random_video(34, batch=3)).shape == (3, 16, 6, 2, 3)


def test_statistics_may_be_lists_of_numbers(own_folder):
    expected = load_tokenizer(own_folder, CONFIG, "cpu", "torchscript").encode(
        torch.zeros(1, 3, 9, 16, 16)
    )
    torch.save(tuple(values.tolist() for values in tiny_mean_std()), own_folder / "mean_std.pt")

    tokenizer = load_tokenizer(own_folder, CONFIG, "cpu", "torchscript")

    torch.testing.assert_close(tokenizer.encode(torch.zeros(1, 3, 9, 16, 16)), expected)


def test_digest_follows_the_files_that_decide_latents(own_folder):
    before = load_tokenizer(own_folder, CONFIG, "cpu", "torchscript").digest
    mean, std = tiny_mean_std()
    torch.save((mean + 1, std), own_folder / "mean_std.pt")

    assert load_tokenizer(own_folder, CONFIG, "cpu", "torchscript").digest != before


def test_missing_files_are_all_named(own_folder):
    (own_folder / "encoder.jit").unlink()
    (own_folder / "mean_std.pt").unlink()

    with pytest.raises(CheckpointError, match=r"no encoder\.jit, mean_std\.pt; a tokenizer folder"):
        load_tokenizer(own_folder, CONFIG, "cpu", "torchscript")


def test_a_damaged_script_is_named(own_folder):
    path = own_folder / "decoder.jit"
    path.write_bytes(path.read_bytes()[:100])

    with pytest.raises(CheckpointError, match=r"decoder\.jit: not a TorchScript file"):
        load_tokenizer(own_folder, CONFIG, "cpu", "torchscript")


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ((torch.zeros(256), torch.ones(128)), "std has 128 values; expected 256"),
        ((torch.zeros(256),), r"got tuple of 1; expected the pair \(mean, std\)"),
        (torch.zeros(2, 256), r"got Tensor of 2; expected the pair"),
        ((torch.zeros(256), torch.zeros(256)), "std has values that are not finite and positive"),
        (
            (torch.full((256,), float("nan")), torch.ones(256)),
            "mean has values that are not finite",
        ),
    ],
)
def test_wrong_statistics_are_refused(own_folder, pair, message):
    torch.save(pair, own_folder / "mean_std.pt")

    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(own_folder, CONFIG, "cpu", "torchscript")


@pytest.mark.parametrize("content", [b"", b"no zip archive", b"PK\x03\x04 truncated"])
def test_damaged_statistics_are_named(own_folder, content):
    (own_folder / "mean_std.pt").write_bytes(content)

    with pytest.raises(
        CheckpointError, match=r"mean_std\.pt: cannot be read as a file of torch tensors"
    ):
        load_tokenizer(own_folder, CONFIG, "cpu", "torchscript")


def test_statistics_that_would_run_code_are_refused(own_folder):
    torch.save(Encoder(), own_folder / "mean_std.pt")

    with pytest.raises(
        CheckpointError, match=r"mean_std\.pt: cannot be read as a file of torch tensors"
    ):
        load_tokenizer(own_folder, CONFIG, "cpu", "torchscript")


def test_a_chunk_longer_than_the_statistics_is_refused(folder):
    config = TokenizerConfig(chunk_pixel_frames=129)

    with pytest.raises(ConfigError, match=r"129 is more than the statistics .* use at most 121"):
        load_tokenizer(folder, config, "cpu")


def test_an_encoder_of_another_compression_is_named(own_folder):
    class Coarse(torch.nn.Module):
        def forward(self, video: torch.Tensor) -> torch.Tensor:
            return video[:, :1, ::8, ::16, ::16].repeat(1, 16, 1, 1, 1)

    write_script(Coarse(), own_folder / "encoder.jit")
    tokenizer = load_tokenizer(own_folder, CONFIG, "cpu", "torchscript")

    with pytest.raises(CheckpointError, match=r"encoder\.jit: returned shape .* instead of"):
        tokenizer.encode(random_video(9))


def test_wrong_video_size_is_refused_before_the_encoder_runs(folder):
    with pytest.raises(DataError, match=r"T=20: use a multiple of the chunk 17: 17 or 34"):
        load_tokenizer(folder, CONFIG, "cpu", "torchscript").encode(random_video(20))


def test_tiny_tokenizer_patterns_are_orthonormal():
    basis = cosine_basis().reshape(16, 3 * CELL**3)

    torch.testing.assert_close(basis @ basis.T, torch.eye(16), atol=1e-5, rtol=0)
