"""The backend and the GPUs that a job asks for, compared with what the cluster has. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import LONG_WAIT_S, Pass
from cosmos_operator.kube.objects import labels_of, name_of
from cosmos_operator.plan.backend import BACKENDS, Backend, choose_backend


def check_backend(pass_: Pass) -> Backend | None:
    """The backend of the job's attempts; None if the cluster lacks it. Sets Accepted."""
    if not pass_.has_training:
        pass_.set_condition("Accepted", "True", "Valid", "runs as Jobs")
        return BACKENDS["Job"]
    wanted = pass_.job.spec.backend.type
    if wanted == "Auto" and pass_.previous.attempts:
        wanted = pass_.previous.attempts[-1].backend
    backend = choose_backend(wanted, pass_.observed.served)
    if backend.needs and backend.kind not in pass_.observed.served:
        available = ", ".join(
            kind for kind in BACKENDS if kind == "Job" or kind in pass_.observed.served
        )
        message = (
            f"spec.backend.type: {backend.kind} needs {backend.needs}, which this cluster lacks; install it, or "
            f"create the job with another backend (this cluster has: {available})"
        )
        pass_.set_condition("Accepted", "False", "BackendUnavailable", message)
        pass_.propose_state("Pending", message)
        pass_.requeue_after(LONG_WAIT_S)
        return None
    pass_.set_condition("Accepted", "True", "Valid", f"runs as {backend.kind}")
    return backend


def offered_gpus(pass_: Pass) -> dict[str, int] | None:
    """Name of each node that spec.scheduling.nodeSelector admits → its GPUs; None if the nodes are not known."""
    if pass_.observed.nodes is None:
        return None
    compute, selector = pass_.job.spec.compute, pass_.job.spec.scheduling.node_selector
    return {
        name_of(node): int(
            node.get("status", {}).get("allocatable", {}).get(compute.gpu_resource_name, 0)
        )
        for node in pass_.observed.nodes
        if selector.items() <= labels_of(node).items()
    }


def gpu_shortage(pass_: Pass, gpus: int, nodes: int) -> str:
    """The end of a sentence on the lack of GPUs; empty if the nodes of this cluster have enough.

    Args:
        pass_: the pass.
        gpus: GPUs that each pod asks for.
        nodes: number of pods, each on a node of its own.
    """
    offers = offered_gpus(pass_)
    if offers is None or not gpus:
        return ""
    compute, selector = pass_.job.spec.compute, pass_.job.spec.scheduling.node_selector
    if sum(offer >= gpus for offer in offers.values()) >= nodes:
        return ""
    best = sorted(offers.items(), key=lambda item: -item[1])[:3]
    available = ", ".join(f"{name} has {offer}" for name, offer in best) or "no node fits"
    chosen = " with the labels of spec.scheduling.nodeSelector" if selector else ""
    return (
        f"asks for {gpus} {compute.gpu_resource_name} on each of {nodes} node{'s' if nodes > 1 else ''}; "
        f"nodes{chosen}: {available}; add nodes, or create the job with other values of spec.compute"
    )
