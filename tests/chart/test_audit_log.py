"""The comparison of the operator's rights with an audit log, with events in the form of kube-apiserver."""

import json

import pytest
from support.audit_log import NEVER_REQUESTED, granted_rights, unused_rights, used_rights
from support.helm_chart import find, render

USER = "system:serviceaccount:lab:cosmos-operator"


def event(verb, group, resource, subresource="", user=USER, code=200):
    target = {"resource": resource, "namespace": "lab", "apiVersion": "v1"}
    target |= {"apiGroup": group} if group else {}
    target |= {"subresource": subresource} if subresource else {}
    return {
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata", "stage": "ResponseComplete",
        "verb": verb, "user": {"username": user, "groups": ["system:serviceaccounts"]}, "objectRef": target,
        "responseStatus": {"metadata": {}, "code": code},
    }  # fmt: skip


def granted_by_the_chart():
    roles = [*find(render(), "ClusterRole"), *find(render(), "Role")]
    return granted_rights(
        role for role in roles if "posttrainingjobs" not in role["metadata"]["name"]
    )


def log_of(tmp_path, rights, **changes):
    lines = []
    for group, resource, verb in sorted(rights):
        name, _, below = resource.partition("/")
        lines.append(json.dumps(event(verb, group, name, below, **changes)))
    path = tmp_path / "audit.log"
    path.write_text(
        "\n".join(lines) + '\n{"kind": "Event", "verb"'
    )  # the last line is being written
    return path


def test_a_log_with_every_right_leaves_none_unused(tmp_path):
    granted = granted_by_the_chart()

    assert len(granted) > 40
    used = used_rights([log_of(tmp_path, granted - NEVER_REQUESTED.keys())], USER)
    assert unused_rights(granted, used) == []


@pytest.mark.parametrize(
    ("right", "line"),
    [
        (("", "services", "delete"), "delete services"),
        (("batch", "jobs", "patch"), "patch jobs.batch"),
        (("trainer.kubeflow.org", "trainjobs/status", "patch"), "patch trainjobs/status.trainer.kubeflow.org"),
        (("coordination.k8s.io", "leases", "update"), "update leases.coordination.k8s.io"),
    ],
)  # fmt: skip
def test_a_right_that_no_request_used_is_named(tmp_path, right, line):
    granted = granted_by_the_chart()
    assert right in granted

    used = used_rights([log_of(tmp_path, granted - {right})], USER)

    assert unused_rights(granted, used) == [line]


@pytest.mark.parametrize("changes", [{"user": "admin"}, {"code": 403}])
def test_requests_of_others_and_refused_ones_are_no_use(tmp_path, changes):
    granted = granted_by_the_chart()

    assert used_rights([log_of(tmp_path, granted, **changes)], USER) == set()
