"""The page on conditions names every condition, state and reason that the operator can write."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import cosmos_operator
import cosmos_worker.errors
from cosmos_operator.decide.conditions import ORDER

PAGE = Path(__file__).parents[3] / "docs" / "conditions.md"
PACKAGE = Path(cosmos_operator.__file__).parent
WORD = re.compile(r"[A-Z][a-z]+[A-Za-z]*")
SOURCES = (
    *sorted((PACKAGE / "decide").rglob("*.py")),
    PACKAGE / "plan" / "inference_plan.py",
)
NO_REASONS = {
    # kinds of objects, and what the API server says of them
    "Job", "PyTorchJob", "TrainJob", "Service", "ConfigMap", "Pod", "PersistentVolumeClaim", "LocalQueue",
    "Active", "Lost", "Bound", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod", "WaitForFirstConsumer",
    # disruptions of pods, and how containers end
    "DeletionByPodGC", "DeletionByTaintManager", "EvictionByEvictionAPI", "NodeShutdown", "Preempting",
    "PreemptionByScheduler", "StartError", "Terminated", "TerminationByKubelet",
    # outcomes of attempts, and the reasons of their events: docs/operator.md
    "Attempt", "AttemptStarted", "Deleted", "Evicted", "GpuFault", "IoFailed", "NodeLost", "PeerLost",
    "Preempted", "Stopped",
    # conditions of pods, errors in Python, modes of claims
    "PodScheduled", "MemoryError", "ReadWriteOnce",
    # answers of a condition, views of a stage, values of fields
    "True", "False", "Unknown", "Blocked", "Auto",
}  # fmt: skip
"""Words that are no condition, no state and no reason of a condition."""


def words(path: Path) -> set[str]:
    """All texts of one CamelCase word in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    values = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {one for one in values if isinstance(one, str) and WORD.fullmatch(one)}


def explained() -> set[str]:
    return set(re.findall(r"`([A-Za-z]+)`", PAGE.read_text(encoding="utf-8")))


def test_every_reason_is_explained() -> None:
    used = set().union(*map(words, SOURCES))

    assert len(used) > 60
    assert used - NO_REASONS - explained() == set()
    assert NO_REASONS & explained() <= {"Job", "ConfigMap"}


def test_every_reason_of_a_pod_that_does_not_start_is_explained() -> None:
    text = (PACKAGE / "kube" / "pods.py").read_text(encoding="utf-8")
    reasons = set(re.findall(r'Obstacle\(\s*"(\w+)"', text))

    assert {"ImagePullFailed", "Unschedulable"} <= reasons
    assert reasons <= explained()


def test_every_condition_is_explained() -> None:
    assert set(ORDER) <= explained()


def test_every_error_of_the_worker_is_explained() -> None:
    errors = {
        name
        for name, kind in vars(cosmos_worker.errors).items()
        if isinstance(kind, type) and issubclass(kind, cosmos_worker.errors.WorkerError)
    }
    assert errors - {"WorkerError", "StopRequested"} <= explained()
