"""The nodes that an attempt keeps away from, because earlier attempts failed there. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.requirements.machines import offered_gpus
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import name_of
from cosmos_operator.plan.pod import AvoidedNodes
from cosmos_operator.plan.stages import Stage


def nodes_to_avoid(pass_: Pass, stage: Stage) -> AvoidedNodes:
    """Nodes with a broken GPU, and nodes that were lost.

    Kubernetes itself keeps pods away from a lost node, so one that is back may be used where no other node fits. Only
    we know of a broken GPU: its node is ruled out while enough other nodes have the GPUs, and avoided otherwise,
    because a job that waits for ever is no better than one that tries.
    """
    broken = _nodes_of_attempts(pass_, "GpuFault")
    lost = _nodes_of_attempts(pass_, "NodeLost")
    offers = offered_gpus(pass_, stage) or {}
    others = [name for name, offer in offers.items() if name not in broken and offer >= stage.gpus]
    if len(others) < stage.nodes:
        return AvoidedNodes(if_possible=tuple(sorted(broken | lost)))
    return AvoidedNodes(never=tuple(sorted(broken)), if_possible=tuple(sorted(lost - broken)))


def silent_nodes(nodes: Iterable[Manifest]) -> set[str]:
    """Names of the nodes whose kubelet does not report: their condition Ready is Unknown."""
    return {
        name_of(node)
        for node in nodes
        for condition in node.get("status", {}).get("conditions", ())
        if (condition["type"], condition["status"]) == ("Ready", "Unknown")
    }


def _nodes_of_attempts(pass_: Pass, outcome: str) -> set[str]:
    return {one.node for one in pass_.attempts if one.outcome == outcome and one.node}
