"""Pod templates on a real API server: it merges as the operator does, and knows the fields of the operator's table."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from support.api_client import Api, make_job
from support.jobs import make_document
from support.merges import MERGES
from support.pod_schema import field_types

import cosmos_operator.api.pod_schema as pod_schema
from cosmos_operator.api.parse import parse_job
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import plan_stages
from cosmos_operator.plan.strategic_merge import merge

pytestmark = pytest.mark.api_server
TABLE = Path(pod_schema.__file__).with_suffix(".json")


def test_table_of_fields_is_what_the_server_says(api: Api, update_golden: bool) -> None:
    code, openapi = api.call("GET", "/openapi/v2")
    assert code == 200
    lines = [
        f"  {json.dumps(name)}: {json.dumps(fields)}"
        for name, fields in field_types(openapi).items()
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if update_golden:
        TABLE.write_text(text, encoding="utf-8")

    assert TABLE.read_text(encoding="utf-8") == text


def pod_template(api: Api, spec: dict[str, Any]) -> tuple[str, Any]:
    """Path and pod spec of a new PodTemplate."""
    body = {
        "metadata": {"name": f"t-{secrets.token_hex(3)}"},
        "template": {"metadata": {}, "spec": spec},
    }
    code, made = api.call("POST", api.core("podtemplates"), body)
    assert code == 201, made
    return f"{api.core('podtemplates')}/{made['metadata']['name']}", made["template"]["spec"]


@pytest.mark.parametrize(("original", "patch", "merged"), MERGES.values(), ids=MERGES)
def test_server_merges_alike(api: Api, original: Any, patch: Any, merged: Any) -> None:
    path, stored = pod_template(api, original)
    _, expected = pod_template(api, merged)  # with the server's defaults
    code, answer = api.call("PATCH", path, {"template": {"spec": patch}}, "strategic", dryRun="All")
    assert code == 200, answer

    assert answer["template"]["spec"] == expected
    _, ours = pod_template(api, merge(stored, patch, "PodSpec"))
    assert ours == expected


TEMPLATE = {
    "metadata": {"labels": {"team": "vision"}, "annotations": {"a": "b"}},
    "spec": {
        "priorityClassName": None,
        "runtimeClassName": "runc",
        "serviceAccountName": "bucket",
        "nodeSelector": {"a": "1", "b": None},
        "securityContext": {"$patch": "replace", "runAsUser": None, "runAsNonRoot": True},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "topologySpreadConstraints": [
            {"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway",
             "labelSelector": {"matchLabels": {"team": "vision"}}}
        ],
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["store"]}],
        "imagePullSecrets": [{"name": "registry"}],
        "volumes": [{"name": "nfs", "nfs": {"server": "store", "path": "/"}}],
        "initContainers": [{"name": "proxy", "image": "p", "restartPolicy": "Always"}],
        "containers": [
            {
                "name": "worker",
                "env": [{"name": "A", "value": "b"}, {"name": "B", "$patch": "delete"}],
                "envFrom": [{"configMapRef": {"name": "c", "optional": True}}],
                "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
                "volumeMounts": [{"name": "nfs", "mountPath": "/data"}],
            }
        ],
    },
}  # fmt: skip
PLACES = {
    "podTemplate": TEMPLATE,
    "stages.fetchModel.podTemplate": TEMPLATE,
    "inference.1.podTemplate": TEMPLATE,
}


def test_server_keeps_all_of_a_template(api: Api) -> None:
    _, made = make_job(api, PLACES)

    assert made["spec"]["podTemplate"] == TEMPLATE
    assert made["spec"]["stages"]["fetchModel"]["podTemplate"] == TEMPLATE
    assert made["spec"]["inference"][1]["podTemplate"] == TEMPLATE
    parse_job(made)


def test_server_keeps_what_the_operator_refuses(api: Api) -> None:
    wrong = {"spec": {"restartPolicy": "Always", "containers": [{"name": "worker", "args": ["a"]}]}}
    _, made = make_job(api, {"podTemplate": wrong})

    assert made["spec"]["podTemplate"] == wrong


def test_templates_may_be_changed_and_those_of_items_may_not(api: Api) -> None:
    path, made = make_job(api, PLACES)
    change = {"podTemplate": {"spec": {"priorityClassName": "high"}}, "stages": {"train": {}}}
    code, changed = api.call("PATCH", path, {"spec": change}, "merge")
    assert (code, changed["spec"]["podTemplate"]["spec"]["priorityClassName"]) == (200, "high")

    items = made["spec"]["inference"]
    items[1]["podTemplate"] = {}
    code, answer = api.call("PATCH", path, {"spec": {"inference": items}}, "merge")
    assert code == 422
    assert "inference items cannot be changed" in answer["message"]


@pytest.mark.parametrize("backend", ["Job", "PyTorchJob"])
def test_server_takes_the_workloads_of_a_job_with_templates(api: Api, backend: str) -> None:
    document = make_document({**PLACES, "backend": {"type": backend}})
    document["metadata"] |= {"namespace": api.namespace, "labels": {"cost-center": "4711"}}
    job = parse_job(document)
    paths = {"Job": "/apis/batch/v1", "PyTorchJob": "/apis/kubeflow.org/v1"}
    found = [one for one in build_manifests(job, plan_stages(job)) if one["kind"] in paths]
    assert len(found) == 10

    for manifest in found:
        kind = manifest["kind"]
        path = f"{paths[kind]}/namespaces/{api.namespace}/{kind.lower()}s"
        code, answer = api.call("POST", path, manifest, dryRun="All", fieldValidation="Strict")
        assert code == 201, answer
