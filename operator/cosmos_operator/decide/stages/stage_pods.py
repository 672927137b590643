"""The pods of a stage's Job, and how their workers ended. Pure."""

from __future__ import annotations

from cosmos_operator.api.labels import JOB_NAME_LABEL
from cosmos_operator.decide.endings import explain
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.containers import kept_alive_by
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import name_of, owner_uids
from cosmos_operator.kube.pods import Ending, ending_of, is_over
from cosmos_operator.plan.stages import Stage


def pods_of(pass_: Pass, workload: Manifest) -> list[Manifest]:
    """Pods of a Job in the order of their creation, without those of an earlier Job of the same name."""
    uid = workload["metadata"].get("uid")
    pods = pass_.observed.pods_with({JOB_NAME_LABEL: name_of(workload)})
    own = [pod for pod in pods if uid in owner_uids(pod)]
    return sorted(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))


def ended_pods(pass_: Pass, stage: Stage, workload: Manifest) -> list[tuple[Manifest, Ending]]:
    """Pods of a Job whose workers have ended, with their ends, in the order of their creation."""
    found = []
    for pod in pods_of(pass_, workload):
        ending = ending_of(pod) if is_over(pod) or kept_alive_by(pod) else None
        if ending is not None:
            found.append((pod, explain(ending, stage.kind)))
    return found


def last_ending(pass_: Pass, stage: Stage, workload: Manifest) -> Ending | None:
    """The end of the worker in the pod that succeeded, otherwise in the last one; None if no pod left a trace."""
    endings = [ending for _, ending in ended_pods(pass_, stage, workload)]
    good = next((ending for ending in endings if ending.exit_code == 0), None)
    return good or next(reversed(endings), None)
