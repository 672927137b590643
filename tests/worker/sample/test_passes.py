"""Videos of several passes, and offload of models that do not compute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
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
from cosmos_worker.sample.conditioning import video_from_frames
from cosmos_worker.sample.passes import (
    HOST,
    Models,
    continue_samples,
    generate_videos,
)
from cosmos_worker.sample.sampler import (
    Sample,
    Settings,
    decode_latents,
    encode_known_frames,
    generate_latents,
    noise_seeds,
)
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.weights.load import load_network

# NVIDIA releases TorchScript, which PyTorch deprecates since 2.9
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is (deprecated|not supported)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_tiny_model(root)
    write_tiny_tokenizer(root / "tokenizer")
    return root


def load(folder: Path, device: str = "cpu", offload: tuple[str, ...] = ()) -> Models:
    config = TokenizerConfig(chunk_pixel_frames=NUM_FRAMES, dtype="float32")
    with torchscript_allowed():
        tokenizer = load_tokenizer(folder / "tokenizer", config, device, "torchscript")
    net = load_network(folder / "model.pt", TINY_NET, device)
    return Models(net, tokenizer, torch.device(device), offload)


def make_settings(passes: int, num_known: int) -> Settings:
    sampling = SamplingConfig(
        num_steps=3,
        guidance=0.0,
        num_pixel_frames=NUM_FRAMES,
        height=HEIGHT,
        width=WIDTH,
        fps=4.0,
        num_input_frames=num_known,
        num_passes=passes,
    )
    return Settings(sampling, 3, TextConfig(max_length=8), 0.5, None)


def make_samples(num_known: int) -> list[Sample]:
    text = default_rng(0).normal(size=(5, TEXT_CHANNELS)).astype("float16")
    videos = [moving_square(shift=shift)[:num_known] for shift in (0, 4)]
    sampling = make_settings(1, num_known).sampling
    return [
        Sample(str(number), text, video_from_frames(frames, sampling))
        for number, frames in enumerate(videos)
    ]


@pytest.mark.parametrize("num_known", [1, 9])
def test_later_passes_continue_from_the_last_frames_and_leave_the_first_as_it_is(
    folder: Path, num_known: int
) -> None:
    models, samples = load(folder), make_samples(num_known)
    one = generate_videos(models, samples, make_settings(1, num_known))

    settings = make_settings(3, num_known)
    three = generate_videos(models, samples, settings)

    added = NUM_FRAMES - num_known
    assert three.shape[1] == settings.sampling.total_pixel_frames == NUM_FRAMES + 2 * added
    assert np.array_equal(three[:, :NUM_FRAMES], one)
    again = [
        Sample(s.id, s.text_LD, video_from_frames(frames[-num_known:], settings.sampling))
        for s, frames in zip(samples, one, strict=True)
    ]
    known = encode_known_frames(models.tokenizer, again, settings)
    by_hand = decode_latents(
        models.tokenizer, generate_latents(models.net, known, again, settings, None, 1), 0.5
    )
    assert np.array_equal(three[:, NUM_FRAMES : NUM_FRAMES + added], by_hand[:, num_known:])
    same_noise = decode_latents(
        models.tokenizer, generate_latents(models.net, known, again, settings, None, 0), 0.5
    )
    assert not np.array_equal(by_hand, same_noise)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("num_known", [1, 9])
def test_finished_passes_are_taken_as_they_are_and_the_others_kept(
    folder: Path, num_known: int, count: int
) -> None:
    models, samples, settings = load(folder), make_samples(num_known), make_settings(4, num_known)
    kept: list[np.ndarray] = []
    numbers: list[int] = []

    def keep(number: int, frames: np.ndarray) -> None:
        numbers.append(number)
        kept.append(frames)

    whole = generate_videos(models, samples, settings, keep=keep)
    assert numbers == [0, 1, 2]

    steps: list[None] = []
    again = generate_videos(
        models, samples, settings, lambda: steps.append(None), finished=kept[:count]
    )

    assert np.array_equal(again, whole)
    assert len(steps) == (4 - count) * 3


def test_each_pass_has_noise_of_its_own_and_the_first_that_of_a_single_pass() -> None:
    seeds = {noise_seeds(1, "a", number) for number in range(3)}

    assert len(seeds) == 3
    assert noise_seeds(1, "a", 0) == noise_seeds(1, "a")


def test_the_next_pass_keeps_text_and_id(folder: Path) -> None:
    samples, sampling = make_samples(1), make_settings(2, 1).sampling
    frames = np.stack([moving_square(), moving_square(shift=2)])

    following = continue_samples(samples, frames, sampling)

    assert [one.id for one in following] == ["0", "1"]
    assert torch.equal(following[1].known_pixels_CTHW, video_from_frames(frames[1, -1:], sampling))


def test_every_pass_reports_its_steps(folder: Path) -> None:
    calls: list[None] = []

    generate_videos(load(folder), make_samples(1), make_settings(2, 1), lambda: calls.append(None))

    assert len(calls) == 2 * 3


# --- offload ---------------------------------------------------------------------------------


class ModelEvents:
    """Records, in order, the devices that models are moved to and the models that compute."""

    def __init__(self, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[str] = []
        net, tokenizer = models.net, models.tokenizer
        monkeypatch.setattr(net, "to", lambda device: self.events.append(f"network {device}"))
        monkeypatch.setattr(
            tokenizer, "move", lambda device: self.events.append(f"tokenizer {device}")
        )
        net.register_forward_pre_hook(lambda *_: self._once("sample"))
        for name in ("encode", "decode"):
            self._record_calls(tokenizer, name, getattr(tokenizer, name), monkeypatch)

    def _record_calls(
        self, owner: object, name: str, original: Callable, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def recording(*arguments: object) -> object:
            self._once(name)
            return original(*arguments)

        monkeypatch.setattr(owner, name, recording)

    def _once(self, event: str) -> None:
        if not self.events or self.events[-1] != event:
            self.events.append(event)


@pytest.mark.parametrize(
    ("offload", "expected"),
    [
        ((), ["encode", "sample", "decode"]),
        (("network",), ["encode", "network device", "sample", "network cpu", "decode"]),
        (
            ("tokenizer", "network"),
            ["tokenizer device", "encode", "tokenizer cpu", "network device", "sample", "network cpu",
             "tokenizer device", "decode", "tokenizer cpu"],
        ),
    ],
)  # fmt: skip
def test_offloaded_models_are_on_the_device_only_while_they_compute(
    folder: Path, monkeypatch: pytest.MonkeyPatch, offload: tuple[str, ...], expected: list[str]
) -> None:
    models = load(folder, offload=offload)
    models.device = torch.device("cuda", 5)  # a name: both models only note where they are sent
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    recorded = ModelEvents(models, monkeypatch)

    generate_videos(models, make_samples(1), make_settings(1, 1))

    assert recorded.events == [event.replace("device", "cuda:5") for event in expected]


def test_a_failing_network_is_taken_off_the_device_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = load(folder, offload=("network",))
    recorded = ModelEvents(models, monkeypatch)

    with pytest.raises(RuntimeError), models.network_at_work():
        raise RuntimeError

    assert recorded.events == ["network cpu", "network cpu"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_offload_frees_the_gpu_and_changes_nothing(folder: Path) -> None:
    wanted = generate_videos(load(folder, "cuda"), make_samples(1), make_settings(2, 1))
    models = load(folder, "cuda", ("tokenizer", "network"))
    models.net.to(HOST)
    models.tokenizer.move(HOST)

    frames = generate_videos(models, make_samples(1), make_settings(2, 1))

    assert np.array_equal(frames, wanted)
    assert {p.device.type for p in models.net.parameters()} == {"cpu"}
    with models.network_at_work():
        assert {p.device.type for p in models.net.parameters()} == {"cuda"}
