"""The Service of a training's leader, ``kubectl logs svc/JOB``: it selects the pod of whatever backend runs."""

from __future__ import annotations

import pytest
from support.decisions import Simulation

from cosmos_operator.decide.decision import Delete
from cosmos_operator.plan.backend import BACKENDS


def begin_anew(simulation: Simulation) -> None:
    simulation.remove_deleted()
    simulation.settle()
    simulation.pass_time(600)
    simulation.settle()


@pytest.mark.parametrize(("first", "second"), [("PyTorchJob", "Job"), ("Job", "PyTorchJob")])
def test_service_selects_the_pod_of_the_backend_that_an_edit_names(first: str, second: str) -> None:
    simulation = Simulation({"backend.type": first})
    simulation.prepare()
    simulation.start_pods(simulation.running_attempt())
    simulation.edit({"backend.type": second, "runPolicy": {"suspend": True}})
    simulation.settle()
    simulation.remove_deleted()
    simulation.settle()
    simulation.edit({"runPolicy": {"suspend": False}})
    begin_anew(simulation)

    assert simulation.attempts[-1]["backend"] == second
    wanted = BACKENDS[second].leader_labels
    selector = simulation.objects["Service", "push"]["spec"]["selector"]
    assert wanted.items() <= selector.items()
    assert not set(BACKENDS[first].leader_labels) - set(wanted) & set(selector)


def test_service_of_an_attempt_that_runs_is_mended() -> None:
    """As after an upgrade from a version that left it as it was."""
    simulation = Simulation({"backend.type": "Job"})
    simulation.prepare()
    service = simulation.objects["Service", "push"]
    right = dict(service["spec"]["selector"])
    service["spec"]["selector"] = {**right, **BACKENDS["PyTorchJob"].leader_labels}
    simulation.start_pods(simulation.running_attempt())
    simulation.settle()

    assert simulation.objects["Service", "push"]["spec"]["selector"] == right


def test_right_service_is_left_alone() -> None:
    simulation = Simulation({"backend.type": "Job"})
    simulation.prepare()
    simulation.start_pods(simulation.running_attempt())
    simulation.settle()
    deleted = [a for one in simulation.log for a in one.actions if isinstance(a, Delete)]

    assert deleted == []
