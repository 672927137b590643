"""A cluster with a running operator, as scenario tests see it: the fast one in this process, or the real one.

Both are spoken to over HTTP in the same way. Only operations on machines differ: killing a process,
draining a node, restarting the operator.
"""

from __future__ import annotations

import copy
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from cosmos_operator.api.labels import JOB_LABEL, STAGE_LABEL
from cosmos_operator.kube.kinds import Manifest
from support.api_client import Api
from support.fakekube import FakeKube, Fault, Sidecar
from support.operator_process import OperatorProcess

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "posttrainingjob.yaml"
CLAIM = "cosmos"
INPUT = {
    "prompt": "push the red cube left",
    "conditioning": "/opt/cosmos/examples/pushing/dataset/videos/test/one-000000/rgb.mp4",
}
SAMPLING = {
    "numPixelFrames": 17, "height": 128, "width": 160, "fps": 10, "steps": 2, "sampler": "Res2Ab",
    "guidance": 1, "numInputFrames": 1, "inputFrames": "First",
}  # fmt: skip
ITEM = {"name": "clip", "inputs": [INPUT], "parameters": SAMPLING}
"""An inference item: one short video."""


class Refusal(Exception):  # noqa: N818 - it is an answer
    """The API server refused a request."""


class Jobs(ABC):
    """PostTrainingJobs in a namespace that an operator watches."""

    is_real: bool
    patience: float
    """Seconds after which something that should have happened is given up."""
    api: Api
    cpu_image = "cosmos-worker-cpu:test"
    """Image of the worker that every node has, also for jobs with GPUs."""
    steps = 20
    """Steps of a training that is to end soon, on one node, with a checkpoint every ten."""

    # --- jobs -------------------------------------------------------------------------------

    def document(self, name: str, **changes: Any) -> Manifest:
        """The example job under another name, short, on one node, without inference, with fields of spec replaced."""
        document: Manifest = yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))
        document["metadata"]["name"] = name
        spec = document["spec"]
        small = ("validation_draws=1", "global_batch_size=4", "micro_batch_size=2")
        overrides = [f"trainer.{setting}" for setting in small]
        spec["training"] |= {"steps": self.steps, "overrides": overrides}
        spec["compute"] = {"nodes": 1, "processesPerNode": 1}
        spec["checkpoints"] = {"everySteps": 10}
        spec["inference"] = []
        spec["outputs"] = {"name": name}
        spec |= copy.deepcopy(changes)
        return document

    @property
    def endless(self) -> Manifest:
        """Fields of spec of a training that never ends by itself, on two nodes, with a checkpoint every five steps."""
        training = self.document("endless")["spec"]["training"]
        return {
            "training": training | {"steps": 100_000},
            "compute": {"nodes": 2, "processesPerNode": 1},
            "checkpoints": {"everySteps": 5},
        }

    def apply(self, document: Manifest) -> Manifest:
        """Create a job.

        Raises:
            Refusal: with the API server's words.
        """
        status, body = self.api.call("POST", self.api.jobs, document)
        if status != 201:
            raise Refusal(body["message"])
        return dict(body)

    def submit(self, name: str, **changes: Any) -> Manifest:
        """Create a job from the example."""
        return self.apply(self.document(name, **changes))

    def patch(self, name: str, spec: Manifest) -> Manifest:
        """Merge into the specification of a job.

        Raises:
            Refusal: with the API server's words.
        """
        path = f"{self.api.jobs}/{name}"
        status, body = self.api.call("PATCH", path, {"spec": spec}, kind="merge")
        if status != 200:
            raise Refusal(body["message"])
        return dict(body)

    def delete(self, name: str) -> None:
        """Delete a job, as ``kubectl delete`` does."""
        body = {"propagationPolicy": "Background"}
        self.api.call("DELETE", f"{self.api.jobs}/{name}", body)

    def job(self, name: str) -> Manifest | None:
        """The job, or None."""
        status, body = self.api.call("GET", f"{self.api.jobs}/{name}")
        return dict(body) if status == 200 else None

    def status(self, name: str) -> Manifest:
        """Status of a job."""
        found = self.job(name)
        assert found is not None, f"{name} is gone"
        return dict(found.get("status", {}))

    def condition(self, name: str, kind: str) -> Manifest:
        """A condition of a job; empty if it has none of that type."""
        conditions = self.status(name).get("conditions", ())
        return next((dict(one) for one in conditions if one["type"] == kind), {})

    # --- waiting ----------------------------------------------------------------------------

    def wait(self, what: str, test: Callable[[], Any], seconds: float | None = None) -> Any:
        """Call a function until its result is true; returns that result."""
        end = time.monotonic() + (seconds or self.patience)
        while not (found := test()):
            assert time.monotonic() < end, f"it did not happen: {what}\n{self.describe()}"
            time.sleep(0.5 if self.is_real else 0.05)
        return found

    def wait_state(self, name: str, *states: str, seconds: float | None = None) -> Manifest:
        """The status of a job once it has one of these states; a job that fails first is an error."""

        def test() -> Manifest | None:
            job = self.job(name)
            assert job is not None, f"{name} is gone"
            status = dict(job.get("status", {}))
            if status.get("observedGeneration") != job["metadata"]["generation"]:
                return None
            if status.get("state") == "Failed" and "Failed" not in states:
                raise AssertionError(f"{name} failed: {status['message']}\n{self.describe()}")
            return status if status.get("state") in states else None

        result: Manifest = self.wait(f"{name} is {' or '.join(states)}", test, seconds)
        return result

    def wait_step(self, name: str, step: int, attempt: int = 1) -> Manifest:
        """The status of a job once an attempt of its training has reported this step."""

        def test() -> Manifest | None:
            status = self.status(name)
            found = [a for a in status.get("attempts", ()) if a["number"] == attempt]
            reached = found and found[0].get("endStep", 0) >= step
            return status if reached else None

        result: Manifest = self.wait(f"attempt {attempt} of {name} reaches step {step}", test)
        return result

    def wait_condition(self, name: str, kind: str, reason: str) -> Manifest:
        """A condition once it has this reason."""

        def test() -> Manifest | None:
            found = self.condition(name, kind)
            return found if found.get("reason") == reason else None

        result: Manifest = self.wait(f"{kind} of {name} says {reason}", test)
        return result

    # --- other objects ----------------------------------------------------------------------

    def list(self, path: str, selector: str = "") -> list[Manifest]:
        """Objects of a kind, by the path of its group and its plural, such as ``/apis/batch/v1 jobs``."""
        group, _, plural = path.partition(" ")
        query = {"labelSelector": selector} if selector else {}
        where = f"{group}/namespaces/{self.api.namespace}/{plural}"
        status, body = self.api.call("GET", where, **query)
        return list(body["items"]) if status == 200 else []

    def stage_jobs(self, stage: str) -> list[Manifest]:
        """Jobs of a stage, of all PostTrainingJobs."""
        return self.list("/apis/batch/v1 jobs", f"{STAGE_LABEL}={stage}")

    def pods(self, name: str, *, running: bool = False) -> list[Manifest]:
        """Training pods of a job."""
        found = self.list("/api/v1 pods", f"{JOB_LABEL}={name},{STAGE_LABEL}=train")
        return [pod for pod in found if not running or pod["status"].get("phase") == "Running"]

    def workers(self, name: str) -> list[Manifest]:
        """Running training pods other than the leader's."""
        found = self.pods(name, running=True)
        return [pod for pod in found if "leader" not in str(pod["metadata"]["labels"])]

    def owned(self, name: str) -> list[Manifest]:
        """Everything that belongs to a job alone."""
        selector = f"{JOB_LABEL}={name}"
        paths = (
            "/apis/batch/v1 jobs", "/apis/kubeflow.org/v1 pytorchjobs",
            "/apis/trainer.kubeflow.org/v1alpha1 trainjobs", "/api/v1 pods",
            "/api/v1 configmaps", "/api/v1 services",
        )  # fmt: skip
        return [one for path in paths for one in self.list(path, selector)]

    def delete_pod(self, name: str) -> None:
        """Delete a pod with its grace."""
        self.api.call("DELETE", f"{self.api.core('pods')}/{name}")

    def describe(self) -> str:
        """All jobs in a line each, for messages."""
        lines = []
        for job in self.api.call("GET", self.api.jobs)[1].get("items", ()):
            status = job.get("status", {})
            attempts = [(a["number"], a["outcome"]) for a in status.get("attempts", ())]
            lines.append(
                f"{job['metadata']['name']}: {status.get('state')}: {status.get('message')} {attempts}"
            )
        return "\n".join([*lines, self.operator_log()])

    @abstractmethod
    def operator_log(self) -> str:
        """The last lines of the operator's log."""


class InferenceJobs(Jobs):
    """InferenceJobs beside the PostTrainingJobs of a world."""

    def __init__(self, world: Jobs) -> None:
        self._world = world
        self.is_real, self.patience = world.is_real, world.patience
        self.api = copy.copy(world.api)
        self.api.plural = "inferencejobs"

    def document(self, name: str, **changes: Any) -> Manifest:
        """A job with one short video of the model of a PostTrainingJob, with fields of spec replaced."""
        spec = {"model": {"job": "absent"}, "items": [ITEM]}
        return {
            "apiVersion": "cosmos.dev/v1alpha1",
            "kind": "InferenceJob",
            "metadata": {"name": name},
            "spec": copy.deepcopy(spec | changes),
        }

    def operator_log(self) -> str:
        return self._world.operator_log()


class ScenarioWorld(Jobs):
    """PostTrainingJobs, a claim ``cosmos`` and nodes, with operations that break or drain them."""

    @property
    @abstractmethod
    def kubeconfig(self) -> Path:
        """File with address and credentials of the API server."""

    @abstractmethod
    def kill_process(self, pod: str) -> None:
        """SIGKILL a training process in a pod."""

    @abstractmethod
    def lack_data(self, path: str, stage: str = "prepare-dataset") -> None:
        """Make a folder or file that a stage reads be missing in the image."""

    def lack_memory(self, name: str, times: int) -> None:
        """Let the training of a job run out of host memory so often; on a real cluster its limit does that."""

    @abstractmethod
    def inject_sidecar(self, stage: str) -> None:
        """Put a container that ends only on SIGTERM before the worker's in new pods of a stage."""

    @abstractmethod
    def end_injection(self) -> None:
        """Put no more containers into new pods."""

    @abstractmethod
    def drain(self) -> None:
        """Cordon the node and evict the training pods of the namespace, but for those of the quickstart."""

    @abstractmethod
    def uncordon(self) -> None:
        """Let pods onto the node again."""

    @abstractmethod
    def lose_node(self) -> None:
        """Let the node stop answering."""

    @abstractmethod
    def restore_node(self) -> None:
        """Bring the node back if it was lost."""

    @abstractmethod
    def kill_operator(self) -> None:
        """End the operator without warning."""

    @abstractmethod
    def start_operator(self) -> None:
        """Start the operator if it does not run."""

    @abstractmethod
    def checkpoint_files(self, name: str) -> list[str]:
        """Checkpoints of a job on the claim, by their paths."""


class FakeWorld(ScenarioWorld):
    """The in-process API server, simulated pods, and the real operator as a process beside it.

    Args:
        folder: for the operator's files.
        kube: the cluster, started.
        number: of the namespace.
    """

    is_real = False
    patience = 30.0

    def __init__(self, folder: Path, kube: FakeKube, namespace: str = "default") -> None:
        self.kube = kube
        self.api = Api(kube.url)
        self.api.namespace = namespace
        self._kubeconfig = kube.write_kubeconfig(folder / "kubeconfig")
        self._operator = OperatorProcess(folder, self._kubeconfig)
        self._is_node_lost = False

    @property
    def kubeconfig(self) -> Path:
        return self._kubeconfig

    def start_operator(self) -> None:
        self._operator.start()

    def kill_operator(self) -> None:
        if self._operator.kill():
            self._free_lease()

    def _free_lease(self) -> None:
        """Delete the Lease of a killed operator, which would expire only later."""
        self.api.call(
            "DELETE", "/apis/coordination.k8s.io/v1/namespaces/default/leases/cosmos-operator"
        )

    def stop(self) -> None:
        """End the operator in order."""
        self._operator.stop()

    def kill_process(self, pod: str) -> None:
        self.kube.kill_process(pod, namespace=self.api.namespace)

    def lack_data(self, path: str, stage: str = "prepare-dataset") -> None:
        text = f"{path}: no such folder; name one that is in the image"
        self.kube.add_fault(Fault(stage, exit_code=2, reason="DataError", message=text))

    def inject_sidecar(self, stage: str) -> None:
        self.kube.inject_sidecar(Sidecar(stage))

    def end_injection(self) -> None:
        self.kube.end_injection()

    def lack_memory(self, name: str, times: int) -> None:
        self.kube.add_fault(Fault("train", kind="oom", job=name, times=times))

    def drain(self) -> None:
        self.kube.drain("node-1")

    def uncordon(self) -> None:
        self.kube.uncordon("node-1")

    def lose_node(self) -> None:
        self._is_node_lost = True
        self.kube.lose_node("node-1")

    def restore_node(self) -> None:
        if self._is_node_lost:
            self.kube.restore_node("node-1")
            self._is_node_lost = False

    def checkpoint_files(self, name: str) -> list[str]:
        disk = self.kube.disk(CLAIM, self.api.namespace)
        return [
            str(path) for path in disk if re.search(rf"{name}-[0-9a-f]{{12}}/.*iter_", str(path))
        ]

    def operator_log(self) -> str:
        return self._operator.log()
