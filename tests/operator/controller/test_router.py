from __future__ import annotations

from typing import Any

from cosmos_operator.controller.cache import Cache, News
from cosmos_operator.controller.router import Router
from cosmos_operator.kube.kinds import JobKey

GROUP_VERSION = "cosmos.dev/v1alpha1"


def key(name: str) -> JobKey:
    return JobKey("PostTrainingJob", "n", name)


def shared_job(name: str, *owners: str) -> dict[str, Any]:
    references = [
        {"apiVersion": GROUP_VERSION, "kind": "PostTrainingJob", "name": owner, "uid": owner}
        for owner in owners
    ]
    metadata = {
        "namespace": "n",
        "name": name,
        "uid": name,
        "resourceVersion": "1",
        "ownerReferences": references,
    }
    return {"metadata": metadata, "spec": {}}


def news(
    kind: str, name: str, *users: str, controller: tuple[str, str] | None = None, namespace="n"
) -> News:
    return News(kind, namespace, name, tuple(map(key, users)), controller)


def test_jobs_of_an_object_hear_of_it():
    router = Router(Cache())

    assert router.route(news("PostTrainingJob", "one", "one")) == [key("one")]
    assert router.route(news("Job", "x", "two", "one")) == [key("one"), key("two")]
    assert router.route(news("Pod", "x")) == []


def test_pod_of_a_shared_stage_is_for_the_users_of_its_job_alone():
    cache = Cache()
    cache.put("Job", shared_job("stage", "one", "two"))
    cache.put("Job", shared_job("other", "three"))
    router = Router(cache)

    pod = news("Pod", "stage-x", controller=("Job", "stage"))

    assert router.route(pod) == [key("one"), key("two")]


def test_job_that_looks_at_an_object_of_others_hears_of_it_and_of_its_pods():
    router = Router(Cache())
    router.note_interest(key("one"), frozenset({("Job", "stage"), ("PersistentVolumeClaim", "c")}))

    assert router.route(news("Job", "stage")) == [key("one")]
    assert router.route(news("Pod", "stage-x", controller=("Job", "stage"))) == [key("one")]
    assert router.route(news("PersistentVolumeClaim", "c")) == [key("one")]
    assert router.route(news("PersistentVolumeClaim", "c", namespace="elsewhere")) == []
    assert router.route(news("PersistentVolumeClaim", "other")) == []


def test_interest_of_before_is_forgotten():
    router = Router(Cache())
    router.note_interest(key("one"), frozenset({("Job", "stage")}))
    router.note_interest(key("two"), frozenset({("Job", "stage")}))

    router.note_interest(key("one"), frozenset({("Job", "next")}))
    assert router.route(news("Job", "stage")) == [key("two")]
    assert router.route(news("Job", "next")) == [key("one")]

    router.note_interest(key("one"), frozenset())
    assert router.route(news("Job", "next")) == []
