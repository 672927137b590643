"""Variables that an installation gives to all pods: containers that get them, and names that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from support.jobs import make_job

from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import plan_stages
from cosmos_operator.settings import Settings, load_settings

NETWORK = {"NCCL_SOCKET_IFNAME": "net1", "NCCL_IB_GID_INDEX": "3", "https_proxy": ""}
SECRETS = {
    "hubEndpoint": "https://hub.example.com",
    "huggingFaceSecret": {"name": "hf"},
    "wandbSecret": {"name": "wb", "key": "api-key"},
    "mlflowSecret": {"name": "ml", "key": "uri"},
    "s3Secret": {"name": "store"},
}
BACKENDS = ("PyTorchJob", "Job", "TrainJob")


def env_lists(value: Any) -> list[list[dict[str, Any]]]:
    """Every container's ``env`` below a manifest, and that of a TrainJob."""
    if isinstance(value, list):
        return [found for inner in value for found in env_lists(inner)]
    if not isinstance(value, dict):
        return []
    own = [value["env"]] if "env" in value else []
    return own + env_lists(list(value.values()))


def rendered(backend: str, settings: dict[str, Any]) -> list[list[dict[str, Any]]]:
    changes = {
        "backend": {"type": backend},
        "compute": {"nodes": 2, "gpusPerNode": 2},
        "training.overrides": ["trainer.micro_batch_size=1"],
    }
    job = make_job(changes)
    manifests = build_manifests(job, plan_stages(job), settings=Settings.model_validate(settings))
    return env_lists(manifests)


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_pods_have_them_before_what_the_operator_sets(backend: str) -> None:
    without = rendered(backend, SECRETS)
    given = [{"name": name, "value": value} for name, value in NETWORK.items()]

    assert len(without) >= 5
    assert rendered(backend, SECRETS | {"podEnvironment": NETWORK}) == [
        given + env for env in without
    ]


@pytest.mark.parametrize("backend", BACKENDS)
def test_whatever_the_operator_sets_is_refused(backend: str) -> None:
    names = {entry["name"] for env in rendered(backend, SECRETS) for entry in env}

    assert {"HOME", "HF_TOKEN", "COSMOS_SAVE_SECONDS"} <= names
    assert ("MASTER_ADDR" in names) == (backend == "Job")
    for name in names:
        with pytest.raises(ValidationError, match="cannot be given to all pods"):
            Settings.model_validate({"podEnvironment": {name: "x"}})


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PET_NNODES": "2"}, "PET_NNODES.*the backend and torchrun set the rendezvous"),
        ({"HF_TOKEN": "hf_x"}, "HF_TOKEN.*credentials come from Secrets"),
        (
            {"COSMOS_RENDEZVOUS_SECOND": "9"},
            "reserved for the operator and the worker, but for COSMOS_RENDEZVOUS_SECONDS",
        ),
        ({"NCCL-DEBUG": "INFO"}, "NCCL-DEBUG.*letters, digits and _"),
        ({"2X": "1"}, "2X.*begin with no digit"),
        ({"NCCL_IB_GID_INDEX": 3}, "podEnvironment.NCCL_IB_GID_INDEX: .*string .got 3"),
    ],
)
def test_settings_file_says_which_name_and_why(
    tmp_path: Path, environment: dict[str, Any], message: str
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(yaml.safe_dump({"podEnvironment": environment}), encoding="utf-8")

    with pytest.raises(InvalidSpec, match=message) as caught:
        load_settings(path)
    assert "hf_x" not in str(caught.value), "a value may be a credential"


def test_time_of_the_rendezvous_is_free() -> None:
    settings = Settings.model_validate({"podEnvironment": {"COSMOS_RENDEZVOUS_SECONDS": "1200"}})

    assert settings.pod_environment == {"COSMOS_RENDEZVOUS_SECONDS": "1200"}
