"""Several operators: where they run, what a drain must leave, and what an upgrade does."""

import pytest
from helm_python import HelmRenderError
from support.helm_chart import find, find_one, render

from cosmos_operator.controller.lease import DURATION_S, RETRY_S

SPREAD = {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}


def test_two_replicas_of_which_a_drain_leaves_one():
    manifests = render()
    deployment = find_one(manifests, "Deployment")["spec"]
    budget = find_one(manifests, "PodDisruptionBudget")["spec"]

    assert deployment["replicas"] == 2
    assert budget["minAvailable"] == 1
    assert budget["selector"] == deployment["selector"]


def test_upgrade_starts_the_new_pod_before_it_ends_the_old_one():
    deployment = find_one(render(), "Deployment")["spec"]

    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize("values", [
    {"operator.replicas": 1},
    {"operator.podDisruptionBudget.create": False},
    {"operator.replicas": 1, "operator.podDisruptionBudget.minAvailable": 1},
])  # fmt: skip
def test_budget_is_left_out_where_it_is_switched_off_or_would_hold_up_every_drain(values):
    assert find(render(values), "PodDisruptionBudget") == []


@pytest.mark.parametrize(("replicas", "least"), [(2, 2), (3, 4)])
def test_budget_that_lets_no_pod_go_is_refused(replicas, least):
    values = {"operator.replicas": replicas, "operator.podDisruptionBudget.minAvailable": least}
    message = f"minAvailable: {least} of {replicas} replicas must stay"

    with pytest.raises(HelmRenderError, match=message):
        render(values)
    assert find(render(values | {"operator.replicas": least + 1}), "PodDisruptionBudget")


def test_replicas_run_on_different_nodes_and_zones_where_there_are_several():
    deployment = find_one(render(), "Deployment")["spec"]
    constraints = deployment["template"]["spec"]["topologySpreadConstraints"]

    assert [one["topologyKey"] for one in constraints] == [
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    ]
    for one in constraints:
        assert one["whenUnsatisfiable"] == "ScheduleAnyway", "a cluster of one node has both"
        assert one["labelSelector"] == deployment["selector"]


def test_own_constraints_take_the_place_of_the_default():
    pod = find_one(render({"operator.topologySpreadConstraints": [SPREAD]}), "Deployment")
    assert pod["spec"]["template"]["spec"]["topologySpreadConstraints"] == [SPREAD]


def test_documented_time_of_a_takeover_is_that_of_the_lease():
    """values.yaml and docs say 20 seconds: the lease lasts so long, and is asked for so often."""
    assert DURATION_S + 2 * RETRY_S < 20
