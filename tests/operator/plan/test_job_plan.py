"""A job as the API server has it → its plan."""

from __future__ import annotations

from support.jobs import make_document

from cosmos_operator.plan.job_plan import plan_job

STORED = {"compute.image": "", "scheduling": {"queueName": "", "priorityClassName": ""}}
"""Fields as an earlier CustomResourceDefinition stored them where they were omitted."""


def test_accepted_job_keeps_running_with_the_empty_texts_of_an_earlier_definition() -> None:
    document = make_document(STORED)
    accepted = {"type": "Accepted", "status": "True", "reason": "Valid"}
    document["status"] = {
        "conditions": [{**accepted, "lastTransitionTime": "2026-01-31T12:00:00Z"}]
    }

    plan = plan_job(document)

    assert plan.problems == ()
    assert plan.job is not None
    assert plan.job.spec.compute.image is None
    assert plan.job.spec.scheduling.queue_name is None


def test_new_job_with_empty_texts_is_refused() -> None:
    problems = plan_job(make_document(STORED)).problems

    assert [line.partition(":")[0] for line in problems] == [
        "spec.compute.image",
        "spec.scheduling.queueName",
        "spec.scheduling.priorityClassName",
    ]


def test_fields_that_are_null_are_omitted() -> None:
    document = make_document({"training.seed": 3})
    document["spec"] |= {"runPolicy": {"maxAttempts": None}, "storage": None}
    document["spec"]["inference"][1]["parameters"]["seed"] = None

    plan = plan_job(document)

    assert plan.job is not None
    assert plan.job.spec.run_policy.max_attempts == 3
    assert plan.job.spec.storage.models.claim_name == "cosmos"


def test_null_is_no_value_of_a_list() -> None:
    problems = plan_job(make_document({"training.overrides": [None]})).problems

    assert problems == ("spec.training.overrides[0]: Input should be a valid string (got None)",)
