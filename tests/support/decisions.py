"""A cluster of plain values for tests of decisions: decide, act, let workloads run or die, decide again."""

from __future__ import annotations

import copy
import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cosmos_operator.api.labels import INDEX_ANNOTATION, JOB_NAME_LABEL, STAGE_LABEL
from cosmos_operator.controller.trim import SHAPES, trim
from cosmos_operator.decide.decide import decide
from cosmos_operator.decide.decision import (
    AddOwner,
    Annotate,
    Create,
    Decision,
    Delete,
    GiveUp,
    ReportProgress,
)
from cosmos_operator.kube.containers import worker_name
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_time
from cosmos_operator.kube.observed import Observed
from cosmos_operator.plan.inference_plan import (
    ModelSource,
    plan_inference_job,
    record_name,
)
from cosmos_operator.plan.job_plan import JobPlan, plan_job
from cosmos_operator.settings import Settings
from support.jobs import make_document, make_inference_document, set_fields

START = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
POD_KINDS = ("Job", "PyTorchJob", "TrainJob")


class Simulation:
    """One job in a namespace of its own.

    Args:
        changes: of the job, by path below spec.
        served: optional kinds of the cluster.
        settings: of the operator.
        attended: True if controllers write the status of new PyTorchJobs and TrainJobs, as they do within a second.
        document: another job instead of the example.
    """

    def __init__(
        self,
        changes: dict[str, Any] | None = None,
        served: frozenset[str] = frozenset({"PyTorchJob"}),
        settings: Settings | None = None,
        *,
        attended: bool = True,
        document: dict[str, Any] | None = None,
    ) -> None:
        self.attended = attended
        self.now = START
        self.served, self.settings = served, settings or Settings()
        self.document = make_document(changes) if document is None else document
        self.document["metadata"] |= {
            "namespace": "lab",
            "uid": "job-uid",
            "generation": 1,
            "creationTimestamp": format_time(START),
        }
        self.objects: dict[tuple[str, str], Manifest] = {}
        self.pods: dict[str, Manifest] = {}
        self.logs: dict[str, str] = {}
        self.extra: dict[str, Any] = {}
        self.log: list[Decision] = []
        self._uids = itertools.count(1)
        self.add_claim("cosmos")

    # --- the operator ---------------------------------------------------------------------

    def decide(self) -> Decision:
        """The decision that the operator would make now; nothing changes."""
        objects = copy.deepcopy(self.objects)
        for (kind, _), one in objects.items():
            if self.attended and kind in ("PyTorchJob", "TrainJob"):
                created = {"type": "Created", "status": "True", "reason": "Created", "message": ""}
                one.setdefault("status", {"conditions": [created]})
        pods = [trim("Pod", pod) for pod in self.pods.values()]
        observed = Observed(  # of what the cache keeps, not of whole objects
            objects={
                key: {"kind": key[0], **trim(key[0], one)} if key[0] in SHAPES else one
                for key, one in objects.items()
            },
            pods=tuple(copy.deepcopy(pods)),
            claim_names=tuple(n for kind, n in self.objects if kind == "PersistentVolumeClaim"),
            served=self.served,
            logs=dict(self.logs),
            **self.extra,
        )
        return decide(self.plan(), observed, self.now, self.settings)

    def plan(self) -> JobPlan:
        """The plan of the job."""
        return plan_job(copy.deepcopy(self.document), self.settings)

    def step(self) -> Decision:
        """One pass: decide, write the status, act."""
        decision = self.decide()
        self.log.append(decision)
        if decision.status is not None:
            self.document["status"] = copy.deepcopy(decision.status)
        for action in decision.actions:
            if isinstance(action, Create):
                self._create(copy.deepcopy(action.manifest))
            elif isinstance(action, AddOwner):
                owners = self.objects[action.kind, action.name]["metadata"]
                owners.setdefault("ownerReferences", []).append(action.owner)
            elif isinstance(action, GiveUp):
                self._give_up(action)
            elif isinstance(action, Annotate):
                metadata = self.objects[action.kind, action.name]["metadata"]
                metadata["annotations"] = {
                    **metadata.get("annotations", {}),
                    **action.annotations,
                }
            elif isinstance(action, ReportProgress):
                continue  # only other programs read it
            elif action.kind == "Pod":
                due = format_time(self.now + timedelta(seconds=30))
                self.pods[action.name]["metadata"]["deletionTimestamp"] = due
            else:
                self._delete(action)
        return decision

    def settle(self, limit: int = 50) -> Decision:
        """Run passes until one changes nothing."""
        for _ in range(limit):
            before = (copy.deepcopy(self.document), copy.deepcopy(self.objects))
            decision = self.step()
            if before == (self.document, self.objects):
                return decision
        raise AssertionError("the operator never comes to rest")

    def _create(self, manifest: Manifest) -> None:
        key = (manifest["kind"], manifest["metadata"]["name"])
        if key in self.objects:
            return
        manifest["metadata"]["uid"] = f"uid-{next(self._uids)}"
        manifest["metadata"]["creationTimestamp"] = format_time(self.now)
        self.objects[key] = manifest

    def _give_up(self, action: GiveUp) -> None:
        metadata = self.objects[action.kind, action.name]["metadata"]
        others = [o for o in metadata["ownerReferences"] if o["uid"] != action.owner_uid]
        if others:
            metadata["ownerReferences"] = others
        elif action.deletes:
            self._delete(Delete(action.kind, action.name, action.uid, action.reason))

    def _delete(self, action: Delete) -> None:
        key = (action.kind, action.name)
        found = self.objects.get(key)
        if found is None or found["metadata"]["uid"] != action.uid:
            return
        if not action.foreground or action.kind not in POD_KINDS:
            del self.objects[key]
        elif self.pods_of(action.name, active=True):
            found["metadata"]["deletionTimestamp"] = format_time(self.now)
            for pod in self.pods_of(action.name, active=True):
                due = self.now + timedelta(seconds=300)
                pod["metadata"]["deletionTimestamp"] = format_time(due)
        else:
            self._forget(action.name)

    def edit(self, changes: dict[str, Any]) -> None:
        """Change the job by paths below spec, as ``kubectl edit`` does; None removes."""
        set_fields(self.document, changes)
        self.document["metadata"]["generation"] += 1

    # --- what the operator wrote ------------------------------------------------------------

    @property
    def status(self) -> Manifest:
        return self.document.get("status", {})

    def condition(self, kind: str) -> Manifest:
        return next(c for c in self.status["conditions"] if c["type"] == kind)

    @property
    def attempts(self) -> list[Manifest]:
        return self.status.get("attempts", [])

    def workload_names(self, *kinds: str) -> list[str]:
        return [name for kind, name in self.objects if kind in (kinds or POD_KINDS)]

    def stage_job(self, stage: str) -> Manifest:
        return next(
            one
            for (kind, _), one in self.objects.items()
            if kind == "Job" and one["metadata"]["labels"][STAGE_LABEL] == stage
        )

    # --- the cluster ------------------------------------------------------------------------

    def add_claim(self, name: str, **spec: Any) -> None:
        self.objects["PersistentVolumeClaim", name] = {
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name,
                "uid": f"claim-{name}",
                "creationTimestamp": format_time(START),
            },
            "spec": {"accessModes": ["ReadWriteMany"], **spec},
            "status": {"phase": "Bound"},
        }

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def pods_of(self, workload: str, active: bool = False) -> list[Manifest]:
        return [
            pod
            for pod in self.pods.values()
            if pod["workload"] == workload
            and (not active or pod["status"]["phase"] in ("Pending", "Running"))
        ]

    def start_pods(self, workload: Manifest, phase: str = "Running") -> list[Manifest]:
        """The pods of a workload as its controller would make them."""
        spec = workload["spec"]
        if workload["kind"] == "PyTorchJob":
            replicas = [
                (f"{role.lower()}-{i}", replica["template"])
                for role, replica in spec["pytorchReplicaSpecs"].items()
                for i in range(replica["replicas"])
            ]
        elif workload["kind"] == "TrainJob":
            template = {
                "metadata": {"labels": dict(workload["metadata"]["labels"])},
                "spec": {"containers": [{"name": "node"}]},
            }
            count = spec["trainer"].get("numNodes", 1)
            replicas = [(str(i), copy.deepcopy(template)) for i in range(count)]
        else:
            count = spec.get("completions", 1)
            replicas = [(str(i), copy.deepcopy(spec["template"])) for i in range(count)]
        return [
            self._start_pod(workload["metadata"], i, suffix, t, phase)
            for i, (suffix, t) in enumerate(replicas)
        ]

    def _start_pod(
        self, owner: Manifest, index: int, suffix: str, template: Manifest, phase: str
    ) -> Manifest:
        workload = owner["name"]
        labels = {
            **template["metadata"]["labels"],
            JOB_NAME_LABEL: workload,
            INDEX_ANNOTATION: str(index),
        }
        pod = {
            "kind": "Pod",
            "workload": workload,
            "metadata": {
                "name": f"{workload}-{suffix}",
                "uid": f"pod-{next(self._uids)}",
                "labels": labels,
                "annotations": dict(template["metadata"].get("annotations", {})),
                "creationTimestamp": format_time(self.now),
                "ownerReferences": [{"uid": owner["uid"]}],
            },
            "spec": {**template["spec"], "nodeName": f"node{index}"},
            "status": {"phase": phase, "startTime": format_time(self.now)},
        }
        self.pods[pod["metadata"]["name"]] = pod
        return pod

    def say(self, pod: str, message: str, ago_s: float = 0) -> None:
        """Append a line to a pod's log."""
        stamp = format_time(self.now - timedelta(seconds=ago_s))
        line = f"{stamp} INFO rank=0 cosmos_worker.train {message}\n"
        self.logs[pod] = self.logs.get(pod, "") + line

    def end_pod(self, pod: Manifest, exit_code: int, reason: str = "", **said: Any) -> None:
        """The worker of a pod ends, with its termination message."""
        message = json.dumps({"reason": reason or "Crashed", "message": "it ended", **said})
        terminated = {
            "exitCode": exit_code,
            "reason": "Error" if exit_code else "Completed",
            "finishedAt": format_time(self.now),
        }
        if reason == "OOMKilled":
            terminated["reason"], message = reason, ""
        terminated["message"] = message
        others = pod.get("sidecars", ())
        pod["status"]["phase"] = "Failed" if exit_code else "Succeeded"
        if others:
            pod["status"]["phase"] = "Running"
        pod["status"]["containerStatuses"] = [  # sorted by name, as the kubelet writes them
            *({"name": name, "state": {"running": {}}} for name in others),
            {"name": worker_name(pod), "state": {"terminated": terminated}},
        ]

    def inject(self, pod: Manifest, name: str = "istio-proxy") -> None:
        """Put another container into a pod, before the worker's, that never ends by itself."""
        container = {"name": name, "image": "istio/proxyv2"}
        pod["spec"] = {**pod["spec"], "containers": [container, *pod["spec"]["containers"]]}
        pod["sidecars"] = [name]

    def end_sidecars(self, pod: Manifest, exit_code: int = 0) -> None:
        """The other containers of a pod, whose worker has ended, end as well."""
        statuses = pod["status"]["containerStatuses"]
        for status in statuses:
            status["state"] = {"terminated": {"exitCode": exit_code}} | status["state"]
            status["state"].pop("running", None)
        codes = [status["state"]["terminated"]["exitCode"] for status in statuses]
        pod["status"]["phase"] = "Failed" if any(codes) else "Succeeded"

    def finish(self, workload: Manifest, kind: str = "", message: str = "") -> None:
        """The controller of a workload says that it has ended: Complete or Succeeded by default."""
        kind = kind or ("Complete" if workload["kind"] == "Job" else "Succeeded")
        stamp = format_time(self.now)
        condition = {"type": kind, "status": "True", "message": message, "reason": kind}
        condition["lastTransitionTime"] = stamp
        workload["status"] = {"conditions": [condition], "startTime": stamp}
        if kind != "Failed":
            workload["status"]["completionTime"] = stamp

    def succeed(self, workload: Manifest, **said: Any) -> None:
        """All pods of a workload run and end well."""
        for pod in self.pods_of(workload["metadata"]["name"]) or self.start_pods(workload):
            self.end_pod(pod, 0, "Succeeded", **said)
        self.finish(workload)

    def fail(
        self, workload: Manifest, exit_code: int, reason: str = "Crashed", **said: Any
    ) -> None:
        """The first pod ends badly, the others with it."""
        pods = self.pods_of(workload["metadata"]["name"]) or self.start_pods(workload)
        self.end_pod(pods[0], exit_code, reason, **said)
        for pod in pods[1:]:
            self.end_pod(pod, 80, "PeerLost")
        self.finish(workload, "Failed", "a pod failed")

    def remove_deleted(self) -> None:
        """Remove all objects that are being deleted."""
        for pod in list(self.pods.values()):
            if "deletionTimestamp" in pod["metadata"]:
                del self.pods[pod["metadata"]["name"]]
        for _, name in [
            k for k, one in self.objects.items() if "deletionTimestamp" in one["metadata"]
        ]:
            self._forget(name)

    def _forget(self, name: str) -> None:
        for key in [key for key in self.objects if key[1] == name and key[0] in POD_KINDS]:
            del self.objects[key]
        for pod in self.pods_of(name):
            del self.pods[pod["metadata"]["name"]]
            self.logs.pop(pod["metadata"]["name"], None)

    def running_attempt(self) -> Manifest:
        """The workload of the latest attempt."""
        attempt = self.attempts[-1]
        return self.objects[attempt["backend"], attempt["workload"]]

    def prepare(self) -> None:
        """Everything before the training succeeds; the training is created."""
        for _ in range(4):
            self.settle()
            for (kind, _), one in list(self.objects.items()):
                if kind == "Job" and one["metadata"]["labels"][STAGE_LABEL] != "train":
                    self.succeed(one)
        self.settle()


class InferenceSimulation(Simulation):
    """One InferenceJob in a namespace, which may have the PostTrainingJob of its model.

    Args:
        changes: of the job, by path below spec.
        model_job: the PostTrainingJob; None if there is none.
    """

    def __init__(
        self, changes: dict[str, Any] | None = None, model_job: Manifest | None = None
    ) -> None:
        super().__init__(document=make_inference_document(changes))
        self.model_job = model_job

    def plan(self) -> JobPlan:
        record = self.objects.get(("ConfigMap", record_name(self.document["metadata"]["name"])))
        source = ModelSource(copy.deepcopy(self.model_job), record, ("other",))
        return plan_inference_job(copy.deepcopy(self.document), source)
