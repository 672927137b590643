"""Workloads as the operator's plan makes them, put into a fake cluster without the operator."""

from __future__ import annotations

import json
from typing import Any

from cosmos_operator.api.labels import STAGE_LABEL
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import plan_stages
from support.api_client import wait_for
from support.fakekube import FakeKube
from support.fakekube.resources import Object
from support.fakekube.world import is_true
from support.jobs import make_job

KEYS = {
    "ConfigMap": "configmaps",
    "Service": "services",
    "Job": "jobs.batch",
    "PyTorchJob": "pytorchjobs.kubeflow.org",
    "TrainJob": "trainjobs.trainer.kubeflow.org",
    "TrainingRuntime": "trainingruntimes.trainer.kubeflow.org",
}
EARLIER = ("fetch-model", "prepare-dataset", "embed-text", "cache-latents")


def runtime() -> Object:
    """A ClusterTrainingRuntime as the chart installs it."""
    pod = {"restartPolicy": "Never", "containers": [{"name": "node", "image": "worker"}]}
    job = {"backoffLimit": 0, "template": {"spec": pod}}
    node = {"name": "node", "template": {"spec": job}}
    return {
        "metadata": {"name": "cosmos-torch"},
        "spec": {"template": {"spec": {"replicatedJobs": [node]}}},
    }


class Plan:
    """The stages of one PostTrainingJob."""

    def __init__(
        self, fake: FakeKube, changes: dict[str, Any] | None = None, name: str = "push"
    ) -> None:
        self.fake, self.name = fake, name
        self.changes = {"inference": [], "compute.processesPerNode": 1, **(changes or {})}
        self.job = make_job(self.changes, name)
        self.stages = [stage.name for stage in plan_stages(self.job)]
        self.claim("cosmos")

    def claim(self, name: str, **spec: Any) -> None:
        """Make a claim, unless it is there."""
        if self.fake.get("persistentvolumeclaims", name) is None:
            wanted = {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            }
            body = {"metadata": {"name": name, "namespace": "default"}, "spec": {**wanted, **spec}}
            self.fake.create("persistentvolumeclaims", body)

    def start(self, stage: str, attempt: int = 1, **changes: Any) -> tuple[str, str]:
        """Make the objects of a stage; kind and name of its workload."""
        workload = ("", "")
        for manifest in build_manifests(self.job, plan_stages(self.job), attempt=attempt):
            labels = manifest["metadata"].get("labels", {})
            if labels.get(STAGE_LABEL) != stage:
                continue
            key = KEYS[manifest["kind"]]
            manifest["metadata"]["namespace"] = "default"
            if manifest["kind"] not in ("ConfigMap", "Service", "TrainingRuntime"):
                manifest["spec"].update(changes)
                workload = key, manifest["metadata"]["name"]
            if self.fake.get(key, manifest["metadata"]["name"]) is None:
                self.fake.create(key, manifest)
        return workload

    def run(self, stage: str, attempt: int = 1) -> Object:
        """Run a stage to its end; the workload."""
        return self.end(*self.start(stage, attempt))

    def prepare(self) -> Plan:
        """Run all stages before the training; returns itself."""
        for workload in [self.start(stage) for stage in EARLIER[:2]]:
            assert has(self.end(*workload), "Complete")
        for workload in [self.start(stage) for stage in EARLIER[2:]]:
            assert has(self.end(*workload), "Complete")
        return self

    def end(self, key: str, name: str) -> Object:
        """A workload, once it has ended."""
        ends = ("Complete", "Succeeded", "Failed")

        def ended() -> Object | None:
            found = self.fake.get(key, name)
            return found if found and any(has(found, kind) for kind in ends) else None

        found: Object = wait_for(ended)
        return found

    def pods(self, stage: str = "train") -> list[Object]:
        """The pods of a stage, the first rank first."""
        return self.fake.find("pods", "default", stage=stage)

    def training_at(self, step: int) -> Object:
        """The leader's pod, once so many steps are done."""

        def reached() -> Object | None:
            pods = self.pods()
            lines = self.fake.log(pods[0]["metadata"]["name"]) if pods else []
            steps = [
                int(line.partition(" step=")[2].partition("/")[0])
                for line in lines
                if " loss=" in line
            ]
            return pods[0] if steps and steps[-1] >= step else None

        found: Object = wait_for(reached)
        return found


def has(workload: Object, condition: str) -> bool:
    """True if a condition of an object has the status True."""
    return is_true(workload.get("status", {}).get("conditions", []), condition)


def ended(pod: Object) -> Object:
    """The terminated state of a pod's container."""
    state: Object = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    return state


def waiting(pod: Object) -> Object:
    """The waiting state of a pod's container."""
    statuses = pod["status"].get("containerStatuses") or [{"state": {}}]
    state: Object = statuses[0]["state"].get("waiting", {})
    return state


def words(pod: Object) -> Object:
    """The termination message of a pod."""
    message: Object = json.loads(ended(pod)["message"])
    return message
