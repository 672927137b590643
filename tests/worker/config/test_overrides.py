from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from support.training import small_experiment, train_config

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.moved_options import MOVED_OPTIONS
from cosmos_worker.config.overrides import (
    all_keys,
    apply_overrides,
    load_stage_config,
    parse_override,
)
from cosmos_worker.config.presets import (
    EXPERIMENTS,
    get_experiment,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.volumes import run_folder

BRIDGE = "video2world_instruction_bridge_57frames"


def test_bridge_experiment_has_the_numbers_of_the_recipe() -> None:
    experiment = EXPERIMENTS[BRIDGE]

    assert experiment.optimizer.learning_rate == pytest.approx(4.957595192603974e-05, rel=1e-12)
    assert (experiment.optimizer.weight_decay, experiment.optimizer.eps) == (0.1, 1e-10)
    assert (experiment.optimizer.beta1, experiment.optimizer.beta2) == (0.9, 0.99)
    assert (experiment.trainer.max_steps, experiment.trainer.save_every_steps) == (2000, 500)
    assert (experiment.video.num_pixel_frames, experiment.video.height, experiment.video.width) == (
        57,
        256,
        320,
    )
    assert experiment.num_latent_frames == 8
    assert (experiment.diffusion.p_mean, experiment.diffusion.p_std) == (0, 1)
    assert experiment.conditioning.max_cond_latent_frames == 1
    assert (experiment.text.dropout, experiment.conditioning.flag_dropout) == (0.2, 0.2)
    assert (experiment.project, experiment.group) == (
        "posttraining",
        "diffusion_video2world_instruction",
    )


def test_overrides_change_values_of_any_type() -> None:
    experiment = get_experiment(
        BRIDGE,
        [
            "optimizer.learning_rate=1e-4",
            "compat.trimmed_text=true",
            "trainer.max_steps=7",
            "video.fps=5",
            "ema.enabled=false",
        ],
    )

    assert experiment.optimizer.learning_rate == 1e-4
    assert experiment.text_padding == "trim"
    assert experiment.trainer.max_steps == 7
    assert experiment.video.fps == 5
    assert experiment.ema.enabled is False
    assert EXPERIMENTS[BRIDGE].trainer.max_steps == 2000


def test_override_may_set_null() -> None:
    assert (
        get_experiment(
            BRIDGE, ["optimizer.warmup_steps=3", "optimizer.warmup_steps=null"]
        ).optimizer.warmup_steps
        is None
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.learning_rat=1",
            r"unknown key 'learning_rat' .* did you mean 'optimizer\.learning_rate'\? allowed here",
        ),
        ("optimiser.eps=1", r"unknown key 'optimiser' .* did you mean 'optimizer\.eps'"),
        ("optimizer.eps.x=1", r"unknown key 'x' .* nothing below a value"),
        ("optimizer.eps", r"expected key\.sub=value"),
        ("=3", r"expected key\.sub=value"),
        ("text.dropout=[", r"is not a YAML value"),
        (
            "parallel.sharding=left",
            r"overrides\.parallel\.sharding: .*'none', 'full' or 'hybrid'.*got 'left'",
        ),
        ("optimizer.learning_rate=0", r"optimizer\.learning_rate: .*greater than 0.*got 0"),
        ("video.num_pixel_frames=58", r"58 is not 8n\+1; use 57 or 65"),
        (
            "parallel.context_parallel=3",
            r"parallel\.context_parallel: 3 does not divide the 8 latent frames of video; use a number that does",
        ),
        ("video.height=250", r"height: 250 is not a multiple of 16; use 240 or 256"),
        ("net.num_heads=30", r"num_heads: 30 does not divide model_channels 4096"),
        (
            "conditioning.max_cond_latent_frames=8",
            r"8 leaves no frame to generate of 8 latent frames",
        ),
        (
            "trainer.micro_batch_size=3",
            r"global_batch_size: 8 is not a multiple of trainer\.micro_batch_size 3",
        ),
    ],
)
def test_bad_override_is_explained(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_experiment(BRIDGE, [override])


def test_trimmed_captions_do_not_share_a_micro_batch() -> None:
    with pytest.raises(
        ConfigError,
        match=r"compat\.trimmed_text: .* use false, or trainer\.micro_batch_size=1 \(got 8\)",
    ):
        get_experiment("video2world_instruction_push_tiny", ["compat.trimmed_text=true"])


@pytest.mark.parametrize(
    ("override", "was", "now"),
    [
        ("net.num_blocks=2", "got 2", "were trained with 28"),
        ("net.rope_ratio_h=2", "got 2.0", "were trained with 1.0"),
        ("diffusion.sigma_data=1", "got 1.0", "were trained with 0.5"),
    ],
)
def test_what_the_checkpoint_decides_is_chosen_with_fresh_weights_only(
    override: str, was: str, now: str
) -> None:
    with pytest.raises(ConfigError, match=f"{was}, but the checkpoints of {BRIDGE} {now}; leave"):
        get_experiment(BRIDGE, [override])
    fresh = get_experiment(BRIDGE, [override, "trainer.init=random"])
    assert fresh != get_experiment(BRIDGE, ["trainer.init=random"])


def test_overrides_of_a_document_do_not_change_what_the_checkpoint_decides(tmp_path: Path) -> None:
    document = train_config(tmp_path, small_experiment())
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(document.model_dump(mode="json")))

    with pytest.raises(ConfigError, match=r"net\.num_blocks: got 3, but the checkpoints of"):
        load_stage_config("train", path, ["experiment.net.num_blocks=3"])


@pytest.mark.parametrize("path", MOVED_OPTIONS)
def test_moved_option_is_answered_with_what_is_used_instead(path: str) -> None:
    document = train_config(Path("runs"), small_experiment())

    assert path not in all_keys(Experiment)
    assert [key for key in all_keys(Experiment) if key in MOVED_OPTIONS[path]], "an option of today"
    with pytest.raises(ConfigError, match="is no option any more; "):
        get_experiment(BRIDGE, [f"{path}=1"])
    with pytest.raises(ConfigError, match="is no option any more; "):
        apply_overrides(document, [f"experiment.{path}=1"])


@pytest.mark.parametrize(
    "option",
    [
        "parallel.context_parallel=2",
        "acceleration.attention=transformer_engine",
        "acceleration.linear=transformer_engine_float8",
    ],
)
def test_options_that_are_not_compiled_do_not_go_with_compiling_everywhere(option: str) -> None:
    overrides = [option, "parallel.activation_checkpointing=block"]

    with pytest.raises(
        ConfigError,
        match=f"acceleration\\.compile: 'enabled' does not admit {option}; use 'auto'",
    ):
        get_experiment(BRIDGE, [*overrides, "acceleration.compile=enabled"])
    get_experiment(BRIDGE, [*overrides, "acceleration.compile=auto"])


def test_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError,
        match=r"got 'video2world_instruct_bridge'; did you mean 'video2world_instruction_bridge",
    ):
        get_experiment("video2world_instruct_bridge")


def test_several_problems_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        get_experiment(BRIDGE, ["optimizer.eps=-1", "parallel.sharding=left"])

    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("2", 2),
        ("true", True),
        ("[1, 2]", [1, 2]),
        ("name", "name"),
        ("null", None),
    ],
)
def test_values_of_overrides_are_yaml(text: str, value: object) -> None:
    assert parse_override(f"a.b={text}") == ("a.b", value)


def test_abbreviated_key_is_told_by_its_initials():
    with pytest.raises(ConfigError, match=r"did you mean 'optimizer\.learning_rate'"):
        get_experiment("video2world_instruction_push_tiny", ["optimizer.lr=1e-5"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer=5", "trainer.log_every_steps=1"],
            "trainer is set to the value '5' by another override",
        ),
        (["net=[1]", "net.num_heads=1"], r"net is set to the value '\[1\]' by another override"),
        (["trainer={}", "trainer.seed.x=1"], "unknown key 'x'"),
        (["video.fps=.nan"], "is no number that Kubernetes has"),
        (["video.fps=nan"], "should be a finite number"),
        (["video.fps=1e400"], "should be a finite number"),
        (["optimizer.learning_rate=1e300"], "less than or equal to"),
        (["trainer.max_steps=" + "9" * 400], "unable to parse|less than or equal"),
        (["trainer.seed=9223372036854775808"], "less than 9223372036854775808"),
        (["trainer.max_steps=1000000001"], "less than or equal to 1000000000"),
        (["trainer.max_steps=2001-99-99"], "valid integer"),
        (["trainer.trackers=[&a wandb, *a]"], "has an anchor or an alias"),
        (["video.fps=!!float abc"], "'abc' is no !!float"),
        (["project=../../OUTSIDE"], "is not the name of one folder"),
        (["project=/tmp/OUTSIDE"], "is not the name of one folder"),
        (["group=.."], "is not the name of one folder"),
        (["group=a/b"], "is not the name of one folder"),
        (["group=a\x00b"], "not YAML"),
        (['group="a\\nb"'], "is not the name of one folder"),
        (["project=''"], "at least 1 character"),
        (["project=.hidden"], "is not the name of one folder"),
        (["x" * 70_000], "has 70000 characters"),
    ],
)
def test_hostile_override_is_refused_in_short_lines(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        get_experiment("video2world_instruction_push_tiny", overrides)

    assert max(map(len, str(raised.value).splitlines())) < 1000


def test_run_of_a_path_as_name_is_refused(tmp_path: Path) -> None:
    for wrong in ("..", "a/b", "/etc", "a\n", ""):
        with pytest.raises(ConfigError, match="not the name of one folder"):
            run_folder(tmp_path, "project", "group", wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: " + "[" * 3000 + "]" * 3000, "not YAML"),
        ("a: " + "9" * 5000, "not YAML: Exceeds the limit"),
        ("a: 2001-99-99", "not YAML: month must be in 1..12"),
        ("a: !!int abc", "not YAML"),
        ("a: !!python/object:os.system x", "not YAML"),
        ("a: &a {x: 1}\nb: {<<: *a}", "merges another mapping"),
        ("{a: 1", "not YAML"),
    ],
)
def test_hostile_stage_document_is_refused_in_a_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "stage.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError, match=message) as raised:
        load_stage_config("train", path, [])

    assert "\n" not in str(raised.value)


def test_pipe_is_no_stage_document(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(ConfigError, match="is a pipe or a device"):
        load_stage_config("train", tmp_path / "pipe", [])
