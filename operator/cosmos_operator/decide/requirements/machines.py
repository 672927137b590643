"""The backend and the GPUs that a job asks for, compared with what the cluster has. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.objects import labels_of, name_of
from cosmos_operator.plan.backend import BACKENDS, Backend, choose_backend
from cosmos_operator.plan.pod_layers import node_selector
from cosmos_operator.plan.stages import Stage


def check_backend(pass_: Pass) -> Backend | None:
    """The backend of the job's attempts; None if the cluster lacks it. Sets Accepted."""
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
        pass_.requeue_after(pass_.settings.poll_seconds)
        return None
    pass_.set_condition("Accepted", "True", "Valid", f"runs as {backend.kind}")
    return backend


def offered_gpus(pass_: Pass, stage: Stage) -> dict[str, int] | None:
    """Name of each node that a stage's nodeSelector admits → its GPUs; None if the nodes are not known."""
    if pass_.observed.nodes is None:
        return None
    compute, selector = pass_.job.spec.compute, node_selector(pass_.job, stage, pass_.settings)
    return {
        name_of(node): int(
            node.get("status", {}).get("allocatable", {}).get(compute.gpu_resource_name, 0)
        )
        for node in pass_.observed.nodes
        if selector.items() <= labels_of(node).items()
    }


def gpu_shortage(pass_: Pass, stage: Stage) -> str:
    """The end of a sentence on the lack of GPUs for a stage; empty if the nodes of this cluster have enough."""
    gpus, nodes = stage.gpus, stage.nodes
    offers = offered_gpus(pass_, stage)
    if offers is None or not gpus:
        return ""
    compute, selector = pass_.job.spec.compute, node_selector(pass_.job, stage, pass_.settings)
    if sum(offer >= gpus for offer in offers.values()) >= nodes:
        return ""
    best = sorted(offers.items(), key=lambda item: -item[1])[:3]
    available = ", ".join(f"{name} has {offer}" for name, offer in best) or "no node fits"
    wanted = ", ".join(f"{name}={value}" for name, value in selector.items())
    chosen = f" with the labels of nodeSelector ({wanted})" if selector else ""
    return (
        f"asks for {gpus} {compute.gpu_resource_name} on each of {nodes} node{'s' if nodes > 1 else ''}; "
        f"nodes{chosen}: {available}; add nodes, or create the job with other values of spec.compute"
    )
