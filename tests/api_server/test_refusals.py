"""The API server's refusals of PostTrainingJobs: every limit of the schema and every CEL rule, with its message."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from support.scenario_world import Jobs, Refusal
from support.schema_limits import Limit, api_path, find_limits, with_value

from cosmos_operator.api.base import RULES
from cosmos_operator.api.crd import build_schema
from cosmos_operator.api.quantities import GPU_ADVICE, RESOURCE_NAMES

pytestmark = pytest.mark.api_server

SPEC = build_schema()["properties"]["spec"]
LIMITS = list(find_limits(SPEC, ("spec",)))
ITEM = {"name": "clip", "inputs": [{"prompt": "push it", "conditioning": "/x.png"}]}
PATH = {"path": "/x"}
BOTH = {"path": "/x", "huggingFace": {"repo": "lab/x"}}

CREATED: list[tuple[dict[str, Any], str]] = [
    ({"dataset": {"source": BOTH}}, "give exactly one of path, claim, url, huggingFace, s3"),
    ({"dataset": {"source": {}}}, "give exactly one of path, claim, url, huggingFace, s3"),
    (
        {"compute": {"gpusPerNode": 4, "processesPerNode": 2}},
        "processesPerNode must equal gpusPerNode; omit it where there are GPUs",
    ),
    ({"inference": [{"name": "clip"}]}, "give exactly one of inputs and inputsFile"),
    ({"inference": [{**ITEM, "inputsFile": "/x"}]}, "give exactly one of inputs and inputsFile"),
    (
        {"inference": [{**ITEM, "gpus": 4, "processes": 2}]},
        "processes must equal gpus; omit it where there are GPUs",
    ),
    (
        {"inference": [{**ITEM, "parameters": {"numPixelFrames": 58}}]},
        "numPixelFrames must be 8n+1, such as 57 or 121",
    ),
    (
        {"inference": [{**ITEM, "promptUpsampler": True}]},
        "an inference item has promptUpsampler, which needs spec.promptUpsampler.source",
    ),
    (
        {"inference": [{**ITEM, "guardrails": True}], "promptUpsampler": {"source": PATH}},
        "an inference item has guardrails, which needs spec.guardrails.source",
    ),
    (
        {"guardrails": {"source": PATH, "imageEncoder": PATH}},
        "give all of source, textClassifier and imageEncoder, or none",
    ),
    (
        {"outputs": {"checkpoint": "Best", "step": 4}},
        "give step, or checkpoint: Best, not both",
    ),
    (
        {"scheduling": {"tolerations": [{"key": "gpu", "tolerationSeconds": 5}]}},
        "tolerationSeconds needs effect NoExecute",
    ),
    ({"scheduling": {"tolerations": [{"value": "a"}]}}, "give a key, or operator Exists"),
    (
        {"scheduling": {"tolerations": [{"operator": "Exists", "value": "a"}]}},
        "operator Exists is for any value; remove value, or use Equal",
    ),
    ({"compute": {"resources": {"limits": {"meomry": "8Gi"}}}}, RESOURCE_NAMES),
    ({"compute": {"resources": {"limits": {"nvidia.com/gpu": 4}}}}, f"a GPU {GPU_ADVICE}"),
    (
        {"compute": {"gpuResourceName": "a.b/card", "resources": {"limits": {"a.b/card": 1}}}},
        "the resource of gpuResourceName stands in resources too; give gpusPerNode alone",
    ),
    (
        {"compute": {"resources": {"requests": {"cpu": 3}, "limits": {"cpu": "2500m"}}}},
        "a request is above the limit of its resource; raise the limit, or lower the request",
    ),
    (
        {"compute": {"resources": {"requests": {"rdma/hca": 1}}}},
        "a request of hugepages or of a device needs a limit of the same quantity; give it in limits alone",
    ),
    (
        {"storage": {"models": {"create": {"size": "0Gi"}}}},
        "a claim needs a size above 0, such as 500Gi",
    ),
    (
        {"scheduling": {"nodeSelector": {"my label": "x"}}},
        "a key of a label is NAME or DOMAIN/NAME, of letters, digits and -_. inside",
    ),
    (
        {"checkpoints": {"from": {"job": "a", "folder": "checkpoints://a"}}},
        "give exactly one of job and folder",
    ),
    (
        {"tokenizer": {"runtime": "TorchScript", "source": {"huggingFace": {"repo": "a/b"}}}},
        "TorchScript runs the programs in the files, so it needs their digest in the job: give source.claim, "
        "huggingFace, s3 or url with sha256, or source.path",
    ),
    (
        {"dataset": {"source": {"huggingFace": {"repo": "a/b", "sha256": "0" * 64}}}},
        "sha256 of claim, huggingFace and s3 is for models; a dataset is pinned by a commit in "
        "huggingFace.revision, or as an archive by url.sha256",
    ),
    (
        {"guardrails": {"faceBlur": True}},
        "faceBlur: there are no guardrails; give source, textClassifier and imageEncoder, or remove it",
    ),
]
"""Fields of a new job, and the message of the rule that they break."""

ADVICE = "cannot be changed; create another PostTrainingJob (finished stages are shared)"
EDITED: list[tuple[dict[str, Any], str]] = [
    ({"model": {"name": "Other"}}, f"model {ADVICE}"),
    ({"tokenizer": {"name": "Other"}}, f"tokenizer {ADVICE}"),
    ({"dataset": {"camera": 1}}, f"dataset {ADVICE}"),
    ({"embeddings": {"maxLength": 9}}, f"embeddings {ADVICE}"),
    (
        {"training": {"steps": 9}},
        "training.steps may only grow; create another PostTrainingJob for fewer steps",
    ),
    ({"training": {"seed": 9}}, f"training.experiment and training.seed {ADVICE}"),
    ({"training": {"experiment": "other"}}, f"training.experiment and training.seed {ADVICE}"),
    ({"checkpoints": {"from": {"job": "other"}}}, f"checkpoints.from {ADVICE}"),
    (
        {"storage": {"models": {"claimName": "other"}}},
        "the claim and the folder of a volume cannot be changed, because the job's files are there; create another "
        "PostTrainingJob, which prepares its files anew",
    ),
    ({"promptUpsampler": {"source": PATH}}, f"promptUpsampler {ADVICE}"),
    (
        {"guardrails": {"source": PATH, "textClassifier": PATH, "imageEncoder": PATH}},
        f"guardrails {ADVICE}",
    ),
    ({"inference": []}, "inference items cannot be removed; append new ones"),
    (
        {"inference": [{**ITEM, "gpus": 1}]},
        "inference items cannot be changed; append one with another name",
    ),
]
"""Changes to a job with an inference item, and the message of the rule that they break."""

AFTER_TRAINING = (
    "outputs cannot be changed once the model is being published; create another PostTrainingJob with "
    "spec.checkpoints.from.job: NAME OF THIS ONE, which takes its training over"
)
AFTER_ACCEPTANCE = (
    "outputs.name cannot be changed once the job is accepted, because the name is reserved for it, unless the job "
    "has failed; create another PostTrainingJob with spec.checkpoints.from.job: NAME OF THIS ONE, which takes its "
    "training over"
)
AFTER_SUCCESS = (
    "the job has succeeded, which is final; create another PostTrainingJob with more steps and "
    "spec.checkpoints.from.job: NAME OF THIS ONE, which continues its training where the learning rate is constant "
    "after its warm-up"
)

PACE = [
    {"runPolicy": {"suspend": False, "maxAttempts": 9, "stallTimeoutSeconds": 60}},
    {"runPolicy": {"retry": 1}},
    {"scheduling": {"priorityClassName": "high", "nodeSelector": {"a": "b"}, "queueName": "other"}},
    {"compute": {"image": "worker:2", "nodes": 4, "resources": {"limits": {"memory": "64Gi"}}}},
    {"backend": {"type": "Job"}},
    {"outputs": {"name": "other", "weights": "Regular"}},
    {"checkpoints": {"everySteps": 5, "everyMinutes": 30, "keepLast": 9}},
    {"training": {"steps": 1000, "overrides": ["trainer.micro_batch_size=1"]}},
    {"storage": {"models": {"create": {"size": "1Gi"}}}},
    {"credentials": {"huggingFace": {"name": "hub"}}},
    {"inference": [ITEM, {**ITEM, "name": "more"}]},
]
"""Changes that are admitted."""

AFTER_THE_END = (
    "spec.inference cannot grow once the job has ended; create an InferenceJob with spec.model.job"
)
"""Tried in test_schema.py."""


def rule_messages(schema: dict[str, Any]) -> set[str]:
    """Messages of all rules below a schema."""
    found = {rule["message"] for rule in schema.get(RULES, ())}
    children = [*schema.get("properties", {}).values(), schema.get("items")]
    return found.union(*(rule_messages(child) for child in children if isinstance(child, dict)))


def create(jobs: Jobs, document: dict[str, Any]) -> tuple[int, str]:
    """HTTP status and message of creating a job with ``dryRun``."""
    status, body = jobs.api.call("POST", jobs.api.jobs, document, dryRun="All")
    return status, body.get("message", "")


def test_every_rule_is_tried_below() -> None:
    tried = {message for _, message in (*CREATED, *EDITED)}

    assert rule_messages(build_schema()) == tried | {
        AFTER_ACCEPTANCE,
        AFTER_SUCCESS,
        AFTER_TRAINING,
        AFTER_THE_END,
    }


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{api_path(limit[0])}-{limit[1]}")
def test_value_beyond_a_limit_is_refused_at_its_place(jobs: Jobs, limit: Limit) -> None:
    path, _, value = limit
    document = with_value(jobs.document("limits"), path, value)

    status, message = create(jobs, document)

    assert status == 422, message
    assert re.search(rf"{re.escape(api_path(path))}(?![\w.]*\w)", message), message


def test_document_that_the_limits_are_tried_on_is_accepted(jobs: Jobs) -> None:
    assert create(jobs, jobs.document("limits"))[0] == 201


@pytest.mark.parametrize("name", ["Upper", "a" * 41, "1st", "a_b", "-a"])
def test_name_that_is_no_short_label_is_refused(jobs: Jobs, name: str) -> None:
    status, message = create(jobs, jobs.document(name))

    assert status == 422
    assert "metadata.name" in message


@pytest.mark.parametrize(("change", "wanted"), CREATED, ids=str)
def test_new_job_that_breaks_a_rule_is_refused(
    jobs: Jobs, change: dict[str, Any], wanted: str
) -> None:
    status, message = create(jobs, jobs.document("rules", **change))

    assert status == 422, message
    assert wanted in message


@pytest.fixture(scope="module")
def edited(jobs: Jobs) -> str:
    """A job on the server, to be edited."""
    jobs.submit("rules-edited", inference=[ITEM], runPolicy={"suspend": True}, compute={"nodes": 2})
    return "rules-edited"


def edit(jobs: Jobs, name: str, change: dict[str, Any]) -> tuple[int, str]:
    """HTTP status and message of editing a job with ``dryRun``."""
    path = f"{jobs.api.jobs}/{name}"
    body = {"spec": copy.deepcopy(change)}
    status, answer = jobs.api.call("PATCH", path, body, kind="merge", dryRun="All")
    return status, answer.get("message", "")


@pytest.mark.parametrize(("change", "wanted"), EDITED, ids=lambda value: str(value)[:60])
def test_edit_that_breaks_a_rule_is_refused(
    jobs: Jobs, edited: str, change: dict[str, Any], wanted: str
) -> None:
    status, message = edit(jobs, edited, change)

    assert status == 422, message
    assert wanted in message


@pytest.mark.parametrize("change", PACE, ids=lambda value: str(value)[:60])
def test_edit_of_the_pace_is_admitted(jobs: Jobs, edited: str, change: dict[str, Any]) -> None:
    status, message = edit(jobs, edited, change)

    assert status == 200, message


def write_status(jobs: Jobs, name: str, status: dict[str, Any]) -> None:
    """Write a part of a job's status, as the operator does."""
    path = f"{jobs.api.jobs}/{name}/status"
    code, answer = jobs.api.call("PATCH", path, {"status": status}, kind="merge")
    assert code == 200, answer


ACCEPTED = {"type": "Accepted", "lastTransitionTime": "2026-01-31T12:00:00Z", "message": ""}


@pytest.mark.parametrize(
    ("status", "reason", "is_reserved"),
    [
        ("True", "Valid", True),
        ("False", "NotAdmittedAnyMore", True),
        ("False", "PublishedNameTaken", False),
        ("False", "InvalidSpec", False),
    ],
)
def test_name_of_the_model_is_fixed_once_the_job_is_accepted(
    jobs: Jobs, status: str, reason: str, is_reserved: bool
) -> None:
    name = f"rules-{reason.lower()}"
    jobs.submit(name, runPolicy={"suspend": True}, outputs={"name": "first"})
    write_status(jobs, name, {"conditions": [{**ACCEPTED, "status": status, "reason": reason}]})

    for change in ({"name": "second"}, {"name": None}):
        code, message = edit(jobs, name, {"outputs": change})
        assert code == (422 if is_reserved else 200), message
        assert (AFTER_ACCEPTANCE in message) == is_reserved
    assert edit(jobs, name, {"outputs": {"weights": "Regular"}})[0] == 200
    write_status(jobs, name, {"state": "Failed"})
    assert edit(jobs, name, {"outputs": {"name": "second"}})[0] == 200


def test_steps_may_go_back_to_those_that_the_run_is_trained_to(jobs: Jobs) -> None:
    jobs.submit("rules-steps", runPolicy={"suspend": True})
    jobs.patch("rules-steps", {"training": {"steps": 1000}})
    run = {"folder": "checkpoints://a", "steps": jobs.steps}
    write_status(jobs, "rules-steps", {"run": run})

    assert edit(jobs, "rules-steps", {"training": {"steps": jobs.steps}})[0] == 200
    assert edit(jobs, "rules-steps", {"training": {"steps": jobs.steps - 1}})[0] == 422


def test_job_that_has_succeeded_gets_no_more_steps(jobs: Jobs) -> None:
    jobs.submit("rules-success", runPolicy={"suspend": True})
    write_status(jobs, "rules-success", {"state": "Succeeded"})

    status, message = edit(jobs, "rules-success", {"training": {"steps": 1000}})

    assert status == 422
    assert AFTER_SUCCESS in message


PUBLISHED = {
    "type": "Published", "status": "True", "reason": "Ready",
    "lastTransitionTime": "2026-01-31T12:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize(
    "status", [{"state": "Publishing"}, {"state": "Suspended", "conditions": [PUBLISHED]}], ids=str
)
def test_outputs_are_fixed_once_the_model_is_being_published(
    jobs: Jobs, status: dict[str, Any]
) -> None:
    name = f"rules-{status['state'].lower()}"
    jobs.submit(name, runPolicy={"suspend": True})
    write_status(jobs, name, status)

    code, message = edit(jobs, name, {"outputs": {"name": "other"}})

    assert code == 422
    assert AFTER_TRAINING in message


def test_refused_edit_leaves_the_job_as_it_was(jobs: Jobs, edited: str) -> None:
    before = jobs.job(edited)

    with pytest.raises(Refusal, match=r"training.steps may only grow"):
        jobs.patch(edited, {"training": {"steps": 7}})

    assert jobs.job(edited) == before
