"""Objects that jobs share, as a decision gives them up."""

from __future__ import annotations

from cosmos_operator.decide.decision import GiveUp
from cosmos_operator.decide.sharing import give_up, give_up_job


def shared(kind: str, *owners: str) -> dict:
    metadata = {"name": "cosmos-fetch-model-1", "uid": f"uid-{kind}"}
    return {"kind": kind, "metadata": {**metadata, "ownerReferences": [{"uid": u} for u in owners]}}


def test_owner_gives_its_share_up():
    action = give_up(shared("Job", "a", "b"), "a", "suspended")
    assert action == GiveUp("Job", "cosmos-fetch-model-1", "uid-Job", "a", "suspended")


def test_who_owns_nothing_gives_nothing_up():
    assert give_up(shared("Job", "b"), "a", "suspended") is None
    going = shared("Job", "a")
    going["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    assert give_up(going, "a", "suspended") is None


def test_config_map_of_a_job_that_goes_on_is_never_deleted():
    actions = give_up_job(shared("Job", "a", "b"), shared("ConfigMap", "a"), "a", "suspended")
    assert [(action.kind, action.deletes) for action in actions] == [
        ("Job", True), ("ConfigMap", False),
    ]  # fmt: skip
    actions = give_up_job(shared("Job", "a"), shared("ConfigMap", "a"), "a", "suspended")
    assert [action.deletes for action in actions] == [True, True]
