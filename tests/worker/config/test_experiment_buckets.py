"""Buckets of an experiment: what is admitted, and what they decide."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cosmos_worker.cli import main
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.identity import options_that_decide_weights
from cosmos_worker.config.presets import (
    PRESETS,
    get_experiment,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.sizes import tokens_per_sample

PUSH = "video2world_instruction_push_tiny"
PLAIN = "video2world_7b_example_cosmos_nemo_assets"
PAGE = Path(__file__).resolve().parents[3] / "docs" / "buckets.md"


def push(*buckets: tuple[int, int, int], overrides: tuple[str, ...] = ()) -> Experiment:
    entries = ", ".join(
        f"{{num_pixel_frames: {frames}, height: {height}, width: {width}}}"
        for frames, height, width in buckets
    )
    return get_experiment(PUSH, [f"buckets=[{entries}]", *overrides])


def test_overrides_set_buckets() -> None:
    experiment = push((17, 128, 160), (9, 160, 128))

    assert [bucket.size_name for bucket in experiment.windows] == ["17x128x160", "9x160x128"]
    assert [experiment.latent_frames(bucket) for bucket in experiment.windows] == [3, 2]
    assert experiment.num_latent_frames == 3


def test_experiment_without_buckets_trains_on_its_video() -> None:
    experiment = get_experiment(PUSH)

    assert experiment.windows == (experiment.video,)
    assert get_experiment(PUSH, ["buckets=[]"]) == experiment


@pytest.mark.parametrize(
    ("buckets", "overrides", "message"),
    [
        (((16, 128, 160),), (), r"buckets\.0: num_pixel_frames: 16 is not 8n\+1; use 9 or 17"),
        (((17, 128, 150),), (), r"buckets\.0: width: 150 is not a multiple of 16; use 144 or 160"),
        (
            ((9, 128, 160), (25, 128, 160)),
            (),
            r"buckets\.1\.num_pixel_frames: 25 is more than tokenizer\.chunk_pixel_frames 17 and no multiple",
        ),
        (
            ((17, 528, 160),),
            (),
            r"buckets\.0\.height: 528 is more than the network admits; use at most 512 \(net\.max_latent_size 64\)",
        ),
        (
            ((17, 128, 160), (121, 128, 160)),
            ("tokenizer.chunk_pixel_frames=121", "video.num_pixel_frames=121"),
            r"buckets\.1\.num_pixel_frames: 121 are 16 latent frames, the network admits at most 15",
        ),
        (
            ((17, 128, 160), (9, 128, 160)),
            ("conditioning.max_cond_latent_frames=2",),
            r"max_cond_latent_frames: 2 leaves no frame to generate of 2 latent frames of buckets\.1",
        ),
        (
            ((17, 128, 160), (9, 128, 160)),
            ("parallel.context_parallel=3",),
            r"parallel\.context_parallel: 3 does not divide the 2 latent frames of buckets\.1; use a number that does",
        ),
        (
            ((17, 128, 160), (9, 128, 160), (17, 128, 160)),
            (),
            r"buckets\.2: 17x128x160 is also the size of buckets\.0; remove one of them",
        ),
    ],
)
def test_bucket_that_does_not_fit_is_refused(
    buckets: tuple[tuple[int, int, int], ...], overrides: tuple[str, ...], message: str
) -> None:
    smaller = ("net.max_latent_frames=15",) if "121 are 16" in message else ()
    with pytest.raises(ConfigError, match=message):
        push(*buckets, overrides=(*overrides, *smaller))


def test_unknown_field_of_a_bucket_is_named() -> None:
    with pytest.raises(ConfigError, match=r"overrides\.buckets\.0\.frames: Extra inputs"):
        get_experiment(PUSH, ["buckets=[{frames: 17, height: 128, width: 160}]"])


def test_every_preset_admits_its_windows() -> None:
    for preset in PRESETS:
        assert Experiment.model_validate(preset.experiment.model_dump()) == preset.experiment


def test_buckets_decide_the_weights() -> None:
    one, other = push((17, 128, 160)), push((17, 128, 160), (9, 160, 128))

    assert options_that_decide_weights(one) != options_that_decide_weights(other)


def test_largest_bucket_decides_the_memory() -> None:
    small, large = (9, 256, 256), (17, 256, 320)

    assert tokens_per_sample(push(small, large)) == tokens_per_sample(push(large)) == 960
    assert tokens_per_sample(push(small)) == 512


def test_plan_counts_the_largest_bucket(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = (
        f"{{num_pixel_frames: {n}, height: {h}, width: 640}}" for n, h in ((9, 256), (57, 512))
    )
    buckets = f"buckets=[{small}, {large}]"
    command = ["plan", "--experiment", "video2world_instruction_bridge_57frames", "--gpus", "8"]

    assert main([*command, buckets, "--gpu-memory", "80GiB"]) == 0

    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line)
    assert lines["sample"] == "57 frames of 512x640 (largest of 2 buckets) = 10,240 tokens"
    assert lines["step"] == "8 samples = at most 81,920 tokens"


def test_example_in_the_docs_is_valid() -> None:
    text = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    training = yaml.safe_load(text)["training"]

    experiment = get_experiment(training["experiment"], training["overrides"])

    assert [bucket.size_name for bucket in experiment.buckets] == [
        "121x704x1280", "121x1280x704", "57x704x1280",
    ]  # fmt: skip


def test_report_names_the_buckets_instead_of_one_size() -> None:
    from cosmos_worker.report.words import describe_experiment

    buckets = push((17, 128, 160), (9, 160, 128))
    config = yaml.safe_dump({"experiment": buckets.model_dump(mode="json")})
    told = dict(describe_experiment(config))

    assert told["buckets (frames x rows x columns)"] == "17x128x160, 9x160x128"
    assert not {"frames", "rows", "columns"} & set(told)
    plain = yaml.safe_dump({"experiment": get_experiment(PUSH).model_dump(mode="json")})
    assert dict(describe_experiment(plain))["rows"] == "128"
