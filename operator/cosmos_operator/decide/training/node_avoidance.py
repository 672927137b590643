"""Which nodes an attempt keeps away from, after what earlier ones met there. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from cosmos_operator.decide.pass_state import (
    Draft,
    Manifest,
)
from cosmos_operator.decide.requirements.preflight import offered_gpus
from cosmos_operator.plan.pod import AvoidedNodes
from cosmos_operator.plan.stages import Stage


def nodes_to_avoid(draft: Draft, stage: Stage) -> AvoidedNodes:
    """Nodes with a broken GPU, and nodes that were lost.

    Kubernetes itself keeps pods away from a node that is lost, so one that is back is good enough where no other fits.
    A broken GPU is known to nobody else: its node is ruled out, but only as long as enough others could take the pods,
    because a job that waits for ever is no better than one that tries.
    """
    broken = _nodes(draft, "GpuFault")
    lost = _nodes(draft, "NodeLost")
    offers = offered_gpus(draft) or {}
    others = [name for name, offer in offers.items() if name not in broken and offer >= stage.gpus]
    if len(others) < stage.nodes:
        return AvoidedNodes(if_possible=tuple(sorted(broken | lost)))
    return AvoidedNodes(never=tuple(sorted(broken)), if_possible=tuple(sorted(lost - broken)))


def silent_nodes(nodes: Iterable[Manifest]) -> set[str]:
    """Names of the nodes whose kubelet is known not to report."""
    return {
        str(node["metadata"]["name"])
        for node in nodes
        for condition in node.get("status", {}).get("conditions", ())
        if (condition["type"], condition["status"]) == ("Ready", "Unknown")
    }


def _nodes(draft: Draft, outcome: str) -> set[str]:
    return {one.node for one in draft.attempts if one.outcome == outcome and one.node}
