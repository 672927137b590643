"""The presets: numbers of the recipes, and hardware that they fit into."""

from __future__ import annotations

import pytest

from cosmos_worker.commands import preset_setup
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import (
    EXPERIMENTS,
    NET_7B,
    NET_14B,
    PRESETS,
    Preset,
)
from cosmos_worker.memory.plan import plan_memory
from cosmos_worker.memory.sizes import tokens_per_sample

PLAIN = "video2world_7b_example_cosmos_nemo_assets"


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.experiment.name)
def test_preset_is_valid(preset: Preset) -> None:
    experiment = preset.experiment

    assert Experiment.model_validate(experiment.model_dump()) == experiment
    assert EXPERIMENTS[experiment.name] is experiment
    assert "\n" not in preset.description


def test_names_are_unique() -> None:
    assert len(EXPERIMENTS) == len(PRESETS)


def test_plain_video2world_has_the_numbers_of_the_recipe() -> None:
    experiment = EXPERIMENTS[PLAIN]

    assert experiment.net == NET_7B
    assert (experiment.num_latent_frames, tokens_per_sample(experiment)) == (16, 56_320)
    assert experiment.optimizer.learning_rate == pytest.approx(2**-14.3)
    assert (experiment.trainer.max_steps, experiment.trainer.save_every_steps) == (2000, 200)
    conditioning = experiment.conditioning
    assert (conditioning.min_cond_latent_frames, conditioning.max_cond_latent_frames) == (0, 2)
    assert (conditioning.flag_dropout, experiment.text.dropout) == (0.0, 0.2)
    assert experiment.diffusion.sigma_multiplier == 4
    assert (experiment.project, experiment.group) == ("posttraining", "diffusion_video2world")


@pytest.mark.parametrize(
    ("suffix", "frames", "size", "latent_frames", "has_ema", "batch"),
    [
        ("4gpu_80gb", 121, 384, 16, True, 4),
        ("8gpu_40gb", 25, 384, 4, False, 8),
        ("4gpu_40gb", 17, 192, 3, False, 4),
    ],
)
def test_smaller_variants_have_the_sizes_of_the_reference(
    suffix: str, frames: int, size: int, latent_frames: int, has_ema: bool, batch: int
) -> None:
    experiment = EXPERIMENTS[f"{PLAIN}_{suffix}"]

    video = experiment.video
    assert (video.num_pixel_frames, video.height, video.width) == (frames, size, size)
    assert experiment.num_latent_frames == latent_frames
    assert experiment.ema.enabled is has_ema
    assert experiment.trainer.global_batch_size == batch
    assert experiment.conditioning == EXPERIMENTS[PLAIN].conditioning
    assert experiment.diffusion == EXPERIMENTS[PLAIN].diffusion


def test_14b_differs_in_network_and_batch_only() -> None:
    large = EXPERIMENTS["video2world_14b_example_cosmos_nemo_assets"]

    assert large.net == NET_14B
    assert large.video == EXPERIMENTS[PLAIN].video
    assert large.conditioning == EXPERIMENTS[PLAIN].conditioning


@pytest.mark.parametrize(
    "preset",
    [preset for preset in PRESETS if preset.hardware],
    ids=lambda preset: preset.experiment.name,
)
def test_preset_fits_its_hardware(preset: Preset) -> None:
    setup = preset_setup(preset)

    assert setup is not None
    assert plan_memory(setup).fits
