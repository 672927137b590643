"""The API server's messages about a PostTrainingJob, and the fields that it adds and drops."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from support.api_client import Api, make_job
from support.jobs import make_document

from cosmos_operator.api.quantities import QUANTITY_PATTERN

pytestmark = pytest.mark.api_server


def post(api: Api, changes: dict[str, Any], **query: Any) -> tuple[int, Any]:
    document = make_document(changes)
    document["metadata"]["name"] = f"job-{secrets.token_hex(3)}"
    return api.call("POST", api.jobs, document, **query)


def problems(answer: Any) -> set[str]:
    """The causes of a refusal, as people read them."""
    return {f"{cause['field']}: {cause['message']}" for cause in answer["details"]["causes"]}


UNCHECKED = (
    "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"dataset.layout": "Tapes"},
     'spec.dataset.layout: Unsupported value: "Tapes": supported values: "Bridge", "Videos", "LeRobot", "Jsonl"'),
    ({"compute.nodes": "two"},
     'spec.compute.nodes: Invalid value: "string": spec.compute.nodes in body must be of type integer: "string"'),
    ({"compute.nodes": 0},
     "spec.compute.nodes: Invalid value: 0: spec.compute.nodes in body should be greater than or equal to 1"),
    ({"compute.nodes": 300},
     "spec.compute.nodes: Invalid value: 300: spec.compute.nodes in body should be less than or equal to 256"),
    ({"training.experiment": None}, "spec.training.experiment: Required value"),
    ({"training.experiment": ""},
     'spec.training.experiment: Invalid value: "": spec.training.experiment in body should be at least 1 chars long'),
    ({"model.name": "x" * 129}, "spec.model.name: Too long: may not be more than 128 bytes"),
    ({"model.name": "a b"},
     'spec.model.name: Invalid value: "a b": spec.model.name in body should match '
     "'^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?(/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)*$'"),
    ({"compute.sharedMemory": "lots"},
     'spec.compute.sharedMemory: Invalid value: "lots": spec.compute.sharedMemory in body should match '
     f"'{QUANTITY_PATTERN}'"),
    ({"training.overrides": ["a=b"] * 65}, "spec.training.overrides: Too many: 65: must have at most 64 items"),
    ({"inference.1.parameters.height": 17},
     "spec.inference[1].parameters.height: Invalid value: 17: "
     "spec.inference[1].parameters.height in body should be a multiple of 16"),
    ({"inference.1.parameters.sigmaMax": 0},
     "spec.inference[1].parameters.sigmaMax: Invalid value: 0: "
     "spec.inference[1].parameters.sigmaMax in body should be greater than 0"),
    ({"inference.1.name": "before"}, 'spec.inference[1]: Duplicate value: {"name":"before"}'),
    ({"inference.0.metrics": ["Psnr", "Psnr"]}, 'spec.inference[0].metrics[1]: Duplicate value: "Psnr"'),
    ({"model.source": {"path": "/a", "url": {"url": "https://x/y.tar"}}},
     "spec.model.source: Invalid value: give exactly one of path, claim, url, huggingFace, s3"),
    ({"inference.0.inputsFile": None}, "spec.inference[0]: Invalid value: give exactly one of inputs and inputsFile"),
    ({"inference.1.parameters.numPixelFrames": 58},
     "spec.inference[1].parameters: Invalid value: numPixelFrames must be 8n+1, such as 57 or 121"),
    ({"compute.gpusPerNode": 1},
     "spec.compute: Invalid value: processesPerNode must equal gpusPerNode; omit it where there are GPUs"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "problem"), WRONG, ids=[next(iter(c)) + str(i) for i, (c, _) in enumerate(WRONG)]
)
def test_refused(api: Api, changes: dict[str, Any], problem: str) -> None:
    code, answer = post(api, changes)
    assert (code, answer["reason"]) == (422, "Invalid"), answer
    assert problems(answer) - {UNCHECKED} == {problem}
    name = answer["details"]["name"]
    assert answer["message"].startswith(f'PostTrainingJob.cosmos.dev "{name}" is invalid: ')
    assert problem in answer["message"]


def test_rules_wait_for_valid_values(api: Api) -> None:
    _, answer = post(api, {"dataset.layout": "Tapes", "compute.gpusPerNode": 1})
    assert UNCHECKED in problems(answer)
    assert len(problems(answer)) == 2
    assert answer["message"].partition(" is invalid: ")[2].startswith("[")


def test_name_of_a_job(api: Api) -> None:
    document = make_document()
    document["metadata"]["name"] = "1-starts-with-a-digit"
    code, answer = api.call("POST", api.jobs, document)
    assert code == 422
    assert problems(answer) == {
        'metadata.name: Invalid value: "1-starts-with-a-digit": metadata.name in body should match '
        "'^[a-z]([-a-z0-9]*[a-z0-9])?$'"
    }


def test_defaults(api: Api) -> None:
    code, made = post(api, {"tokenizer": None})
    assert code == 201
    assert made["spec"]["compute"]["nodes"] == 1
    assert made["spec"]["tokenizer"] == {}, "defaults that may change are those of the operator"
    assert "sharedMemory" not in made["spec"]["compute"]


def test_new_job_shows_that_the_operator_has_not_seen_it(api: Api) -> None:
    path, _ = make_job(api)
    _, found = api.call("GET", path)

    assert found["status"]["state"] == "Pending"
    assert (
        found["status"]["observedGeneration"] == 0
    )  # not metadata.generation: kstatus says InProgress
    assert found["metadata"]["generation"] == 1


def test_status_defaults_are_filled(api: Api) -> None:
    path, _ = make_job(api)
    _, changed = api.call("PATCH", f"{path}/status", {"status": {"message": "hello"}}, "merge")
    assert changed["status"]["state"] == "Pending"


def test_unknown_fields_are_dropped(api: Api) -> None:
    code, made = post(api, {"training.nonsense": 1})
    assert code == 201
    assert "nonsense" not in made["spec"]["training"]


def test_unknown_fields_are_refused_where_asked(api: Api) -> None:
    code, answer = post(api, {"training.nonsense": 1}, fieldValidation="Strict")
    assert (code, answer["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.training.nonsense"' in answer["message"]


def change(api: Api, spec: dict[str, Any]) -> tuple[int, Any]:
    _, made = post(api, {})
    return api.call("PATCH", f"{api.jobs}/{made['metadata']['name']}", {"spec": spec}, "merge")


def test_immutable_fields(api: Api) -> None:
    code, answer = change(api, {"model": {"name": "Other"}, "tokenizer": {"name": "Other"}})
    assert code == 422
    text = "cannot be changed; create another PostTrainingJob (finished stages are shared)"
    assert problems(answer) == {
        f"spec.model: Invalid value: model {text}",
        f"spec.tokenizer: Invalid value: tokenizer {text}",
    }


def test_mutable_fields(api: Api) -> None:
    code, changed = change(
        api, {"runPolicy": {"suspend": True}, "scheduling": {"nodeSelector": {"a": "b"}}}
    )
    assert (code, changed["metadata"]["generation"]) == (200, 2)


def test_inference_may_grow_only(api: Api) -> None:
    _, made = post(api, {})
    path, items = f"{api.jobs}/{made['metadata']['name']}", made["spec"]["inference"]
    more = [*items, {"name": "third", "inputsFile": "dataset://test.jsonl"}]
    code, _ = api.call("PATCH", path, {"spec": {"inference": more}}, "merge")
    assert code == 200
    code, answer = api.call("PATCH", path, {"spec": {"inference": items[1:]}}, "merge")
    assert problems(answer) == {
        "spec.inference: Invalid value: inference items cannot be removed; append new ones"
    }
    other = [{**items[0], "checkpoint": "Published"}, *more[1:]]
    code, answer = api.call("PATCH", path, {"spec": {"inference": other}}, "merge")
    assert problems(answer) == {
        "spec.inference[0]: Invalid value: inference items cannot be changed; append one with another name"
    }


@pytest.mark.parametrize("end", ["Succeeded", "Failed"])
def test_inference_is_fixed_once_the_job_has_ended(api: Api, end: str) -> None:
    _, made = post(api, {})
    path, items = f"{api.jobs}/{made['metadata']['name']}", made["spec"]["inference"]
    more = [*items, {"name": "third", "inputsFile": "dataset://test.jsonl"}]
    condition = {"type": end, "reason": "R", "lastTransitionTime": "2026-01-31T12:00:00Z"}

    def set_condition(status: str) -> None:
        body = {"status": {"conditions": [{**condition, "status": status}]}}
        assert api.call("PATCH", f"{path}/status", body, "merge")[0] == 200

    set_condition("False")
    code, _ = api.call("PATCH", path, {"spec": {"inference": more}}, "merge")
    assert code == 200
    set_condition("True")
    even_more = [*more, {"name": "fourth", "inputsFile": "dataset://test.jsonl"}]
    code, answer = api.call("PATCH", path, {"spec": {"inference": even_more}}, "merge")
    assert code == 422
    assert problems(answer) == {
        "<nil>: Invalid value: spec.inference cannot grow once the job has ended; create an InferenceJob with "
        "spec.model.job"
    }
    code, _ = api.call("PATCH", path, {"spec": {"runPolicy": {"maxAttempts": 9}}}, "merge")
    assert code == 200


def test_status_is_validated(api: Api) -> None:
    _, made = post(api, {})
    path = f"{api.jobs}/{made['metadata']['name']}/status"
    code, answer = api.call("PATCH", path, {"status": {"startTime": "yesterday"}}, "merge")
    assert code == 422
    problem = 'status.startTime: Invalid value: "yesterday": startTime in body must be of type date-time: "yesterday"'
    assert problem in problems(answer)


def test_nulls_without_a_default_are_dropped(api: Api) -> None:
    document = make_document()
    document["metadata"]["name"] = f"job-{secrets.token_hex(3)}"
    document["spec"]["training"]["seed"] = None
    document["spec"]["compute"]["sharedMemory"] = None
    code, made = api.call("POST", api.jobs, document)
    assert code == 201
    assert "seed" not in made["spec"]["training"]
    assert "sharedMemory" not in made["spec"]["compute"]
