"""Pod templates of a job, and what an installation does not allow in them."""

from __future__ import annotations

from support.scenario_world import ScenarioWorld

from cosmos_operator.api.labels import JOB_LABEL, STAGE_LABEL


def test_templates_reach_the_pods_of_their_stages(world: ScenarioWorld) -> None:
    world.start_operator()
    settings = {"name": "worker", "env": [{"name": "SITE", "value": "lab"}]}
    document = world.document(
        "templates",
        podTemplate={
            "metadata": {"labels": {"team": "vision"}},
            "spec": {"containers": [settings]},
        },
        stages={"train": {"podTemplate": {"spec": {"terminationGracePeriodSeconds": 90}}}},
    )
    document["metadata"]["labels"] = {"cost-center": "4711"}
    world.apply(document)
    world.wait_state("templates", "Succeeded")

    pods = world.list("/api/v1 pods", f"{JOB_LABEL}=templates")
    found = {pod["metadata"]["labels"][STAGE_LABEL]: pod for pod in pods}
    assert {"train", "publish"} <= set(found)
    for pod in found.values():
        labels = pod["metadata"]["labels"]
        assert (labels["team"], labels["cost-center"]) == ("vision", "4711")
        assert {"name": "SITE", "value": "lab"} in pod["spec"]["containers"][0]["env"]
    graces = {name: pod["spec"]["terminationGracePeriodSeconds"] for name, pod in found.items()}
    assert (graces["train"], graces["publish"]) == (90, 30)


def test_job_that_asks_for_its_node_is_not_accepted(world: ScenarioWorld) -> None:
    world.start_operator()
    world.submit("intruder", podTemplate={"spec": {"hostNetwork": True}})
    world.wait_state("intruder", "Failed")

    accepted = world.condition("intruder", "Accepted")
    assert accepted["status"] == "False"
    assert "spec.podTemplate.spec.hostNetwork: hostNetwork opens the node" in accepted["message"]
    assert world.owned("intruder") == []
