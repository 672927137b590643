"""Trainings on several nodes of which only some are to be had: they are given back, and tried again later. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.training.pods import Gang
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import seconds_since
from cosmos_operator.plan.stages import Stage

DEFAULT_TIMEOUT_S = 600
"""Seconds for which pods of several nodes wait for the others, if the job does not say."""


def partial_start_problem(pass_: Pass, stage: Stage, gang: Gang) -> str:
    """The reason to give back the nodes of an attempt; empty while it may wait for the others.

    Nodes are given back if some pods have one and others have waited for one for the timeout.
    """
    nodes = pass_.attempts[-1].nodes or stage.nodes
    timeout = pass_.job.spec.run_policy.partial_start_timeout_seconds
    timeout = DEFAULT_TIMEOUT_S if timeout is None else timeout
    placed = [pod for pod in gang.active if pod["spec"].get("nodeName")]
    if nodes < 2 or not timeout or not placed or len(placed) >= nodes:
        return ""
    waited_s = min(seconds_since(_placed_time(pod), pass_.now) for pod in placed)
    if waited_s < timeout:
        pass_.requeue_after(timeout - waited_s + 1)
        return ""
    return (
        f"{len(placed)} of {nodes} pods have had a node for {timeout} s, and the others none "
        "(spec.runPolicy.partialStartTimeoutSeconds); their nodes are given back, and the training tries again later"
    )


def _placed_time(pod: Manifest) -> str:
    """Time at which a pod got its node."""
    status = pod.get("status", {})
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "True":
            return str(condition["lastTransitionTime"])
    return str(status.get("startTime") or pod["metadata"]["creationTimestamp"])
