"""Digests of sources in a job: demanded for programs, carried to the worker, refused where they do nothing."""

from __future__ import annotations

from typing import Any

import pytest
from support.jobs import make_job

from cosmos_operator.api.crd import build_crd
from cosmos_operator.api.models import TORCHSCRIPT_NEEDS
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.render import build_manifests, to_yaml
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.config.stages import FetchModelConfig

PIN = "0123456789abcdef" * 4
SOURCES: dict[str, dict[str, Any]] = {
    "claim": {"path": "tokenizer"},
    "huggingFace": {"repo": "nvidia/Tokenizer"},
    "s3": {"uri": "s3://bucket/tokenizer"},
    "url": {"url": "https://example.com/tokenizer.tar"},
}


def tokenizer(kind: str, runtime: str, pin: str | None) -> dict[str, Any]:
    source = {**SOURCES[kind], **({"sha256": pin} if pin else {})}
    return {"name": "T", "source": {kind: source}, "runtime": runtime}


@pytest.mark.parametrize("kind", SOURCES)
def test_torchscript_needs_a_digest(kind: str) -> None:
    assert make_job({"tokenizer": tokenizer(kind, "TorchScript", PIN)})
    assert make_job({"tokenizer": tokenizer(kind, "Native", None)})
    with pytest.raises(InvalidSpec, match="needs their digest in the job"):
        make_job({"tokenizer": tokenizer(kind, "TorchScript", None)})


def test_torchscript_of_the_hub_by_name_needs_a_source() -> None:
    with pytest.raises(InvalidSpec, match="needs their digest in the job"):
        make_job({"tokenizer": {"name": "T", "runtime": "TorchScript"}})


def test_rule_of_the_crd_is_there() -> None:
    (version,) = build_crd()["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    rules = spec["properties"]["tokenizer"]["x-kubernetes-validations"]

    assert TORCHSCRIPT_NEEDS in [rule["message"] for rule in rules]


@pytest.mark.parametrize("kind", ["claim", "huggingFace", "s3"])
def test_digest_reaches_the_worker_and_its_document_needs_a_worker_that_knows_it(kind: str) -> None:
    job = make_job({"tokenizer": tokenizer(kind, "TorchScript", PIN)})
    stages = plan_stages(job)
    document = stages[0].document

    assert isinstance(document, FetchModelConfig)
    assert [one.sha256 for one in document.artifacts] == [None, PIN, None]
    config_map = next(one for one in build_manifests(job, stages) if one["kind"] == "ConfigMap")
    assert "version: 3" in config_map["data"]["stage.yaml"]
    assert PIN in to_yaml([config_map])


def test_digest_changes_no_folder() -> None:
    """A pin says what the content must be: another content is refused, so that the folder stays the same."""
    folders = []
    for given in (tokenizer("claim", "Native", None), tokenizer("claim", "Native", PIN)):
        document = plan_stages(make_job({"tokenizer": given}))[0].document
        assert isinstance(document, FetchModelConfig)
        folders.append([one.target_uri for one in document.artifacts])

    assert folders[0] == folders[1]


@pytest.mark.parametrize("kind", ["claim", "huggingFace", "s3"])
def test_digest_of_a_dataset_is_refused_with_what_pins_it(kind: str) -> None:
    with pytest.raises(InvalidSpec, match="a dataset is pinned by a commit"):
        make_job({"dataset.source": {kind: {**SOURCES[kind], "sha256": PIN}}})
