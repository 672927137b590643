"""A checkpoint of another job: its address, and what makes the two trainings differ."""

from __future__ import annotations

import pytest
from support.jobs import make_document, make_job

from cosmos_operator.api.parse import parse_job
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.edits import training_of
from cosmos_operator.plan.keys import run_key
from cosmos_operator.plan.stages import plan_stages
from cosmos_operator.plan.starting_job import describe_incompatibility
from cosmos_operator.plan.training_run import run_address

CONSTANT = {"training.overrides": ["optimizer.final_factor=1"]}


def heir(**changes):
    return make_job({**CONSTANT, "checkpoints": {"from": {"job": "origin"}}, **changes}, "heir")


def origin(**changes):
    document = make_document({**CONSTANT, **changes})
    document["metadata"] |= {"name": "origin", "namespace": "lab", "uid": "1"}
    return document


def problem(job, document):
    return describe_incompatibility(job, plan_stages(job), document)


def test_job_is_found_by_the_folder_of_the_same_training():
    document = training_of(plan_stages(heir()))
    other = training_of(plan_stages(parse_job(origin())))

    assert document.start_from.run_uri == run_address(other)
    assert problem(heir(), origin()) == ""


def test_starting_point_is_in_no_key():
    plain = training_of(plan_stages(make_job(CONSTANT, "heir")))
    begun = training_of(plan_stages(heir()))

    assert (begun.key, run_key(begun)) == (plain.key, run_key(plain))


def test_more_steps_are_the_same_training_where_the_learning_rate_is_constant():
    assert problem(heir(**{"training.steps": 80}), origin()) == ""
    falling = {"training.overrides": [], "training.steps": 80}
    assert "max_steps (40 -> 80)" in problem(heir(**falling), origin(**{"training.overrides": []}))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"training.seed": 9}, "trainer.seed (0 -> 9)"),
        ({"model": {"name": "Tiny", "source": {"path": "/data/other"}}}, "model_uri"),
        ({"dataset.camera": 1}, "dataset_uri"),
    ],
    ids=str,
)
def test_other_training_is_told_by_what_differs(change, name):
    assert name in problem(heir(**change), origin())


def test_other_claim_is_told():
    found = problem(heir(), origin(storage={"checkpoints": {"claimName": "elsewhere"}}))

    assert "claim 'elsewhere'" in found


@pytest.mark.parametrize(
    ("start", "text"),
    [
        ({"job": "push"}, "is this job"),
        ({"folder": "models://x"}, "use one of checkpoints://"),
        ({"folder": "checkpoints://../x"}, "leaves its volume"),
        ({}, "neither of job and folder"),
        ({"job": "a", "folder": "checkpoints://a"}, "both of job and folder"),
    ],
    ids=str,
)
def test_starting_point_that_cannot_be_one_is_refused(start, text):
    with pytest.raises(InvalidSpec, match=text):
        make_job({"checkpoints": {"from": start}})
