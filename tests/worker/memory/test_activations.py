"""Memory of decoding sample videos: the formula against the network itself, on tensors without storage."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cosmos_worker.cli import main
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import TokenizerConfig, VideoConfig
from cosmos_worker.config.presets import EXPERIMENTS
from cosmos_worker.config.values import GIB
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.activations import (
    FLOAT_VIDEOS,
    TOKENIZER_PARAMETERS,
    decoder_bytes,
    decoding_bytes,
    sample_bytes,
)
from cosmos_worker.memory.plan import Setup, plan_memory
from cosmos_worker.memory.remedies import (
    find_remedies,
    require_fit,
)
from cosmos_worker.tokenizer.network import AutoencoderConfig, CausalVideoAutoencoder
from cosmos_worker.tokenizer.tokenizer import pixels_from_video

BRIDGE = EXPERIMENTS["video2world_instruction_bridge_57frames"]
PLAIN = EXPERIMENTS["video2world_7b_example_cosmos_nemo_assets"]


class LivingBytes(TorchDispatchMode):
    """Counts the bytes of storages that operations have made and that are not freed yet."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._now = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), options: Any = None
    ) -> Any:
        result = function(*arguments, **(options or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                self._note(one.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self._now -= size


def peak_of(work: Callable[[torch.Tensor], object], *shape: int) -> int:
    x = torch.zeros(shape)
    with LivingBytes() as living, torch.no_grad():
        work(x)
    return living.peak


# --- formulas --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "rows", "columns"),
    [
        (8, 32, 40),  # behind the upsampling
        (3, 16, 20),
        (16, 40, 40),
        (16, 88, 160),  # attention
        (1, 88, 160),
    ],
)
def test_estimate_is_what_the_decoder_makes(frames: int, rows: int, columns: int) -> None:
    with FakeTensorMode():
        network = CausalVideoAutoencoder(AutoencoderConfig()).requires_grad_(False)
        peak = peak_of(network.decode, 1, 16, frames, rows, columns)
        assert sum(p.numel() for p in network.parameters()) == TOKENIZER_PARAMETERS

    assert decoder_bytes(frames, rows, columns, width=4) == pytest.approx(peak, rel=0.06)


def test_whole_video_is_made_pixels_at_once() -> None:
    with FakeTensorMode():
        peak = peak_of(pixels_from_video, 1, 3, 57, 256, 320)

    video = 3 * 57 * 256 * 320 * 4
    assert peak + video == FLOAT_VIDEOS * video


def test_chunks_are_decoded_as_the_tokenizer_does() -> None:
    one, nine, brief = (
        VideoConfig(num_pixel_frames=frames, height=256, width=320) for frames in (57, 9 * 57, 17)
    )
    alone, chunk = decoder_bytes(8, 32, 40, width=2), 57 * 256 * 320 * 3 * 4

    def peak(video: VideoConfig, batch_size: int) -> int:
        return decoding_bytes(video, TokenizerConfig(chunk_pixel_frames=57, batch_size=batch_size))

    assert peak(one, 8) == alone
    assert peak(nine, 18) == 9 * alone
    assert peak(nine, 10) == 5 * alone + 4 * chunk
    assert peak(nine, 1) == FLOAT_VIDEOS * 9 * chunk
    assert peak(brief, 8) == decoder_bytes(3, 32, 40, width=2)


# --- plan ------------------------------------------------------------------------------------


def with_samples(experiment: Experiment, **changes: Any) -> Experiment:
    trainer = experiment.trainer.model_copy(update={"sample_every_steps": 500})
    return experiment.model_copy(update={"trainer": trainer, **changes})


def test_without_sample_videos_nothing_is_counted() -> None:
    assert sample_bytes(BRIDGE) == (0, 0)
    assert plan_memory(Setup(BRIDGE)).samples == 0


def test_decoding_takes_the_place_of_gradients_and_activations() -> None:
    small = plan_memory(Setup(with_samples(BRIDGE), sharding="full"))
    large = plan_memory(
        Setup(with_samples(PLAIN), num_gpus=64, sharding="full", context_parallel=8,
              activation_checkpointing="block")
    )  # fmt: skip

    assert small.samples == small.tokenizer == TOKENIZER_PARAMETERS * 2
    without = plan_memory(Setup(BRIDGE, sharding="full"))
    assert small.total == without.total + small.tokenizer
    beyond = large.decoding - large.gradients - large.activations
    assert beyond > GIB
    assert large.samples == large.tokenizer + beyond


def test_largest_bucket_counts() -> None:
    large = BRIDGE.video.model_copy(update={"height": 512, "width": 640})
    both = with_samples(BRIDGE, buckets=(BRIDGE.video, large))

    assert sample_bytes(both)[1] == decoding_bytes(large, BRIDGE.tokenizer)


def test_sample_videos_that_do_not_fit_are_refused_with_what_would() -> None:
    setup = Setup(
        with_samples(PLAIN), num_gpus=64, sharding="full", context_parallel=8,
        activation_checkpointing="block",
    )  # fmt: skip
    without = plan_memory(replace(setup, experiment=PLAIN))
    tight = replace(setup, gpu_memory=without.total + GIB)
    assert plan_memory(replace(tight, experiment=PLAIN)).fits

    with pytest.raises(ConfigError, match=r"trainer\.sample_every_steps=null \("):
        require_fit(plan_memory(tight))
    assert all(plan_memory(one.setup).fits for one in find_remedies(tight))


def test_plan_tells_sample_videos_only_where_they_are_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["plan", "--experiment", BRIDGE.name, "--gpus", "8", "--gpu-memory", "80GiB"]

    assert main(command) == 0
    without = capsys.readouterr().out.splitlines()
    assert main([*command, "trainer.sample_every_steps=500"]) == 0
    with_them = capsys.readouterr().out.splitlines()

    (line,) = [one for one in with_them if one.startswith("sample videos")]
    assert line.split()[2] == "0.20"
    assert "tokenizer 0.2 GiB; decoding 0.3 GiB" in line
    assert with_them[: len(with_them) - 3] == without[:-2]
    total = [float(one[-1].split()[1]) for one in (without, with_them)]
    assert total[1] - total[0] == pytest.approx(0.2, abs=0.011)
