"""The backend and the GPUs that a job asks for, compared with what the cluster has. Pure."""

from __future__ import annotations

from cosmos_operator.decide.pass_state import LONG_WAIT_S, Pass
from cosmos_operator.kube.objects import labels_of, name_of
from cosmos_operator.kube.quantities import whole_units
from cosmos_operator.plan.backend import BACKENDS, Backend, choose_backend
from cosmos_operator.plan.pod_layers import node_selector
from cosmos_operator.plan.stages import Stage


def check_backend(pass_: Pass) -> Backend | None:
    """The backend of the job's attempts; None if the cluster lacks it. Sets Accepted."""
    if not pass_.has_training:
        accept(pass_, "runs as Jobs")
        return BACKENDS["Job"]
    wanted = pass_.job.spec.backend.type
    unfit = pass_.observed.unmanaged_kinds
    if wanted == "Auto" and pass_.previous.attempts:
        last = pass_.previous.attempts[-1]
        if last.outcome == "Unattended":
            unfit |= {last.backend}
        else:
            wanted = last.backend
    if wanted != "Auto" and wanted not in BACKENDS:
        _wait_for_newer_operator(pass_, wanted)
        return None
    backend = choose_backend(wanted, pass_.observed.served, unfit)
    if backend.needs and backend.kind not in pass_.observed.served:
        available = ", ".join(
            kind for kind in BACKENDS if kind == "Job" or kind in pass_.observed.served
        )
        message = (
            f"spec.backend.type: {backend.kind} needs {backend.needs}, which this cluster lacks; install it, or "
            f"set it to one that this cluster has ({available})"
        )
        pass_.awaits_kind = True
        pass_.set_condition("Accepted", "False", "BackendUnavailable", message)
        pass_.propose_state("Pending", message)
        pass_.requeue_after(LONG_WAIT_S)
        return None
    accept(pass_, f"runs as {backend.kind}")
    return backend


def _wait_for_newer_operator(pass_: Pass, wanted: str) -> None:
    """Leave a job alone whose training runs as a kind that only a newer version of the operator knows."""
    message = f"its training runs as {wanted}, which only a newer version of the operator knows; install it again"
    pass_.set_condition("Accepted", "False", "BackendUnavailable", message)
    pass_.propose_state("Training", message)
    pass_.requeue_after(pass_.settings.poll_seconds)


def accept(pass_: Pass, message: str) -> None:
    """Say that the job can be carried out, and which of its fields are left out."""
    if not pass_.ignored_fields:
        pass_.set_condition("Accepted", "True", "Valid", message)
        return
    fields = ", ".join(pass_.ignored_fields)
    ignored = f"ignored, because only a newer version of the operator knows them: {fields}"
    pass_.set_condition("Accepted", "True", "FieldsIgnored", f"{message}; {ignored}; upgrade it")


def offered_gpus(pass_: Pass, stage: Stage) -> dict[str, int] | None:
    """Name of each node that a stage's nodeSelector admits → its GPUs; None if the nodes are not known."""
    if pass_.observed.nodes is None:
        return None
    compute, selector = pass_.job.spec.compute, node_selector(pass_.job, stage, pass_.settings)
    return {
        name_of(node): whole_units(
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
        f"nodes{chosen}: {available}; add nodes, or change spec.compute"
    )
