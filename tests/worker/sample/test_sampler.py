from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from numpy.random import default_rng
from support.generation import (
    HEIGHT,
    NUM_FRAMES,
    TEXT_CHANNELS,
    TINY_NET,
    WIDTH,
    moving_square,
    write_tiny_model,
)
from support.tiny_tokenizer import torchscript_allowed, write_tiny_tokenizer

from cosmos_worker.config.network import TextConfig, TokenizerConfig
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.diffusion.samplers import OnStep
from cosmos_worker.errors import DataError
from cosmos_worker.model.dit import CosmosDiT
from cosmos_worker.sample.sampler import (
    Sample,
    Settings,
    decode_latents,
    draw_sample_noise,
    encode_known_frames,
    generate_latents,
    noise_seeds,
    num_sampler_steps,
)
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.tokenizer.tokenizer import (
    VideoTokenizer,
    chunked_latent_frames,
)
from cosmos_worker.weights.load import load_network

SAMPLERS = ["edm_euler", "res_2ab", "res_2mid", "res_1euler"]
SAMPLING = SamplingConfig(
    num_steps=4,
    guidance=0.0,
    num_pixel_frames=NUM_FRAMES,
    height=HEIGHT,
    width=WIDTH,
    fps=4.0,
    sigma_min=0.002,
)
TOKENIZER_CONFIG = TokenizerConfig(chunk_pixel_frames=NUM_FRAMES, dtype="float32")


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> CosmosDiT:
    return load_network(write_tiny_model(tmp_path_factory.mktemp("model")), TINY_NET)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> VideoTokenizer:
    folder = write_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    with torchscript_allowed():
        return load_tokenizer(folder, TOKENIZER_CONFIG, "cpu", "torchscript")


def embedding(seed: int, num_tokens: int = 5):
    return default_rng(seed).normal(size=(num_tokens, TEXT_CHANNELS)).astype("float16")


def make_sample(sample_id: str, num_known: int = 1, text_seed: int = 0) -> Sample:
    frames = torch.from_numpy(moving_square(shift=int(sample_id)))[:num_known]
    return Sample(sample_id, embedding(text_seed), frames.permute(3, 0, 1, 2) / 127.5 - 1)


def make_settings(guidance: float = 0.0, padding: str = "pad", **sampling: object) -> Settings:
    return Settings(
        SAMPLING.model_copy(update={"guidance": guidance, **sampling}),
        chunked_latent_frames(NUM_FRAMES, NUM_FRAMES),
        TextConfig(max_length=8),
        0.5,
        embedding(9) if guidance else None,
        text_padding=padding,
    )


def generate(
    net: CosmosDiT,
    tokenizer: VideoTokenizer,
    samples: Sequence[Sample],
    settings: Settings,
    on_step: OnStep | None = None,
) -> torch.Tensor:
    known = encode_known_frames(tokenizer, samples, settings)
    return generate_latents(net, known, samples, settings, on_step)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("num_known", [1, 9])
def test_generate_latents_begins_with_the_known_frames(
    net: CosmosDiT, tokenizer: VideoTokenizer, sampler: str, num_known: int
) -> None:
    sample = make_sample("0", num_known)
    settings = make_settings(sampler=sampler, num_input_frames=num_known)

    latents = generate(net, tokenizer, [sample], settings)

    filled = torch.zeros(1, 3, NUM_FRAMES, HEIGHT, WIDTH)
    filled[:, :, :num_known] = sample.known_pixels_CTHW
    num_latent = 1 + (num_known - 1) // 8
    wanted = tokenizer.encode(filled)[:, :, :num_latent] * 0.5
    assert latents.shape == (1, 16, 3, HEIGHT // 8, WIDTH // 8)
    torch.testing.assert_close(latents[:, :, :num_latent], wanted, rtol=1e-3, atol=2e-3)


def test_generate_latents_does_not_depend_on_batch_or_order(
    net: CosmosDiT, tokenizer: VideoTokenizer
) -> None:
    samples = [make_sample("0"), make_sample("1", text_seed=1)]
    settings = make_settings(guidance=2.0)

    together = generate(net, tokenizer, samples[::-1], settings)
    alone = [generate(net, tokenizer, [sample], settings) for sample in samples]

    torch.testing.assert_close(together.flip(0), torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_generate_latents_is_repeatable_and_depends_on_seed_text_and_guidance(
    net: CosmosDiT, tokenizer: VideoTokenizer, sampler: str
) -> None:
    def generate_with(text_seed: int = 0, **changes: object) -> torch.Tensor:
        settings = make_settings(**{"sampler": sampler, **changes})
        return generate(net, tokenizer, [make_sample("0", text_seed=text_seed)], settings)

    first = generate_with()

    assert torch.equal(first, generate_with())
    assert not torch.equal(first, generate_with(seed=2))
    assert not torch.equal(first, generate_with(text_seed=1))
    assert not torch.equal(first, generate_with(guidance=3.0))


class CountedNet(torch.nn.Module):
    """A network that counts the videos of each of its evaluations."""

    def __init__(self, net: CosmosDiT) -> None:
        super().__init__()
        self.net, self.sizes = net, list[int]()

    def forward(self, x_BCTHW: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x_BCTHW))
        return self.net(x_BCTHW, *rest)


@pytest.mark.parametrize("known_frames", ["correct", "legacy"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_guidance_in_one_batch_equals_two_evaluations(
    net: CosmosDiT, tokenizer: VideoTokenizer, monkeypatch: pytest.MonkeyPatch, sampler: str, known_frames: str
) -> None:  # fmt: skip
    samples = [make_sample("0"), make_sample("1", text_seed=1)]
    samples[1] = dataclasses.replace(samples[1], fps=9.0)
    settings = make_settings(guidance=3.0, sampler=sampler, known_frames=known_frames)

    counted = CountedNet(net)
    in_one = generate(counted, tokenizer, samples, settings)
    monkeypatch.setattr("cosmos_worker.sample.sampler.MAX_POSITIONS_IN_ONE_BATCH", 0)
    counted_two = CountedNet(net)
    in_two = generate(counted_two, tokenizer, samples, settings)

    torch.testing.assert_close(in_one, in_two, rtol=1e-4, atol=1e-5)
    assert set(counted.sizes) == {4}
    assert set(counted_two.sizes) == {2}
    assert len(counted_two.sizes) == 2 * len(counted.sizes)


def test_texts_of_other_lengths_are_evaluated_apart_since_zeros_would_be_seen(
    net: CosmosDiT, tokenizer: VideoTokenizer
) -> None:
    counted = CountedNet(net)
    settings = dataclasses.replace(
        make_settings(guidance=3.0, padding="trim"), negative_LD=embedding(9, num_tokens=3)
    )

    generate(counted, tokenizer, [make_sample("0")], settings)

    assert set(counted.sizes) == {1}


def test_network_in_its_compute_type_computes_the_same_bits(
    tmp_path: Path, tokenizer: VideoTokenizer
) -> None:
    path = write_tiny_model(tmp_path)
    settings = dataclasses.replace(make_settings(guidance=3.0), compute_dtype=torch.bfloat16)
    small, large = (
        load_network(path, TINY_NET, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)
    )

    samples = [make_sample("0")]
    latents = generate(small, tokenizer, samples, settings)

    assert torch.equal(latents, generate(large, tokenizer, samples, settings))
    kept = {name for name, one in small.named_parameters() if one.dtype == torch.float32}
    assert kept == {name for name, one in small.named_parameters() if one.ndim == 1}
    assert small.pos_embedder.seq.dtype == torch.float32
    bytes_of = [sum(p.nbytes for p in one.parameters()) for one in (small, large)]
    assert bytes_of[0] < 0.51 * bytes_of[1]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_generate_latents_reports_every_step(
    net: CosmosDiT, tokenizer: VideoTokenizer, sampler: str
) -> None:
    settings = make_settings(sampler=sampler, num_steps=6)
    calls: list[None] = []

    generate(net, tokenizer, [make_sample("0")], settings, lambda: calls.append(None))

    assert len(calls) == num_sampler_steps(settings.sampling)


def test_generate_latents_refuses_results_that_are_not_finite(
    net: CosmosDiT, tokenizer: VideoTokenizer
) -> None:
    sample = make_sample("0")
    broken = Sample(sample.id, sample.text_LD * float("nan"), sample.known_pixels_CTHW)

    with pytest.raises(DataError, match="latents of 0 are not finite after 4 steps"):
        generate(net, tokenizer, [broken], make_settings())


def test_decode_latents_gives_the_known_frame_back(tokenizer: VideoTokenizer) -> None:
    grey = torch.full((1, 3, NUM_FRAMES, HEIGHT, WIDTH), 0.2)

    frames = decode_latents(tokenizer, tokenizer.encode(grey) * 0.5, 0.5)

    assert frames.shape == (1, NUM_FRAMES, HEIGHT, WIDTH, 3)
    assert frames.dtype == "uint8"
    assert set(frames.flatten().tolist()) == {153}


def test_noise_of_a_sample_depends_on_seed_and_id_alone() -> None:
    shape, device = (2, 3, 4, 5), torch.device("cpu")

    initial, augment = draw_sample_noise(1, ["a", "b"], shape, device)
    alone, _ = draw_sample_noise(1, ["b"], shape, device)

    assert torch.equal(initial[1:], alone)
    assert not torch.equal(initial[0], initial[1])
    assert not torch.equal(initial, augment)
    assert len({noise_seeds(seed, name) for seed in (1, 2) for name in ("a", "b")}) == 4
