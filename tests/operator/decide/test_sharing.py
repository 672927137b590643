"""Objects that jobs share: the last job that gives its share up deletes them, and none deletes another's."""

from __future__ import annotations

from cosmos_operator.decide.decision import Delete, RemoveOwner
from cosmos_operator.decide.sharing import give_up, give_up_job


def shared(kind: str, *owners: str) -> dict:
    metadata = {"name": "cosmos-fetch-model-1", "uid": f"uid-{kind}", "resourceVersion": "7"}
    return {"kind": kind, "metadata": {**metadata, "ownerReferences": [{"uid": u} for u in owners]}}


def test_one_of_several_owners_leaves_in_the_version_that_it_has_seen():
    action = give_up(shared("Job", "a", "b"), "a", "suspended")
    assert action == RemoveOwner("Job", "cosmos-fetch-model-1", "uid-Job", "7", "a")


def test_last_owner_deletes_the_version_that_it_has_seen():
    action = give_up(shared("Job", "a"), "a", "suspended")
    assert isinstance(action, Delete)
    assert (action.uid, action.resource_version) == ("uid-Job", "7")


def test_who_owns_nothing_gives_nothing_up():
    assert give_up(shared("Job", "b"), "a", "suspended") is None
    going = shared("Job", "a")
    going["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    assert give_up(going, "a", "suspended") is None


def test_config_map_of_a_job_that_goes_on_is_never_deleted():
    actions = give_up_job(shared("Job", "a", "b"), shared("ConfigMap", "a"), "a", "suspended")
    assert [type(action) for action in actions] == [RemoveOwner]
    actions = give_up_job(shared("Job", "a"), shared("ConfigMap", "a"), "a", "suspended")
    assert [(type(action), action.kind) for action in actions] == [
        (Delete, "Job"), (Delete, "ConfigMap"),
    ]  # fmt: skip
