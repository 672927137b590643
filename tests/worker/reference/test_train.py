"""The reference's command line: the translation of each of its options, and the options that are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.training import write_model, write_training_inputs

from cosmos_worker.cli import main
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.overrides import all_keys
from cosmos_worker.config.presets import EXPERIMENTS
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.reference.train import read_request
from cosmos_worker.reference.train_options import ELSEWHERE, KNOWN, read_options

BRIDGE = "video2world_instruction_bridge_57frames"
PLACES = ["--dataset", "/d", "--embeddings", "/e", "--latents", "/l", "--model", "/m/model.pt"]
CONFIG = "--config=cosmos_predict1/diffusion/training/config/config.py"
CONDITION = "model.conditioner.video_cond_bool."


def read(*words: str, world_size: int = 8) -> Experiment:
    return read_options([f"experiment={BRIDGE}", *words], world_size).experiment


def value_of(experiment: Experiment, path: str) -> object:
    value: object = experiment
    for part in path.split("."):
        value = getattr(value, part)
    return value


def test_experiment_alone_has_the_numbers_of_the_preset() -> None:
    assert read() == EXPERIMENTS[BRIDGE]


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("job.project=mine", {"project": "mine"}),
        ("job.group=robots", {"group": "robots"}),
        ("trainer.max_iter=100", {"trainer.max_steps": 100}),
        ("trainer.logging_iter=5", {"trainer.log_every_steps": 5}),
        ("trainer.validation_iter=50", {"trainer.validate_every_steps": 50}),
        ("trainer.seed=4", {"trainer.seed": 4}),
        ("trainer.distributed_parallelism=ddp", {"parallel.sharding": "none"}),
        ("checkpoint.save_iter=7", {"trainer.save_every_steps": 7}),
        (
            "dataloader_train.batch_size=2",
            {"trainer.micro_batch_size": 2, "trainer.global_batch_size": 16},
        ),
        ("optimizer.lr=1e-4", {"optimizer.learning_rate": 1e-4}),
        ("optimizer.weight_decay=0.3", {"optimizer.weight_decay": 0.3}),
        ("optimizer.betas=[0.8,0.95]", {"optimizer.beta1": 0.8, "optimizer.beta2": 0.95}),
        ("optimizer.eps=1e-8", {"optimizer.eps": 1e-8}),
        ("scheduler.warm_up_steps=[2500]", {"optimizer.warmup_steps": 2500}),
        ("scheduler.f_start=[1e-6]", {"optimizer.learning_rate": 2**-14.3}),
        ("scheduler.f_min=[0.5]", {"optimizer.final_factor": 0.5}),
        ("scheduler.f_max=[1.0]", {"optimizer.learning_rate": 2**-14.3}),
        ("model.ema.enabled=False", {"ema.enabled": False}),
        ("model.ema.rate=0.05", {"ema.rate": 0.05}),
        (
            "model.latent_shape=[16,8,48,40]",
            {"video.num_pixel_frames": 57, "video.height": 384, "video.width": 320},
        ),
        ("model.vae.pixel_chunk_duration=57", {"tokenizer.chunk_pixel_frames": 57}),
        ("model.loss_add_logvar=False", {"diffusion.use_logvar": False}),
        ("model.sigma_data=0.5", {"diffusion.sigma_data": 0.5}),
        ("model.sde.p_mean=0.2", {"diffusion.p_mean": 0.2}),
        ("model.sde.p_std=1.2", {"diffusion.p_std": 1.2}),
        ("model.precision=bfloat16", {"diffusion.compute_dtype": "bfloat16"}),
        ("model.fsdp.checkpoint=True", {"parallel.activation_checkpointing": "block"}),
        (
            "model.context_parallel_size=2",
            {"parallel.context_parallel": 2, "trainer.global_batch_size": 4},
        ),
        ("model_parallel.context_parallel_size=4", {"parallel.context_parallel": 4}),
        ("model.conditioner.text.dropout_rate=0.1", {"text.dropout": 0.1}),
        (f"{CONDITION}dropout_rate=0.3", {"conditioning.flag_dropout": 0.3}),
        (
            f"{CONDITION}first_random_n_num_condition_t_min=1",
            {"conditioning.min_cond_latent_frames": 1},
        ),
        (
            f"{CONDITION}first_random_n_num_condition_t_max=2",
            {"conditioning.max_cond_latent_frames": 2},
        ),
        (f"{CONDITION}augment_sigma_sample_p_mean=-3", {"compat.strong_known_frame_noise": False}),
        ("++trainer.max_iter=9", {"trainer.max_steps": 9}),
        ("lora.rank=4", {"lora.rank": 4}),
    ],
)
def test_option_becomes_ours(word: str, expected: dict[str, object]) -> None:
    experiment = read(word)

    assert {path: value_of(experiment, path) for path in expected} == expected


def test_every_known_option_is_tested_above() -> None:
    marks = test_option_becomes_ours.pytestmark[0].args[1]  # type: ignore[attr-defined]

    assert set(KNOWN) <= {word.partition("=")[0] for word, _ in marks}


def test_samples_of_a_step_follow_the_processes() -> None:
    assert read(world_size=4).trainer.global_batch_size == 4
    assert read("trainer.global_batch_size=32", world_size=4).trainer.global_batch_size == 32


def test_all_problems_are_told_at_once() -> None:
    words = ["optimizer.learnig_rate=1", "trainer.grad_accum_iter=2", "scheduler.f_max=[0.5]"]
    with pytest.raises(ConfigError) as caught:
        read(*words, "dataloader_train.dataset.num_frames=9", "scheduler.warm_up_steps=[1,2]")

    assert str(caught.value).splitlines() == [
        "after --: optimizer.learnig_rate: unknown option; did you mean optimizer.learning_rate?",
        "after --: trainer.grad_accum_iter: is not an option here; its work does trainer.global_batch_size: the "
        "samples of a step, in as many passes as they take",
        "after --: scheduler.f_max: got [0.5]; supported: 1",
        "after --: dataloader_train.dataset.num_frames: is not an option here; its work does the documents of "
        "prepare-dataset and cache-latents, which come before the training",
        "after --: scheduler.warm_up_steps: got [1, 2]; one cycle is supported, give one value",
    ]


NOISE = {"p_mean": 0, "p_std": 1, "multiplier": 4}


def test_noise_on_known_frames_is_the_bridge_configurations_whole_or_ours() -> None:
    words = [f"{CONDITION}augment_sigma_sample_{name}={value}" for name, value in NOISE.items()]

    assert read(*words).compat.strong_known_frame_noise
    with pytest.raises(ConfigError, match=r"got .*p_mean=0; supported: none of these options, or"):
        read(words[0])


@pytest.mark.parametrize(
    "word", ["net.num_blocks=2", "model.sigma_data=0.4", "net.max_latent_frames=64"]
)
def test_what_the_checkpoint_decides_is_not_changed(word: str) -> None:
    with pytest.raises(ConfigError, match=r"the checkpoints of .* were trained with"):
        read(word)
    assert read(word, "trainer.init=random")


def test_moved_option_is_answered_with_its_new_name() -> None:
    with pytest.raises(ConfigError, match=r"'trim' is compat\.trimmed_text=true"):
        read("text.padding=trim")


def test_values_are_checked_as_ours_are() -> None:
    with pytest.raises(ConfigError, match=r"after --\.trainer\.max_steps: .* greater than 0"):
        read("trainer.max_iter=0")


def test_no_option_is_both_known_and_refused() -> None:
    assert not set(KNOWN) & set(ELSEWHERE)
    assert not set(ELSEWHERE) & set(all_keys(Experiment))


def test_document_has_the_places_and_the_name() -> None:
    words = ["--", f"experiment={BRIDGE}", "job.name=first", "trainer.max_iter=5"]

    config = read_request([CONFIG, *PLACES, *words], {"OUTPUT_ROOT": "/out"}).config

    assert (config.target_uri, config.run_name, config.model_uri) == (
        "/out",
        "first",
        "/m/model.pt",
    )
    assert (config.dataset_uri, config.embeddings_uri, config.latents_uri) == ("/d", "/e", "/l")
    other = read_request([*PLACES, *words, "trainer.seed=1"], {"OUTPUT_ROOT": "/out"}).config
    assert config.key != other.key


def test_places_come_from_the_environment_and_the_load_path() -> None:
    environment = {f"COSMOS_TRAIN_{n}": f"/{n}" for n in ("DATASET", "EMBEDDINGS", "LATENTS")}
    words = ["--", f"experiment={BRIDGE}", "checkpoint.load_path=/w/model.pt"]

    config = read_request([CONFIG, *words], environment).config

    assert (config.dataset_uri, config.model_uri) == ("/DATASET", "/w/model.pt")
    assert config.target_uri == "checkpoints"


def test_places_that_nothing_names_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        read_request([CONFIG, "--", f"experiment={BRIDGE}"], {"COSMOS_TRAIN_DATASET": "/d"})

    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["embeddings", "latents", "model"]
    assert "name the results of embed-text with --embeddings or COSMOS_TRAIN_EMBEDDINGS" in lines[0]


def test_dry_run_prints_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", CONFIG, "--dryrun", *PLACES, "--", f"experiment={BRIDGE}"]) == 0

    printed = TrainConfig.model_validate(yaml.safe_load(capsys.readouterr().out))
    assert printed.experiment.name == BRIDGE


def test_unknown_experiment_ends_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    assert main(["train", *PLACES, "--", "experiment=video2world_instruction_bridge"]) == 2


TINY = [
    "experiment=video2world_instruction_push_tiny", "job.name=small", "trainer.max_iter=3",
    "checkpoint.save_iter=3", "trainer.logging_iter=1", "dataloader_train.batch_size=2",
    "model.latent_shape=[16,3,4,4]", "model.ema.enabled=True", "text.max_length=8",
    "net.model_channels=32", "net.num_blocks=2", "net.num_heads=2", "net.text_channels=16",
    "net.adaln_lora_dim=8", "net.max_latent_size=16", "net.max_latent_frames=8", "trainer.init=random",
]  # fmt: skip


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_torchrun_trains_with_the_words_of_the_reference(tmp_path: Path) -> None:
    write_training_inputs(tmp_path)
    write_model(tmp_path / "model.pt")
    places = {"DATASET": "index", "EMBEDDINGS": "text", "LATENTS": "latents", "MODEL": "model.pt"}
    environment = {f"COSMOS_TRAIN_{name}": str(tmp_path / path) for name, path in places.items()}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

    done = subprocess.run(
        [*command, "-m", "cosmos_worker.cli", "train", CONFIG, "--", *TINY],
        env={
            **os.environ,
            **environment,
            "OUTPUT_ROOT": str(tmp_path / "out"),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    run = tmp_path / "out" / "posttraining" / "diffusion_video2world_instruction" / "small"
    assert (run / "checkpoints" / "iter_000000003_reg_model.pt").is_file()
    document = yaml.safe_load((run / "train.yaml").read_text())
    assert document["experiment"]["trainer"]["global_batch_size"] == 4
