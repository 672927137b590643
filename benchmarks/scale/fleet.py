"""The jobs of the benchmark: live ones, which the operator has brought so far, and copies of one that has finished."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from scale.api import JOBS, Api, Object, in_parallel
from scale.nodes import POOL

TEAMS = 10
"""Namespaces of the fleet."""
DATASETS = 5
"""Datasets of each team: their jobs share preparation."""
CLAIM = "cosmos"
TEMPLATE = "life-of-one-job"
"""Name of the job that is measured from beginning to end, and then copied."""
TEMPLATE_NAMESPACE = "life"
PART = "cosmos.dev/benchmark"
"""Label of jobs: running, waiting, suspended, or another first word of their names."""
ARCHIVE = "archive"
"""Node of pods that ended long ago."""
ENDLESS_STEPS = 10_000_000
BUSY, FULL, SPARE = "busy", "full", "spare"
"""Pools of nodes: of jobs that run for ever, one whose GPUs another pod holds, and of jobs that run through."""
GENERATED_LABELS = ("controller-uid", "batch.kubernetes.io/controller-uid", "job-name",
                    "batch.kubernetes.io/job-name")  # fmt: skip


def team(number: int) -> str:
    """Namespace of the job of a number."""
    return f"team-{number % TEAMS}"


class Documents:
    """Makes jobs from the example of a checkout.

    Args:
        checkout: folder of the project.
    """

    def __init__(self, checkout: Path) -> None:
        text = (checkout / "examples" / "posttrainingjob.yaml").read_text(encoding="utf-8")
        self._example: Object = yaml.safe_load(text)

    def job(
        self, namespace: str, name: str, *, dataset: str, pool: str, steps: int, suspend: bool
    ) -> Object:
        """A job of eight stages and one inference item on one GPU.

        Args:
            namespace: of the job.
            name: of the job.
            dataset: jobs with the same dataset share its preparation.
            pool: of the nodes that it may use.
            steps: of its training.
            suspend: whether it is suspended.
        """
        document = copy.deepcopy(self._example)
        labels = {PART: name.partition("-")[0]}
        document["metadata"] = {"name": name, "namespace": namespace, "labels": labels}
        spec = document["spec"]
        spec["dataset"]["source"]["path"] += f"-{dataset}"
        spec["training"]["steps"] = steps
        # a report each ten steps is what a real training of seconds a step writes
        spec["training"]["overrides"] = ["trainer.log_every_steps=10"]
        spec["checkpoints"] = {"everySteps": 20 if steps < ENDLESS_STEPS else 1000}
        # no GPU for the preparation: that of jobs which wait for a GPU is done
        spec["compute"] = {"nodes": 1, "gpusPerNode": 1, "preparation": {"gpus": 0}}
        spec["scheduling"] = {"nodeSelector": {POOL: pool}}
        spec["inference"] = [item for item in spec["inference"] if item["name"] == "one"]
        spec["outputs"] = {"name": name}
        if suspend:
            spec["runPolicy"]["suspend"] = True
        return document


def jobs_path(namespace: str, name: str = "") -> str:
    """Path of a PostTrainingJob, or of all in a namespace."""
    return f"{JOBS}/namespaces/{namespace}/posttrainingjobs" + (f"/{name}" if name else "")


async def make_namespace(api: Api, name: str) -> None:
    """A namespace with a claim that is bound to a volume."""
    volume, claim = f"{name}-volume", "persistentvolumeclaims"
    room = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    reference = {"namespace": name, "name": CLAIM}
    spec = room | {"capacity": {"storage": "1Gi"}, "hostPath": {"path": "/none"}}
    body = {"metadata": {"name": volume}, "spec": spec | {"claimRef": reference}}
    await api.call("POST", "/api/v1/persistentvolumes", body)
    await api.call(
        "PATCH",
        f"/api/v1/persistentvolumes/{volume}/status",
        {"status": {"phase": "Bound"}},
        "merge",
    )
    wanted = room | {"resources": {"requests": {"storage": "1Gi"}}, "volumeName": volume}
    bound = {"pv.kubernetes.io/bind-completed": "yes"}
    body = {"metadata": {"name": CLAIM, "annotations": bound}, "spec": wanted}
    made = await api.call("POST", f"/api/v1/namespaces/{name}/{claim}", body)
    status = {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Gi"}}
    path = f"/api/v1/namespaces/{name}/{claim}/{made['metadata']['name']}/status"
    await api.call("PATCH", path, {"status": status}, "merge")


@dataclass
class Finished:
    """The objects that a job leaves behind, as text that is copied with another name."""

    job: str
    objects: list[tuple[str, str]] = field(default_factory=list)
    """Path of the kind, and object: first the ConfigMaps and Jobs, then the pods."""

    @property
    def num_objects(self) -> int:
        """Number of objects beside the job."""
        return len(self.objects)


async def read_finished(api: Api, label: str) -> Finished:
    """The objects that the job TEMPLATE has left.

    Args:
        api: the API server.
        label: label of everything that belongs to one job.
    """
    job = await api.call("GET", jobs_path(TEMPLATE_NAMESPACE, TEMPLATE))
    found = Finished(json.dumps(job))
    for root, plural in (
        ("/api/v1", "configmaps"),
        ("/apis/batch/v1", "jobs"),
        ("/api/v1", "pods"),
    ):
        path = f"{root}/namespaces/{TEMPLATE_NAMESPACE}/{plural}"
        for one in await api.list(path, labelSelector=f"{label}={TEMPLATE}"):
            found.objects.append((path, json.dumps(one)))
    return found


async def copy_finished(api: Api, template: Finished, numbers: range, with_objects: int) -> None:
    """Make finished jobs; the operator and the controllers must not run.

    Args:
        api: the API server.
        template: what is copied.
        numbers: of the jobs to make.
        with_objects: one of so many jobs has its objects; those of others are gone.
    """

    async def make(number: int) -> None:
        namespace, name = team(number), f"done-{number:05d}"
        job = _renamed(template.job, namespace, name)
        uid = job["metadata"]["uid"]
        made = await _store(api, jobs_path(namespace), job)
        if number % with_objects:
            return
        uids = {uid: made["metadata"]["uid"]}
        for path, text in template.objects:
            one = _renamed(text, namespace, name)
            own = one["metadata"]["uid"]
            for owner in one["metadata"].get("ownerReferences", ()):
                owner["uid"] = uids.get(owner["uid"], owner["uid"])
            one = _prepared(one)
            stored = await _store(api, path.replace(TEMPLATE_NAMESPACE, namespace, 1), one)
            uids[own] = stored["metadata"]["uid"]

    await in_parallel(make, numbers)


def _renamed(text: str, namespace: str, name: str) -> Object:
    text = text.replace(TEMPLATE, name)
    renamed: Object = json.loads(
        text.replace(f'"namespace": "{TEMPLATE_NAMESPACE}"', f'"namespace": "{namespace}"')
    )
    return renamed


def _prepared(one: Object) -> Object:
    """An object of a template without what the API server generates anew."""
    spec = one.get("spec", {})
    one["metadata"].pop("finalizers", None)
    if "nodeName" in spec:
        spec["nodeName"] = ARCHIVE
    if "template" in spec:
        del spec["selector"]
        for labels in (spec["template"]["metadata"]["labels"], one["metadata"]["labels"]):
            for label in GENERATED_LABELS:
                labels.pop(label, None)
    return one


async def _store(api: Api, path: str, one: Object) -> Object:
    """Create an object with its status."""
    metadata, status = one["metadata"], one.get("status")
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    one["metadata"] = {name: metadata[name] for name in kept if name in metadata}
    made = await api.call("POST", path, one)
    if status is not None:
        target = f"{path}/{made['metadata']['name']}/status"
        await api.call("PATCH", target, {"status": status}, "merge")
    return made


async def hold_gpus(api: Api, node: str, gpus: int) -> None:
    """Hold all GPUs of a node with a pod that is nobody's job."""
    await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "others"}})
    holder = {
        "name": "holder",
        "image": "holder",
        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
    }
    spec = {"nodeName": node, "containers": [holder]}
    body = {"metadata": {"name": "holder"}, "spec": spec}
    await api.call("POST", "/api/v1/namespaces/others/pods", body)


@dataclass(frozen=True)
class Live:
    """Numbers of live jobs by what they do."""

    running: int = 0
    waiting: int = 0
    """For a GPU: all that they may use are held."""
    suspended: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.running + self.waiting + self.suspended


def shares(total: int) -> Live:
    """A tenth runs, three tenths are suspended, the rest waits."""
    running, suspended = max(1, total // 10), total * 3 // 10
    return Live(running, total - running - suspended, suspended)


async def make_live(api: Api, documents: Documents, kind: str, numbers: range) -> None:
    """Apply live jobs: ``running``, ``waiting`` or ``suspended``."""

    async def make(number: int) -> None:
        document = documents.job(
            team(number),
            f"{kind}-{number:05d}",
            dataset=str(number // TEAMS % DATASETS),
            pool=BUSY if kind == "running" else FULL,
            steps=ENDLESS_STEPS,
            suspend=kind == "suspended",
        )
        await api.call("POST", jobs_path(team(number)), document)

    await in_parallel(make, numbers)
