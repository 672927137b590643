"""The local cluster as tests use it."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path

from harness import (
    control_plane,
    images,
    kueue,
    lifecycle,
    pods,
    processes,
    trainer,
    training_operator,
    volumes,
)
from harness.commands import run
from harness.constants import KUEUE_VERSION, NODE, REGISTRY_OF_PODS
from harness.errors import CommandError
from harness.packages import environment
from harness.paths import kubeconfig, logs, state
from harness.silent_node import silent_node

DRAIN = ("--ignore-daemonsets", "--delete-emptydir-data", "--force")
GPU = "nvidia.com/gpu"
DIAGNOSES = {
    "objects.txt": ("get", "all,pvc,configmap,event", "--all-namespaces", "--output=wide"),
    "pods.yaml": ("get", "pods", "--all-namespaces", "--output=yaml"),
    "events.txt": ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
}


class LocalCluster:
    """A running cluster of one node, ``node1``, with a registry of images at ``localhost:5000``."""

    node = NODE
    registry = REGISTRY_OF_PODS

    def __init__(self) -> None:
        self._others = ExitStack()

    @classmethod
    def start(cls, *, with_node: bool = True) -> LocalCluster:
        """Start the cluster if it does not run."""
        lifecycle.up(with_node=with_node)
        return cls()

    def stop(self) -> None:
        """Stop the cluster and forget all but its images."""
        lifecycle.down()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return kubeconfig()

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002
        """Run kubectl as the administrator; returns what it printed. An error raises unless ``check`` is off."""
        return control_plane.kubectl(*arguments, text_in=input, check=check)

    def helm(self, *arguments: str, check: bool = True) -> str:
        """Run helm as the administrator; returns what it printed."""
        home = state() / "helm"
        folders = {
            f"HELM_{kind}_HOME": str(home / kind.lower()) for kind in ("CACHE", "CONFIG", "DATA")
        }
        settings = {**environment(), **folders, "KUBECONFIG": str(kubeconfig())}
        return run(["helm", *arguments], environment=settings, check=check)

    def apply(self, *manifests: dict[str, object]) -> None:
        """Create or change objects."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--server-side", "--filename=-", input=json.dumps(listed))

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, object] | None:
        """An object; None if there is none of this name."""
        where = [f"--namespace={namespace}"] if namespace else []
        found = self.kubectl("get", kind, name, *where, "--ignore-not-found", "--output=json")
        document: dict[str, object] | None = json.loads(found) if found.strip() else None
        return document

    def make_namespace(self, name: str, *, restricted: bool = True) -> str:
        """Make a namespace, by default one that enforces Pod Security "restricted"."""
        labels = {"pod-security.kubernetes.io/enforce": "restricted"} if restricted else {}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": name, "labels": labels},
            }
        )
        return name

    def image(self, name: str) -> str:
        """Name by which pods refer to one of our images, built from the present tree."""
        return images.reference(name)

    def build_and_push(self, name: str, *, suffix: str = "", preload: bool = True) -> str:
        """Build ``cosmos-operator`` or ``cosmos-worker-cpu`` unless it is there; returns the name for pods."""
        reference = images.build_and_push(name, suffix=suffix)
        if preload:
            images.preload(reference)
        return reference

    def preload(self, *references: str) -> None:
        """Let the node pull images now."""
        for reference in references:
            images.preload(reference)

    def set_gpus(self, count: int) -> None:
        """Set the number of GPUs that the node reports; 0 removes the resource."""
        path = f"/{{}}/{GPU.replace('/', '~1')}"
        status = json.loads(self.kubectl("get", "node", NODE, "--output=json"))["status"]
        patch = []
        for where in ("capacity", "allocatable"):
            has = GPU in status.get(where, {})
            if count:
                patch.append(
                    {"op": "add", "path": f"/status{path.format(where)}", "value": str(count)}
                )
            elif has:
                patch.append({"op": "remove", "path": f"/status{path.format(where)}"})
        if patch:
            change = ("--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")
            self.kubectl("patch", "node", NODE, *change)

    def add_silent_node(self, name: str, gpus: int) -> AbstractContextManager[None]:
        """Add a second node with so many GPUs for the block; pods are scheduled there and never start."""
        return silent_node(name, {GPU: str(gpus)})

    def drain(self, *, timeout: str = "60s") -> None:
        """Evict every pod and take no new ones."""
        self.kubectl("drain", NODE, *DRAIN, f"--timeout={timeout}")

    def uncordon(self) -> None:
        """Take pods again."""
        self.kubectl("uncordon", NODE)

    def lose_node(self) -> None:
        """Stop the kubelet's heartbeats; containers keep running, as on a node that lost its network.

        A cluster that has lost all its nodes evicts nobody, so another one is there until the node is restored.
        """
        self._others.enter_context(silent_node("other", {}, takes_pods=False))
        processes.send(processes.pid_of("kubelet"), signal.SIGSTOP)

    def restore_node(self) -> None:
        """Let the kubelet go on, and wait until the node is ready."""
        processes.send(processes.pid_of("kubelet"), signal.SIGCONT)
        self.kubectl("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=60s")
        self._others.close()

    def make_volume(
        self,
        namespace: str,
        name: str,
        *,
        size: str = volumes.DEFAULT_SIZE,
        access_modes: Sequence[str] = ("ReadWriteMany",),
        limit_mib: int | None = None,
    ) -> Path:
        """Make a bound ReadWriteMany claim; returns the folder of this machine that holds its files."""
        return volumes.make_claim(
            namespace, name, size=size, access_modes=access_modes, limit_mib=limit_mib
        )

    def kill_container_process(
        self,
        namespace: str,
        pod: str,
        *,
        local_rank: int | None = None,
        command: str | None = None,
        container: str | None = None,
        number: signal.Signals = signal.SIGKILL,
    ) -> int:
        """Send SIGKILL, or another signal, to one process of a pod from outside; returns its number here."""
        return pods.kill_container_process(
            namespace,
            pod,
            local_rank=local_rank,
            command=command,
            container=container,
            number=number,
        )

    def has_training_operator(self) -> bool:
        """True if the training-operator is deployed."""
        return self.get("deployment", "training-operator", "kubeflow") is not None

    def install_training_operator(self) -> None:
        """Deploy the training-operator, which runs PyTorchJobs."""
        training_operator.install()

    def remove_training_operator(self) -> None:
        """Remove the training-operator, its CRDs and with them every PyTorchJob."""
        training_operator.remove()

    def install_kueue(self, version: str = KUEUE_VERSION) -> None:
        """Deploy Kueue, which admits workloads that name a queue, over another version if one is there."""
        kueue.install(version)

    def remove_kueue(self) -> None:
        """Remove Kueue with its queues."""
        kueue.remove()

    def install_trainer(self) -> None:
        """Deploy Kubeflow Trainer v2, which runs TrainJobs, and JobSet."""
        trainer.install()

    def remove_trainer(self) -> None:
        """Remove Kubeflow Trainer v2 and JobSet, and every TrainJob with them."""
        trainer.remove()

    def collect(self, folder: Path) -> Path:
        """Copy what explains a failure into a folder: the daemons' logs, the pods' logs, objects and events."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(logs(), folder / "daemons")
        if (state() / "log" / "pods").exists():
            shutil.copytree(state() / "log" / "pods", folder / "pods")
        for name, arguments in DIAGNOSES.items():
            with suppress(CommandError):
                (folder / name).write_text(self.kubectl(*arguments))
        return folder
