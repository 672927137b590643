"""The scheduler, which binds pods to nodes or gives the reason, and the binder of claims to volumes."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal

from support.fakekube.defaults import FINAL
from support.fakekube.resources import Object
from support.fakekube.store import Event
from support.fakekube.world import Controller, Key, key_of, set_condition

STORAGE_CLASSES = "storageclasses.storage.k8s.io"
CLAIMS = "persistentvolumeclaims"
PROTECTION = "kubernetes.io/pvc-protection"
UNITS: dict[str, Decimal | int] = {"m": Decimal("0.001"), "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
         "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50, "": 1}  # fmt: skip


def quantity(value: object) -> Decimal:
    """A Kubernetes quantity as a number."""
    text = str(value)
    number = text.rstrip("mkMGTPi")
    return Decimal(number) * UNITS[text[len(number) :]]


def requests(pod: Object) -> dict[str, Decimal]:
    """Resources that a pod requests."""
    total: dict[str, Decimal] = {}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources", {})
        for name, value in {**resources.get("limits", {}), **resources.get("requests", {})}.items():
            total[name] = total.get(name, Decimal(0)) + quantity(value)
    return total


def claims_of(pod: Object) -> list[str]:
    """Names of the claims that a pod uses."""
    volumes = pod["spec"].get("volumes", ())
    return [
        v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v
    ]


class Scheduler(Controller):
    """Gives pods nodes."""

    def keys(self, event: Event) -> Iterator[Key]:
        """A pod without a node; all of them where a node, a claim or another pod changes."""
        if event.resource.key == "pods" and not event.obj["spec"].get("nodeName"):
            yield key_of(event.obj)
        elif event.resource.key in ("pods", "nodes", CLAIMS):
            for pod in self.store.list("pods"):
                if not pod["spec"].get("nodeName"):
                    yield key_of(pod)

    def sync(self, key: Key) -> None:
        """Look at one pod."""
        pod = self.store.find("pods", *key)
        if pod is None or pod["spec"].get("nodeName"):
            return
        if "deletionTimestamp" in pod["metadata"]:
            self._end_unscheduled(pod)
            return
        if pod["spec"].get("schedulingGates"):
            return
        why = self._claims_problem(pod)
        node = None if why else self._choose_node(pod)
        if isinstance(node, dict):
            self._bind(pod, node)
        else:
            self._refuse(pod, why or str(node))

    def _end_unscheduled(self, pod: Object) -> None:
        """End a pod that is being deleted before it has a node, as the garbage collector of pods does."""
        if pod["status"]["phase"] == "Pending":
            pod = self.store.patch_status("pods", pod, phase="Failed")
            self.store.delete("pods", *key_of(pod), uid=pod["metadata"]["uid"], grace_s=0)

    def _claims_problem(self, pod: Object) -> str:
        count, namespace = len(self.store.list("nodes")), pod["metadata"]["namespace"]
        problem = ""
        for name in claims_of(pod):
            claim = self.store.find(CLAIMS, namespace, name)
            if claim is None:
                problem = f'persistentvolumeclaim "{name}" not found'
            elif claim["status"]["phase"] != "Bound" and not _waits_for_pod(self.store, claim):
                problem = "pod has unbound immediate PersistentVolumeClaims"
            if problem:
                break
        return f"0/{count} nodes are available: {problem}. not found" if problem else ""

    def _choose_node(self, pod: Object) -> Object | str:
        """The node for a pod, or the reason for which there is none."""
        nodes = self.store.list("nodes")
        if not nodes:
            return "no nodes available to schedule pods"
        reasons: Counter[str] = Counter()
        is_hopeless = 0
        for node in nodes:
            found, hopeless = self._obstacles(pod, node)
            if not found:
                return node
            reasons.update(found)
            is_hopeless += hopeless
        texts = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        rest = _no_preemption(is_hopeless, len(nodes) - is_hopeless)
        return f"0/{len(nodes)} nodes are available: {texts}. {rest}"

    def _obstacles(self, pod: Object, node: Object) -> tuple[list[str], bool]:
        """Reasons for which a pod does not fit a node, and whether they hold after evictions too."""
        spec = node.get("spec", {})
        tolerations = pod["spec"].get("tolerations", ())
        if spec.get("unschedulable"):
            return ["node(s) were unschedulable"], True
        taints = [t for t in spec.get("taints", ()) if t["effect"] != "PreferNoSchedule"]
        if any(not _is_tolerated(taint, tolerations) for taint in taints):
            return ["node(s) had untolerated taint(s)"], True
        if not _selects(pod, node["metadata"].get("labels", {})):
            return ["node(s) didn't match Pod's node affinity/selector"], True
        capacity = {name: quantity(v) for name, v in node["status"]["allocatable"].items()}
        free = dict(capacity)
        for other in self.store.list("pods"):
            is_there = other["spec"].get("nodeName") == node["metadata"]["name"]
            if is_there and other["status"]["phase"] not in FINAL:
                for name, amount in requests(other).items():
                    free[name] = free.get(name, Decimal(0)) - amount
        wanted = requests(pod)
        short = [name for name, amount in wanted.items() if amount > free.get(name, 0)]
        return [f"Insufficient {name}" for name in short], any(
            wanted[name] > capacity.get(name, 0) for name in short
        )

    def _bind(self, pod: Object, node: Object) -> None:
        for name in claims_of(pod):
            claim = self.store.get(CLAIMS, pod["metadata"]["namespace"], name)
            if claim["status"]["phase"] != "Bound":
                bind_claim(self, claim)
        new = copy.deepcopy(pod)
        new["spec"]["nodeName"] = node["metadata"]["name"]
        new = self.store.update("pods", new)
        conditions = set_condition(
            new["status"].get("conditions", []), "PodScheduled", "True", "", ""
        )
        self.store.patch_status("pods", new, conditions=conditions)
        text = f"Successfully assigned {'/'.join(key_of(pod))} to {node['metadata']['name']}"
        self.world.write_event(pod, "Normal", "Scheduled", text, "default-scheduler")

    def _refuse(self, pod: Object, why: str) -> None:
        old = pod["status"].get("conditions", [])
        conditions = set_condition(old, "PodScheduled", "False", "Unschedulable", why)
        if conditions != old:
            self.store.patch_status("pods", pod, conditions=conditions)
            self.world.write_event(pod, "Warning", "FailedScheduling", why, "default-scheduler")


def _no_preemption(hopeless: int, others: int = 0) -> str:
    total, parts = hopeless + others, []
    if others:
        parts.append(f"{others} No preemption victims found for incoming pod")
    if hopeless:
        parts.append(f"{hopeless} Preemption is not helpful for scheduling")
    return f"no new claims to deallocate, preemption: 0/{total} nodes are available: {', '.join(parts)}."


def _is_tolerated(taint: Object, tolerations: list[Object] | tuple[()]) -> bool:
    for toleration in tolerations:
        key, operator = toleration.get("key", ""), toleration.get("operator", "Equal")
        if key and key != taint["key"]:
            continue
        if operator == "Equal" and toleration.get("value", "") != taint.get("value", ""):
            continue
        if toleration.get("effect") in (None, "", taint["effect"]):
            return True
    return False


def _selects(pod: Object, labels: dict[str, str]) -> bool:
    if any(labels.get(k) != v for k, v in pod["spec"].get("nodeSelector", {}).items()):
        return False
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    return any(
        all(_meets(e, labels) for e in term.get("matchExpressions", ()))
        for term in required["nodeSelectorTerms"]
    )


def _meets(expression: Object, labels: dict[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values", ())
    return {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[expression["operator"]]


def _waits_for_pod(store: object, claim: Object) -> bool:
    name = claim["spec"].get("storageClassName")
    found = store.find(STORAGE_CLASSES, None, name) if name else None  # type: ignore[attr-defined]
    return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"


def bind_claim(controller: Controller, claim: Object) -> None:
    """Give a claim a volume."""
    new = copy.deepcopy(claim)
    new["spec"]["volumeName"] = f"pvc-{claim['metadata']['uid']}"
    new = controller.store.update(CLAIMS, new)
    spec = claim["spec"]
    controller.store.patch_status(
        CLAIMS,
        new,
        phase="Bound",
        accessModes=spec.get("accessModes", []),
        capacity=spec.get("resources", {}).get("requests", {}),
    )


class ClaimBinder(Controller):
    """Binds claims whose class binds at once; says what the others wait for; protects claims in use."""

    def keys(self, event: Event) -> Iterator[Key]:
        """A claim; all where a pod or a class changes."""
        if event.resource.key == CLAIMS:
            yield key_of(event.obj)
        elif event.resource.key == STORAGE_CLASSES or (
            event.resource.key == "pods" and event.type == "DELETED"
        ):
            yield from (key_of(claim) for claim in self.store.list(CLAIMS))

    def sync(self, key: Key) -> None:
        """Look at one claim."""
        claim = self.store.find(CLAIMS, *key)
        if claim is None:
            return
        if "deletionTimestamp" in claim["metadata"]:
            pods = self.store.list("pods", key[0])
            if not any(
                key[1] in claims_of(pod) for pod in pods if pod["status"]["phase"] not in FINAL
            ):
                self.store.release(CLAIMS, claim, PROTECTION)
            return
        if claim["status"]["phase"] == "Bound":
            return
        name = claim["spec"].get("storageClassName")
        if not name:
            self._say(claim, "Normal", "FailedBinding",
                      "no persistent volumes available for this claim and no storage class is set")  # fmt: skip
        elif self.store.find(STORAGE_CLASSES, None, name) is None:
            text = f'storageclass.storage.k8s.io "{name}" not found'
            self._say(claim, "Warning", "ProvisioningFailed", text)
        elif _waits_for_pod(self.store, claim):
            text = "waiting for first consumer to be created before binding"
            self._say(claim, "Normal", "WaitForFirstConsumer", text)
        else:
            bind_claim(self, claim)

    def _say(self, claim: Object, kind: str, reason: str, text: str) -> None:
        self.world.write_event(claim, kind, reason, text, "persistentvolume-controller")
