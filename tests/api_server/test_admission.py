"""The API server's refusals of Jobs, Services and other built-in objects, and requests with ``dryRun``."""

from __future__ import annotations

from typing import Any

import pytest
from support.api_client import Api, is_gone, make_job, name_of

pytestmark = pytest.mark.api_server


def test_name_is_checked(api: Api) -> None:
    status, answer = api.call("POST", api.core("configmaps"), {"metadata": {"name": "Bad_Name"}})
    assert (status, answer["reason"]) == (422, "Invalid")
    start = 'ConfigMap "Bad_Name" is invalid: metadata.name: Invalid value: "Bad_Name": a lowercase RFC 1123 subdomain'
    assert answer["message"].startswith(start)


@pytest.mark.parametrize(
    ("plural", "body", "problem"),
    [
        (
            "configmaps",
            {"metadata": {"name": "a", "labels": {"k": "x" * 64}}},
            f'metadata.labels: Invalid value: "{"x" * 64}": must be no more than 63 bytes',
        ),
        (
            "configmaps",
            {"metadata": {"name": "a", "labels": {"k": "a b"}}},
            'metadata.labels: Invalid value: "a b": a valid label must be an empty string or consist of',
        ),
        (
            "services",
            {"metadata": {"name": "x" * 64}, "spec": {"clusterIP": "None"}},
            f'metadata.name: Invalid value: "{"x" * 64}": must be no more than 63 characters',
        ),
    ],
)
def test_labels_and_names(api: Api, plural: str, body: dict[str, Any], problem: str) -> None:
    code, answer = api.call("POST", api.core(plural), body)
    assert code == 422
    assert problem in answer["message"]


@pytest.mark.parametrize(
    ("name", "pod", "problem"),
    [
        ("x" * 64, {}, f'spec.template.labels: Invalid value: "{"x" * 64}": must be no more than 63 bytes'),
        ("a", {"containers": []}, "spec.template.spec.containers: Required value"),
        ("a", {"restartPolicy": None},
         'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'),
    ],
)  # fmt: skip
def test_wrong_jobs(api: Api, name: str, pod: dict[str, Any], problem: str) -> None:
    template = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}], **pod}
    body = {"metadata": {"name": name}, "spec": {"template": {"spec": template}}}
    code, answer = api.call("POST", f"/apis/batch/v1/namespaces/{api.namespace}/jobs", body)
    assert code == 422
    assert problem in answer["message"]


def test_jobs_keep_their_pods_template(api: Api) -> None:
    path = f"/apis/batch/v1/namespaces/{api.namespace}/jobs"
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}
    name = name_of("job")
    body = {"metadata": {"name": name}, "spec": {"suspend": True, "template": template}}
    assert api.call("POST", path, body)[0] == 201
    change = {"spec": {"template": {"spec": {"containers": [{"name": "a", "image": "c"}]}}}}
    code, answer = api.call("PATCH", f"{path}/{name}", change, "merge")
    assert code == 422
    assert answer["message"].startswith(f'Job.batch "{name}" is invalid: spec.template')
    assert answer["message"].endswith(": field is immutable")
    code, answer = api.call("PATCH", f"{path}/{name}", {"spec": {"completions": 3}}, "merge")
    assert answer["message"].endswith("spec.completions: Invalid value: 3: field is immutable")


def test_dry_run_leaves_nothing(api: Api) -> None:
    body = {"metadata": {"name": name_of()}}
    status, made = api.call("POST", api.core("configmaps"), body, dryRun="All")
    assert (status, bool(made["metadata"]["uid"])) == (201, True)
    assert is_gone(api, f"{api.core('configmaps')}/{body['metadata']['name']}")


def test_immutable_config_map(api: Api) -> None:
    body = {"metadata": {"name": name_of()}, "immutable": True, "data": {"a": "b"}}
    assert api.call("POST", api.core("configmaps"), body)[0] == 201
    path = f"{api.core('configmaps')}/{body['metadata']['name']}"
    status, answer = api.call("PATCH", path, {"data": {"a": "c"}}, "merge")
    assert status == 422
    assert answer["message"].endswith("data: Forbidden: field is immutable when `immutable` is set")


def test_replacement_without_a_version_is_refused(api: Api) -> None:
    path, made = make_job(api)
    name = made["metadata"]["name"]
    del made["metadata"]["resourceVersion"]
    status, answer = api.call("PUT", path, made)
    assert status == 422
    assert answer["message"] == (
        f'posttrainingjobs.cosmos.dev "{name}" is invalid: metadata.resourceVersion: Invalid value: 0: '
        "must be specified for an update"
    )
