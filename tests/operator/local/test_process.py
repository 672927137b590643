"""Manifests as processes of this machine."""

import sys

import pytest
import yaml
from support.jobs import make_job
from support.stage_processes import make_process

from cosmos_operator.local.process import (
    build_processes,
    order,
)
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.config.stages import STAGE_CONFIGS


def processes_of(tmp_path, changes=None):
    job = make_job(changes)
    stages = plan_stages(job)
    return stages, build_processes(build_manifests(job, stages), tmp_path)


@pytest.mark.parametrize("backend", ["PyTorchJob", "Job"])
def test_each_workload_becomes_the_worker_with_its_document(tmp_path, backend):
    stages, processes = processes_of(tmp_path, {"backend": {"type": backend}})

    assert [p.stage for p in processes] == [s.name for s in stages]
    for stage, process in zip(stages, processes, strict=True):
        path = tmp_path / "stages" / stage.name / "stage.yaml"
        command = [sys.executable, "-m", "cosmos_worker.cli", stage.kind, "--config", str(path)]
        assert list(process.command[:6]) == command
        assert load_stage_config(stage.kind, path, []) == stage.document
        assert process.key == stage.key
        assert process.depends_on == stage.depends_on


def process_of(processes, stage):
    return next(process for process in processes if process.stage == stage)


def test_training_starts_the_processes_of_one_node(tmp_path):
    _, processes = processes_of(
        tmp_path, {"compute.nodes": 2, "training.overrides": ["trainer.micro_batch_size=4"]}
    )

    assert process_of(processes, "train").command[-2:] == ("--nproc-per-node", "2")


def test_claims_become_folders_of_the_workspace(tmp_path):
    changes = {"storage": {"models": {"claimName": "mine", "subPath": ""}}}
    _, processes = processes_of(tmp_path, changes)
    train = process_of(processes, "train")
    environment = train.environment

    assert environment["COSMOS_MODELS"] == f"{tmp_path}/mine"
    assert environment["COSMOS_CHECKPOINTS"] == f"{tmp_path}/cosmos/checkpoints"
    assert (tmp_path / "cosmos" / "checkpoints").is_dir()
    assert train.target == tmp_path / "cosmos" / "checkpoints" / f"push-{train.key}"
    assert environment["COSMOS_TERMINATION_LOG"] == f"{tmp_path}/stages/train/termination.json"


def test_claims_that_a_source_names_are_found_in_the_document(tmp_path):
    source = {"claim": {"claimName": "lab", "path": "cubes"}}
    processes_of(tmp_path, {"dataset.source": source})

    document = yaml.safe_load((tmp_path / "stages" / "prepare-dataset" / "stage.yaml").read_text())
    assert document["source"]["path"] == f"{tmp_path}/lab/cubes"
    STAGE_CONFIGS["prepare-dataset"].model_validate(document)


def test_home_and_secrets_stay_those_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("HF_TOKEN", "mine")
    _, processes = processes_of(tmp_path, {"credentials": {"huggingFace": {"name": "hub"}}})

    assert processes[0].environment["HOME"] == "/home/somebody"
    assert processes[0].environment["HF_TOKEN"] == "mine"
    assert process_of(processes, "train").environment["HF_HUB_OFFLINE"] == "1"


def test_order_puts_each_stage_after_its_dependencies(tmp_path):
    last = make_process(tmp_path, "", "train", ("embed-text",))
    first = make_process(tmp_path, "", "embed-text")

    assert [p.stage for p in order([last, first])] == ["embed-text", "train"]


def test_order_refuses_a_circle(tmp_path):
    circle = make_process(tmp_path, "", "train", ("train",))

    with pytest.raises(ValueError, match="wait for each other or for one that is not there: train"):
        order([circle])
