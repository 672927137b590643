"""What a pass reads, and what it does not."""

import pytest
from support.decisions import START
from support.jobs import make_document

from cosmos_operator.controller.observe import CONTROL_PLANE_TAINT, observe
from cosmos_operator.plan.job_plan import plan_job
from cosmos_operator.settings import Settings

TWO_NODES = {"compute": {"nodes": 2, "processesPerNode": 1}}


class Objects:
    """The reads of a cluster with nothing but these objects."""

    def __init__(self, **objects):
        self.objects, self.listed = objects, []

    async def list(self, kind, namespace, labels=None, fields=""):
        self.listed.append(kind)
        return self.objects.get(kind, [])

    async def get(self, kind, namespace, name):
        return None

    async def served(self):
        return frozenset()


def node(name, *taints):
    return {"metadata": {"name": name}, "spec": {"taints": [{"key": key} for key in taints]}}


def claim(mode):
    status = {"phase": "Bound"}
    return {"metadata": {"name": "cosmos"}, "spec": {"accessModes": [mode]}, "status": status}


async def observed(cluster, changes, **settings):
    document = make_document(changes)
    document["metadata"]["namespace"] = "lab"
    return await observe(cluster, plan_job(document), Settings(**settings), START, {})


@pytest.mark.parametrize(("nodes", "count"), [
    ([node("a"), node("b")], 2),
    ([node("a"), node("b", CONTROL_PLANE_TAINT)], 1),
    ([{"metadata": {"name": "a"}, "spec": {}}], 1),
])  # fmt: skip
async def test_nodes_that_may_run_jobs_are_counted_where_a_claim_is_for_one_node(nodes, count):
    cluster = Objects(Node=nodes, PersistentVolumeClaim=[claim("ReadWriteOnce")])

    assert (await observed(cluster, TWO_NODES)).num_nodes == count


@pytest.mark.parametrize(("changes", "mode", "settings"), [
    (TWO_NODES, "ReadWriteMany", {}),
    ({}, "ReadWriteOnce", {}),
    (TWO_NODES, "ReadWriteOnce", {"canListNodes": False}),
])  # fmt: skip
async def test_nodes_are_not_read_where_they_make_no_difference_or_may_not_be_read(
    changes, mode, settings
):
    cluster = Objects(Node=[node("a")], PersistentVolumeClaim=[claim(mode)])

    assert (await observed(cluster, changes, **settings)).num_nodes is None
    assert "Node" not in cluster.listed
