"""The real cluster with the operator installed by helm, as scenario tests see it."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cosmos_operator.kube.kinds import Manifest
from support.api_client import connect
from support.scenario_world import CLAIM, EXAMPLE, ROOT, ScenarioWorld

if TYPE_CHECKING:
    from harness.cluster import LocalCluster

__all__ = ["EXAMPLE", "NAMESPACE", "QUICKSTART", "RELEASE", "RealWorld"]

RELEASE = "cosmos"
NAMESPACE = "lab"
QUICKSTART = "quickstart"
"""The job of examples/posttrainingjob.yaml, which goes on beside other tests: they leave its pods alone."""
OPERATOR = "cosmos-operator"
OPERATOR_PODS = "app.kubernetes.io/component=operator"
INJECTION = "test-sidecar"
"""Name of the policy that puts containers into pods."""
POLICY_S = 5.0
"""Seconds until the API server follows a new policy."""
CHART = ROOT / "charts" / "cosmos"


class RealWorld(ScenarioWorld):
    """A namespace that enforces Pod Security ``restricted``, with the chart installed in it.

    Args:
        cluster: running.
    """

    is_real = True
    patience = 360.0

    def __init__(self, cluster: LocalCluster) -> None:
        from harness.volumes import make_persistent_volume

        self.cluster = cluster
        self._is_without_operator = self._is_drained = self._is_node_lost = False
        self.images = {
            name: cluster.build_and_push(name) for name in ("cosmos-operator", "cosmos-worker-cpu")
        }
        self.cpu_image = self.images["cosmos-worker-cpu"]
        cluster.make_namespace(NAMESPACE)
        self.folder = make_persistent_volume(
            f"{NAMESPACE}-{CLAIM}", namespace=NAMESPACE, claim=CLAIM, size="500Gi"
        )
        self.api = connect(cluster.kubeconfig)
        self.api.namespace = NAMESPACE
        self.install()
        self._forget_earlier_sessions()

    def _forget_earlier_sessions(self) -> None:
        """A cluster that was left running has jobs and files of before."""
        self.kubectl("delete", "ptj", "--all", "--cascade=foreground", "--timeout=120s")
        for path in self.folder.glob("*/*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def values(self) -> dict[str, Any]:
        """Values of the chart: our images, and an operator that does not wait long."""

        def image(name: str) -> dict[str, str]:
            registry, _, rest = self.images[name].partition("/")
            repository, _, tag = rest.rpartition(":")
            return {"registry": registry, "repository": repository, "tag": tag}

        return {
            "image": {
                "operator": image("cosmos-operator"),
                "workerCpu": image("cosmos-worker-cpu"),
            },
            "storage": {"claim": {"create": True, "volumeName": f"{NAMESPACE}-{CLAIM}"}},
            "operator": {
                "timing": {
                    "pollSeconds": 2,
                    "progressSeconds": 1,
                    "retryBackoffSeconds": 1,
                    "sidecarGraceSeconds": 5,
                }
            },
        }

    def helm(self, *arguments: str) -> str:
        """Run helm in the namespace."""
        return self.cluster.helm(*arguments, f"--namespace={NAMESPACE}")

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        """Run kubectl in the namespace."""
        return self.cluster.kubectl(f"--namespace={NAMESPACE}", *arguments, check=check)

    @property
    def environment(self) -> dict[str, str]:
        """Environment for programs that tests start by themselves."""
        from harness.packages import environment

        return {**os.environ, **environment(), "KUBECONFIG": str(self.cluster.kubeconfig)}

    def command(self, *arguments: str) -> list[str]:
        """A kubectl command for the namespace."""
        return ["kubectl", f"--namespace={NAMESPACE}", *arguments]

    def install(self, *options: str) -> str:
        """Install or upgrade the chart, and wait for the operator."""
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as stream:
            yaml.safe_dump(self.values(), stream)
            stream.flush()
            said = self.helm(
                "upgrade", "--install", RELEASE, str(CHART), "--values", stream.name, *options
            )
        self.wait_for_operator()
        return said

    def wait_for_operator(self) -> None:
        """The operator is ready."""
        self.kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")

    @property
    def kubeconfig(self) -> Path:
        return self.cluster.kubeconfig

    def kill_process(self, pod: str) -> None:
        self.cluster.kill_container_process(NAMESPACE, pod, local_rank=0)

    def lack_data(self, path: str, stage: str = "prepare-dataset") -> None:
        """Nothing to do: the files are missing in a real image anyway."""

    def inject_sidecar(self, stage: str) -> None:
        policy = make_injection(stage)
        path = Path(tempfile.mkdtemp()) / "policy.yaml"
        path.write_text(yaml.safe_dump_all(policy), encoding="utf-8")
        self.kubectl("apply", f"--filename={path}")
        time.sleep(POLICY_S)

    def end_injection(self) -> None:
        for kind in ("mutatingadmissionpolicybinding", "mutatingadmissionpolicy"):
            self.kubectl("delete", kind, INJECTION, "--ignore-not-found")

    def drain(self) -> None:
        self._is_drained = True
        self.kubectl(
            "drain", self.cluster.node, "--ignore-daemonsets", "--delete-emptydir-data", "--force",
            f"--pod-selector=cosmos.dev/stage=train,cosmos.dev/job!={QUICKSTART}", "--timeout=120s",
        )  # fmt: skip

    def uncordon(self) -> None:
        if self._is_drained:
            self.cluster.uncordon()
            self._is_drained = False

    def lose_node(self) -> None:
        self._is_node_lost = True
        self.cluster.lose_node()

    def restore_node(self) -> None:
        if self._is_node_lost:
            self.cluster.restore_node()
            self._is_node_lost = False

    def kill_operator(self) -> None:
        self._is_without_operator = True
        self.kubectl("scale", f"deployment/{OPERATOR}", "--replicas=0")
        options = ("--grace-period=0", "--force", "--ignore-not-found")
        self.kubectl("delete", "pod", "--selector", OPERATOR_PODS, *options)

    def start_operator(self) -> None:
        if self._is_without_operator:
            self.kubectl("scale", f"deployment/{OPERATOR}", "--replicas=2")
            self.wait_for_operator()
            self._is_without_operator = False

    def checkpoint_files(self, name: str) -> list[str]:
        return [str(path) for path in self.folder.glob(f"checkpoints/{name}-*/**/iter_*_model.pt")]

    def operator_log(self) -> str:
        return self.kubectl(
            "logs", "--selector", OPERATOR_PODS, "--prefix", "--tail=30", check=False
        )

    def events(self, name: str) -> list[str]:
        """Reasons of a job's events."""
        which = f"--field-selector=involvedObject.name={name}"
        found = json.loads(self.kubectl("get", "events", which, "--output=json"))
        return [event["reason"] for event in found["items"]]


def make_injection(stage: str) -> list[Manifest]:
    """A policy that puts a container that ends only on SIGTERM before the worker's in new pods of a stage."""
    container = (
        'Object.spec.containers{name: "istio-proxy", image: object.spec.containers[0].image, '
        """command: ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 1; done"], """
        "securityContext: Object.spec.containers.securityContext{allowPrivilegeEscalation: false, "
        'capabilities: Object.spec.containers.securityContext.capabilities{drop: ["ALL"]}}}'
    )
    patch = f'[JSONPatch{{op: "add", path: "/spec/containers/0", value: {container}}}]'
    pods = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["CREATE"],
        "resources": ["pods"],
    }
    is_ours = (
        "has(object.metadata.labels) && 'cosmos.dev/stage' in object.metadata.labels && "
        f"object.metadata.labels['cosmos.dev/stage'] == '{stage}'"
    )
    header = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": INJECTION}}
    spec = {
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "matchConstraints": {"resourceRules": [pods]},
        "matchConditions": [{"name": "stage", "expression": is_ours}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    }
    return [
        {**header, "kind": "MutatingAdmissionPolicy", "spec": spec},
        {**header, "kind": "MutatingAdmissionPolicyBinding", "spec": {"policyName": INJECTION}},
    ]
