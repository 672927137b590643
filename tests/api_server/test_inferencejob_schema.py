"""The API server's verdict on InferenceJobs, which is that of cosmos validate."""

from __future__ import annotations

import copy
import secrets
from typing import Any

import pytest
from support.api_client import Api
from support.jobs import make_inference_document

from cosmos_operator.api.parse import parse_inference_job
from cosmos_operator.errors import InvalidSpec

pytestmark = pytest.mark.api_server

OWN = {
    "model": {"published": "pushing-tiny"},
    "experiment": "video2world_instruction_push_tiny",
}
ITEM = {"name": "one", "inputs": [{"prompt": "push", "conditioning": "/a.png"}]}


def post(api: Api, document: dict[str, Any]) -> tuple[int, Any]:
    document["metadata"]["name"] = f"ij-{secrets.token_hex(3)}"
    inference = copy.copy(api)
    inference.plural = "inferencejobs"
    return inference.call("POST", inference.jobs, document)


RIGHT: list[dict[str, Any]] = [
    {},
    OWN,
    {**OWN, "model": {"name": "Tiny", "source": {"path": "/x"}, "loraScale": 1}},
    {**OWN, "model": {"source": {"path": "/x"}}, "overrides": ["video.fps=10"], "fit": "Pad"},
    {"compute": {"gpus": 2}, "scheduling": {"queueName": "gpus"}, "storage": {}},
    {"items": [{**ITEM, "checkpoint": "Base", "guardrails": True}]},
    {"runPolicy": {"suspend": True, "activeDeadlineSeconds": 9, "ttlSecondsAfterFinished": 9}},
]
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": {}}, "give exactly one of job, published, and name or source"),
    ({"model": {"job": "a", "published": "b"}}, "give exactly one of job, published, and name or source"),
    ({"model": {"job": "a", "loraScale": 2}}, "loraScale is for weights by name or source"),
    ({"model": {"published": "b"}}, "give experiment, unless the model is that of a job"),
    ({"experiment": "x"}, "give experiment, unless the model is that of a job"),
    ({"fit": "Pad"}, "with model.job, experiment, overrides, fit"),
    ({"tokenizer": {}}, "with model.job, experiment, overrides, fit"),
    ({**OWN, "items": [{**ITEM, "checkpoint": "Base"}]}, "checkpoint: Base of an item needs model.job"),
    ({**OWN, "items": [{**ITEM, "guardrails": True}]}, "an item has guardrails, which needs spec.guardrails.source"),
    ({**OWN, "items": [{**ITEM, "promptUpsampler": True}]}, "an item has promptUpsampler"),
    ({"items": []}, "should have at least 1 items"),
    ({"items": [ITEM, ITEM]}, "Duplicate value"),
]  # fmt: skip


@pytest.mark.parametrize("changes", RIGHT, ids=range(len(RIGHT)))
def test_right_job_is_accepted_by_both(api: Api, changes: dict[str, Any]) -> None:
    document = make_inference_document(changes)
    code, made = post(api, document)

    assert code == 201, made
    parse_inference_job(document)
    assert parse_inference_job({**made, "status": None}).spec == parse_inference_job(document).spec


@pytest.mark.parametrize(("changes", "text"), WRONG, ids=range(len(WRONG)))
def test_wrong_job_is_refused_by_both(api: Api, changes: dict[str, Any], text: str) -> None:
    document = make_inference_document(changes)
    code, answer = post(api, document)

    assert code == 422, answer
    assert text in answer["message"]
    with pytest.raises(InvalidSpec):
        parse_inference_job(document)


@pytest.mark.parametrize(
    ("first", "change", "text"),
    [
        ({}, {"items": [ITEM]}, "items cannot be changed; create another InferenceJob"),
        ({}, {"model": {"job": "other"}}, "model cannot be changed"),
        ({}, {"storage": {}}, "cannot be added or removed"),
        ({"storage": {}}, {"storage": None}, "cannot be added or removed"),
        (OWN, {"experiment": "another"}, "experiment cannot be changed"),
        (OWN, {"fit": "Pad"}, "cannot be added or removed"),
    ],
)
def test_what_is_generated_cannot_be_changed(
    api: Api, first: dict[str, Any], change: dict[str, Any], text: str
) -> None:
    _, made = post(api, make_inference_document(first))
    path = f"{api.jobs.replace('posttrainingjobs', 'inferencejobs')}/{made['metadata']['name']}"
    code, answer = api.call("PATCH", path, {"spec": change}, "merge")

    assert code == 422, answer
    assert text in answer["message"]


def test_machines_and_run_policy_can_be_changed(api: Api) -> None:
    _, made = post(api, make_inference_document())
    path = f"{api.jobs.replace('posttrainingjobs', 'inferencejobs')}/{made['metadata']['name']}"
    change = {
        "runPolicy": {"suspend": True, "retry": 1},
        "scheduling": {"nodeSelector": {"a": "b"}},
        "compute": {"gpus": 1},
        "podTemplate": {"metadata": {"labels": {"team": "vision"}}},
    }

    assert api.call("PATCH", path, {"spec": change}, "merge")[0] == 200
