"""Claims that are missing, too narrow or without a volume: what is wrong, and advice that works."""

import re

import pytest
from support.decisions import Simulation
from support.helm_chart import find, render


def test_claim_of_one_node_serves_pods_of_a_cluster_that_has_one_node_only():
    simulation = Simulation({"compute": {"nodes": 2, "processesPerNode": 1}})
    simulation.objects["PersistentVolumeClaim", "cosmos"]["spec"]["accessModes"] = ["ReadWriteOnce"]
    simulation.extra["num_nodes"] = 2
    simulation.settle()
    assert simulation.condition("StorageReady")["reason"] == "AccessModeInsufficient"

    simulation.extra["num_nodes"] = 1
    simulation.settle()
    assert simulation.condition("StorageReady")["status"] == "True"


def test_missing_claim_of_the_job_comes_with_the_values_of_the_chart_that_create_it():
    """The advice is followed here to the letter; another claim than one of the job's volumes has files that exist."""
    simulation = Simulation(
        {
            "storage": {"datasets": {"claimName": "lab"}},
            "dataset.source": {"claim": {"claimName": "videos", "path": "cubes"}},
        }
    )
    simulation.settle()
    message = simulation.condition("StorageReady")["message"]
    ((name, namespace),) = re.findall(r"create=true, name=(\S+), namespaces=\{(\S+)\}", message)

    (claim,) = find(
        render(
            {
                "storage.claim.create": True,
                "storage.claim.name": name,
                "storage.claim.namespaces": [namespace],
                "storage.claim.storageClassName": "nfs",
                "storage.claim.accessModes": ["ReadWriteMany"],
            }
        ),
        "PersistentVolumeClaim",
    )
    assert (claim["metadata"]["name"], claim["metadata"]["namespace"]) == ("lab", "lab")
    assert "set spec.storage.datasets.create in this job" in message
    assert (
        "no claim 'videos' in this namespace (there: cosmos); create it, or name the one" in message
    )


@pytest.mark.parametrize(("mode", "advised"), [("ReadWriteMany", True), ("ReadWriteOnce", False)])
def test_claim_that_gets_no_volume_may_ask_for_what_its_class_does_not_offer(mode, advised):
    simulation = Simulation()
    claim = simulation.objects["PersistentVolumeClaim", "cosmos"]
    claim |= {"status": {"phase": "Pending"}}
    claim["spec"]["accessModes"] = [mode]
    simulation.settle()

    message = simulation.condition("StorageReady")["message"]
    assert ("which may not offer ReadWriteMany" in message) is advised
