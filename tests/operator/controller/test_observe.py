"""What a pass reads, and what it does not."""

import pytest
from support.decisions import START
from support.jobs import make_document

from cosmos_operator.controller.cache import Cache
from cosmos_operator.controller.observe import CONTROL_PLANE_TAINT, Observer
from cosmos_operator.controller.planning_process import PlanningFailed
from cosmos_operator.controller.rare_reads import RareReads
from cosmos_operator.kube.kinds import JobKey
from cosmos_operator.plan.job_plan import plan_job
from cosmos_operator.settings import Settings

TWO_NODES = {"compute": {"nodes": 2, "processesPerNode": 1}}


class Nodes:
    """A cluster of which only nodes are read."""

    def __init__(self, nodes):
        self.nodes, self.listed = nodes, []

    async def list(self, kind, namespace, labels=None, fields=""):
        self.listed.append(kind)
        assert kind == "Node"
        return self.nodes


def node(name, *taints):
    return {"metadata": {"name": name}, "spec": {"taints": [{"key": key} for key in taints]}}


def claim(mode):
    status = {"phase": "Bound"}
    metadata = {"name": "cosmos", "namespace": "lab", "uid": "c", "resourceVersion": "1"}
    return {"metadata": metadata, "spec": {"accessModes": [mode]}, "status": status}


async def observed(cluster, mode, changes, **options):
    document = make_document(changes)
    document["metadata"]["namespace"] = "lab"
    settings, cache = Settings(**options), Cache()
    cache.put("PersistentVolumeClaim", claim(mode))
    observer = Observer(cluster, cache, RareReads(cluster, settings), settings)
    key = JobKey("PostTrainingJob", "lab", "push")
    return await observer.observe(key, plan_job(document), START, {}, {})


@pytest.mark.parametrize(("nodes", "count"), [
    ([node("a"), node("b")], 2),
    ([node("a"), node("b", CONTROL_PLANE_TAINT)], 1),
    ([{"metadata": {"name": "a"}, "spec": {}}], 1),
])  # fmt: skip
async def test_nodes_that_may_run_jobs_are_counted_where_a_claim_is_for_one_node(nodes, count):
    assert (await observed(Nodes(nodes), "ReadWriteOnce", TWO_NODES)).num_nodes == count


@pytest.mark.parametrize(("changes", "mode", "settings"), [
    (TWO_NODES, "ReadWriteMany", {}),
    ({}, "ReadWriteOnce", {}),
    (TWO_NODES, "ReadWriteOnce", {"canListNodes": False}),
])  # fmt: skip
async def test_nodes_are_not_read_where_they_make_no_difference_or_may_not_be_read(
    changes, mode, settings
):
    cluster = Nodes([node("a")])

    assert (await observed(cluster, mode, changes, **settings)).num_nodes is None
    assert "Node" not in cluster.listed


class OneJob:
    """A cluster with one job."""

    def __init__(self, document):
        self.document = document

    async def get(self, kind, namespace, name):
        return self.document if (kind, name) == ("PostTrainingJob", "first") else None


class Unable:
    """Plans nothing, as if every plan took too long."""

    async def run(self, function, *arguments):
        raise PlanningFailed("it takes longer than 20 s")


@pytest.mark.parametrize(
    ("changes", "planner", "problem"),
    [
        ({"training.seed": 7}, None, "another training: trainer.seed"),
        ({}, None, ""),
        ({}, Unable(), "spec.checkpoints.from.job: the operator cannot plan 'first': it takes"),
    ],
)
async def test_job_whose_checkpoint_is_begun_with_is_compared_under_the_limits_of_plans(
    changes, planner, problem
):
    first = make_document(changes)
    first["metadata"] |= {"name": "first", "namespace": "lab", "uid": "u"}
    document = make_document({"checkpoints.from": {"job": "first"}})
    document["metadata"]["namespace"] = "lab"
    settings, cache, cluster = Settings(), Cache(), OneJob(first)
    observer = Observer(cluster, cache, RareReads(cluster, settings), settings, planner)
    key = JobKey("PostTrainingJob", "lab", "push")

    found = await observer.observe(key, plan_job(document), START, {}, {})

    assert problem in found.starting_problem
    assert bool(problem) == bool(found.starting_problem)
