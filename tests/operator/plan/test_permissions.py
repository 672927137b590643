"""What an installation allows jobs to set of their pods."""

from __future__ import annotations

from typing import Any

import pytest
from support.decisions import Simulation
from support.jobs import make_job

from cosmos_operator.plan.permissions import permission_problems
from cosmos_operator.settings import AllowedInJobs

Json = dict[str, Any]


def spec(**fields: Any) -> Json:
    return {"podTemplate": {"spec": fields}}


def found(changes: Json, **allowed: Any) -> str:
    return "\n".join(permission_problems(make_job(changes), AllowedInJobs(**allowed)))


SIDECAR = {"name": "p", "image": "docker.io/p:1", "restartPolicy": "Always"}
HOST: list[tuple[Json, str]] = [
    (spec(hostNetwork=True), "spec.podTemplate.spec.hostNetwork: hostNetwork opens the node"),
    (spec(hostPID=True), "hostPID"),
    (spec(hostIPC=True), "hostIPC"),
    (spec(volumes=[{"name": "x", "hostPath": {"path": "/"}}]), "spec.podTemplate.spec.volumes[0].hostPath: hostPath"),
    (spec(containers=[{"name": "worker", "securityContext": {"privileged": True}}]),
     "securityContext.privileged: privileged"),
    (spec(initContainers=[{**SIDECAR, "securityContext": {"privileged": True}}]),
     "initContainers[0].securityContext.privileged"),
    (spec(initContainers=[{**SIDECAR, "ports": [{"containerPort": 1, "hostPort": 1}]}]), "hostPort 1"),
    (spec(containers=[{"name": "worker", "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]),
     "the capability SYS_ADMIN"),
    ({"stages.train.podTemplate": {"spec": {"hostNetwork": True}}}, "spec.stages.train.podTemplate.spec.hostNetwork"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), HOST, ids=[text for _, text in HOST])
def test_access_to_nodes_is_refused_unless_allowed(changes: Json, problem: str) -> None:
    assert problem in found(changes)
    assert "(jobs.allow.hostAccess of the chart)" in found(changes)
    assert found(changes, hostAccess=True) == ""


def test_everything_else_is_allowed_by_default() -> None:
    changes = spec(
        hostNetwork=False,
        serviceAccountName="s",
        initContainers=[SIDECAR],
        imagePullSecrets=[{"name": "r"}],
        containers=[{"name": "worker", "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}}}],
    )

    assert found({**changes, "compute.image": "any:1"}) == ""


def test_fields() -> None:
    changes = {
        "podTemplate": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {
                "tolerations": [],
                "containers": [{"name": "worker", "env": [], "resources": {}}],
            },
        }
    }

    assert found(changes, fields=("metadata", "spec.tolerations", "spec.containers")) == ""
    assert found(changes, fields=("metadata.labels", "spec.containers.env")) == (
        "spec.podTemplate.spec.tolerations: this installation does not allow it in jobs "
        "(jobs.allow.fields of the chart); allowed: metadata.labels, spec.containers.env\n"
        "spec.podTemplate.spec.containers.resources: this installation does not allow it in jobs "
        "(jobs.allow.fields of the chart); allowed: metadata.labels, spec.containers.env"
    )
    assert "allowed: none" in found(changes, fields=())


def test_images() -> None:
    digest = "@sha256:" + "0" * 64
    changes = {
        **spec(initContainers=[SIDECAR], volumes=[{"name": "i", "image": {"reference": "r/x"}}]),
        "compute.image": "registry.example.com/ml/worker:1",
    }

    text = found(changes, images=("registry.example.com/ml/*",))
    assert (
        "spec.podTemplate.spec.initContainers[0].image: this installation does not allow the image 'docker.io/p:1'"
        in text
    )
    assert "volumes[0].image.reference" in text
    assert "spec.compute.image" not in text
    assert (
        found({"compute.image": "evil.example.com/registry.example.com/ml/x"}, images=("registry.example.com/ml/*",))
        != ""
    )  # fmt: skip
    assert "spec.compute.image: 'registry.example.com/ml/worker:1' has no digest" in found(
        changes, imageDigests=True
    )
    assert found({"compute.image": f"w{digest}"}, imageDigests=True) == ""


def test_secrets() -> None:
    reference = {"secretKeyRef": {"name": "env", "key": "k"}}
    changes = {
        **spec(
            imagePullSecrets=[{"name": "pull"}],
            containers=[
                {
                    "name": "worker",
                    "env": [{"name": "A", "valueFrom": reference}],
                    "envFrom": [{"secretRef": {"name": "from"}}],
                }
            ],
            volumes=[
                {"name": "a", "secret": {"secretName": "volume"}},
                {"name": "b", "projected": {"sources": [{"secret": {"name": "projected"}}]}},
                {"name": "c", "csi": {"driver": "d", "nodePublishSecretRef": {"name": "csi"}}},
            ],
        ),
        "credentials": {"huggingFace": {"name": "hub"}, "s3": {"name": "store"}},
    }
    names = {"pull", "env", "from", "volume", "projected", "csi", "hub", "store"}

    refused = found(changes, secrets=()).splitlines()
    assert {line.split("Secret '")[1].split("'")[0] for line in refused} == names
    assert found(changes, secrets=tuple(names)) == ""
    assert len(found(changes, secrets=("p*", "hub")).splitlines()) == 5


def test_service_accounts_and_priority_classes() -> None:
    changes = {
        **spec(serviceAccountName="admin", priorityClassName="system-node-critical"),
        "scheduling": {"priorityClassName": "urgent"},
    }

    refused = found(
        changes, serviceAccounts=("ml-*",), priorityClasses=("batch", "low-*")
    ).splitlines()
    assert [line.partition(":")[0] for line in refused] == [
        "spec.podTemplate.spec.serviceAccountName",
        "spec.scheduling.priorityClassName",
        "spec.podTemplate.spec.priorityClassName",
    ]
    assert "jobs.allow.serviceAccounts of the chart); allowed: ml-*" in refused[0]
    assert found(changes, serviceAccounts=("admin",), priorityClasses=("system-*", "urgent")) == ""
    assert found(changes) == ""


def test_job_outside_is_not_accepted_and_nothing_is_started() -> None:
    simulation = Simulation(spec(hostNetwork=True))
    simulation.settle()

    accepted = simulation.condition("Accepted")
    assert accepted["status"] == "False"
    assert "spec.podTemplate.spec.hostNetwork: hostNetwork opens the node" in accepted["message"]
    assert {kind for kind, _ in simulation.objects} == {"PersistentVolumeClaim"}
