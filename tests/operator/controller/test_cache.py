from __future__ import annotations

from typing import Any

import pytest
from support.jobs import make_document

from cosmos_operator.controller.cache import Cache
from cosmos_operator.kube.kinds import JobKey

PTJ = "PostTrainingJob"
MANAGED = {"app.kubernetes.io/managed-by": "cosmos"}
DONE = {"type": "Succeeded", "status": "True", "reason": "Finished", "observedGeneration": 1}


def key(name: str) -> JobKey:
    return JobKey(PTJ, "n", name)


def meta(name: str, version: int = 1, **more: Any) -> dict[str, Any]:
    found = {"namespace": "n", "name": name, "uid": f"u-{name}", "resourceVersion": str(version)}
    return found | more


def ptj(name: str, version: int = 1, **status: Any) -> dict[str, Any]:
    return {**make_document(), "metadata": meta(name, version, generation=1), "status": status}


def ended(name: str, version: int = 1) -> dict[str, Any]:
    return ptj(name, version, state="Succeeded", conditions=[DONE])


def owner(name: str, kind: str = PTJ, *, controls: bool = False) -> dict[str, Any]:
    group = "cosmos.dev/v1alpha1" if kind == PTJ else "batch/v1"
    found = {"apiVersion": group, "kind": kind, "name": name, "uid": f"u-{name}"}
    return {**found, "controller": controls}


def job(
    name: str, *owners: str, version: int = 1, label: str = "", **status: Any
) -> dict[str, Any]:
    labels = {**MANAGED, **({"cosmos.dev/job": label} if label else {})}
    references = [owner(one) for one in owners]
    metadata = meta(name, version, labels=labels, ownerReferences=references)
    return {"metadata": metadata, "spec": {"suspend": False}, "status": status}


def pod(name: str, made_by: str, phase: str, version: int = 1, label: str = "") -> dict[str, Any]:
    labels = {**MANAGED, **({"cosmos.dev/job": label} if label else {})}
    references = [owner(made_by, "Job", controls=True)]
    metadata = meta(name, version, labels=labels, ownerReferences=references)
    return {"metadata": metadata, "spec": {"containers": []}, "status": {"phase": phase}}


COMPLETE = [{"type": "Complete", "status": "True"}]


def names(found: list[dict[str, Any]]) -> list[str]:
    return sorted(one["metadata"]["name"] for one in found)


def test_objects_are_found_by_owner_label_and_maker():
    cache = Cache()
    cache.put("Job", job("own", "one", label="one"))
    cache.put("Job", job("shared", "one", "two"))
    cache.put("Job", job("left", label="one"))
    cache.put("Pod", pod("shared-x", "shared", "Running"))
    cache.put("Pod", pod("own-x", "own", "Running", label="one"))

    assert names(cache.of_job(key("one"))) == ["left", "own", "own-x", "shared"]
    assert names(cache.of_job(key("two"))) == ["shared"]
    assert names(cache.made_by("n", "Job", "shared")) == ["shared-x"]
    assert cache.users_of("n", ("Job", "shared")) == (key("one"), key("two"))
    assert cache.of_job(JobKey(PTJ, "elsewhere", "one")) == []


def test_readers_cannot_change_what_is_kept():
    cache = Cache()
    cache.put("Job", job("j", "one"))

    cache.get("Job", "n", "j")["metadata"]["name"] = "changed"

    found = cache.get("Job", "n", "j")
    assert (found["metadata"]["name"], found["kind"]) == ("j", "Job")
    assert found["metadata"]["resourceVersion"] == "1"


def test_only_what_decisions_read_is_news():
    cache = Cache()
    assert cache.put("Job", job("j", "one")) is not None
    assert cache.put("Job", job("j", "one", version=2, active=1, ready=1)) is None

    news = cache.put("Job", job("j", "one", version=3, conditions=COMPLETE))

    assert news is not None
    assert (news.kind, news.namespace, news.name, news.users) == ("Job", "n", "j", (key("one"),))
    assert cache.version("Job", "n", "j") == "3"


def test_own_status_is_no_news_and_a_changed_specification_is():
    cache = Cache()
    assert cache.put(PTJ, ptj("one")) is not None
    assert cache.put(PTJ, ptj("one", 2, state="Training")) is None
    assert cache.get(PTJ, "n", "one")["status"] == {"state": "Training"}

    edited = ptj("one", 3, state="Training")
    edited["metadata"]["generation"] = 2
    assert cache.put(PTJ, edited) is not None
    labelled = ptj("one", 4, state="Training")
    labelled["metadata"] |= {"generation": 2, "labels": {"team": "a"}}
    assert cache.put(PTJ, labelled) is not None
    annotated = ptj("one", 5)
    annotated["metadata"] |= {"generation": 2, "labels": {"team": "a"}, "managedFields": [1]}
    assert cache.put(PTJ, annotated) is None


def test_older_versions_change_nothing():
    cache = Cache()
    cache.put("Job", job("j", "one", version=10, conditions=COMPLETE))

    assert cache.put("Job", job("j", "one", version=9)) is None
    assert cache.remove("Job", "n", "j", "u-j", "9") is None
    assert cache.remove("Job", "n", "j", "another-uid") is None
    assert cache.get("Job", "n", "j")["status"]["conditions"] == COMPLETE

    assert cache.remove("Job", "n", "j", "u-j", "11") is not None
    assert cache.get("Job", "n", "j") is None
    assert cache.of_job(key("one")) == []


def test_object_made_anew_under_the_name_is_news():
    cache = Cache()
    cache.put("Job", job("j", "one"))
    other = job("j", "one", version=2)
    other["metadata"]["uid"] = "another"

    assert cache.put("Job", other) is not None
    assert cache.get("Job", "n", "j")["metadata"]["uid"] == "another"


def test_complete_list_lets_go_what_is_not_in_it_but_what_is_newer():
    cache = Cache()
    cache.put("Job", job("gone", "one", version=5))
    cache.put("Job", job("stays", "one", version=6))
    cache.put("Job", job("made-meanwhile", "one", version=21))
    cache.put("Pod", pod("p", "gone", "Running"))

    (news,) = cache.keep_only("Job", None, {("n", "stays")}, "20")

    assert news.name == "gone"
    assert cache.names("Job", "n") == ("made-meanwhile", "stays")
    assert cache.names("Pod", "n") == ("p",)
    assert cache.keep_only("Job", "elsewhere", set(), "30") == []


def test_of_a_job_that_has_ended_little_is_kept():
    cache = Cache()
    cache.put(PTJ, ptj("one"))
    whole = len(str(cache.get(PTJ, "n", "one")))

    cache.put(PTJ, ended("one", 2))

    kept = cache.get(PTJ, "n", "one")
    assert kept["status"]["conditions"] == [DONE]
    assert "training" not in kept["spec"]
    assert len(str(kept)) < whole / 2
    assert list(cache.jobs()) == [(key("one"), True)]


@pytest.mark.parametrize("comes_first", ["job", "objects"])
def test_ended_objects_of_ended_jobs_are_not_kept(comes_first):
    cache = Cache()
    if comes_first == "job":
        cache.put(PTJ, ended("one"))
    cache.put("Job", job("j", "one", label="one", conditions=COMPLETE))
    cache.put("Job", job("shared", "one", "two", conditions=COMPLETE))
    cache.put("Pod", pod("shared-x", "shared", "Succeeded"))
    cache.put("Pod", pod("j-x", "j", "Succeeded", label="one"))
    cache.put("ConfigMap", job("j", "one", label="one"))
    cache.put(PTJ, ended("one"))
    cache.put(PTJ, ptj("two"))
    cache.retire(key("one"))

    assert cache.names("Job", "n") == ("shared",), "the other job uses it"
    assert cache.names("Pod", "n") == ("shared-x",)
    assert cache.names("ConfigMap", "n") == ()
    assert cache.is_retired(key("one"))
    assert not cache.is_retired(key("two"))


def test_objects_of_an_ended_job_are_known_until_the_job_has_deleted_them():
    cache = Cache()
    cache.put(PTJ, ended("one"))
    cache.put("Job", job("j", "one", label="one"))
    cache.put("Job", job("j", "one", version=2, label="one", conditions=COMPLETE))
    assert cache.has_objects(key("one"))

    cache.remove("Job", "n", "j", "u-j")

    assert not cache.has_objects(key("one"))


def test_what_another_job_needs_is_kept_although_its_own_has_ended():
    cache = Cache()
    cache.put(PTJ, ended("one"))

    cache.put("Job", job("own", "one", label="one", conditions=COMPLETE), is_needed=True)

    assert cache.get("Job", "n", "own") is not None


def test_shared_objects_are_kept_for_jobs_to_come():
    cache = Cache()
    cache.put(PTJ, ended("one"))
    cache.put("Job", job("shared", "one", conditions=COMPLETE))
    cache.put("Pod", pod("shared-x", "shared", "Succeeded"))
    cache.put("Pod", pod("gone-x", "gone", "Succeeded"))
    cache.retire(key("one"))

    assert cache.names("Job", "n") == ("shared",)
    assert cache.names("Pod", "n") == ("shared-x",)
    assert cache.has_objects(key("one")), "it has to give up its share"


def test_memory_of_many_objects_stays_small():
    import tracemalloc

    cache = Cache()
    tracemalloc.start()
    for number in range(1000):
        name = f"cosmos-cache-latents-9cb4c33c5eb4-{number}"
        cache.put("Job", job(name, "one", label="one", conditions=COMPLETE))
        cache.put("Pod", pod(f"{name}-abcde", name, "Running", label="one"))
        cache.put(PTJ, ended(f"ended-{number}"))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert size / 3000 < 2000, "bytes an object"


def test_objects_of_jobs_of_two_kinds_with_one_name_are_told_apart() -> None:
    cache = Cache()
    other = JobKey("InferenceJob", "n", "one")
    mine, theirs = job("a", label="one"), job("b")
    theirs["metadata"]["labels"]["cosmos.dev/inference-job"] = "one"
    made = pod("c", "b", "Running")
    made["metadata"]["labels"]["cosmos.dev/inference-job"] = "one"
    for kind, one in (("Job", mine), ("Job", theirs), ("Pod", made)):
        cache.put(kind, one)

    assert names(cache.of_job(key("one"))) == ["a"]
    assert names(cache.of_job(other)) == ["b", "c"]
    assert cache.users_of("n", ("Job", "b")) == (other,)


@pytest.mark.parametrize("status", [{}, {"state": "Pending"}])  # the API server fills in the state
def test_job_without_a_pass_is_new(status):
    cache = Cache()
    news = cache.put(PTJ, ptj("one", **status))
    assert news is not None
    assert news.is_new_job

    accepted = [{"type": "Accepted", "status": "True", "reason": "Valid"}]
    edited = ptj("one", 2, state="Preparing", conditions=accepted)
    news = cache.put(PTJ, {**edited, "spec": {}})
    assert news is not None
    assert not news.is_new_job


def test_pod_that_had_ended_when_it_was_deleted_is_read_for_a_while(monkeypatch):
    """Kubernetes deletes a pod at once when its worker has ended, often before the end was looked at."""
    cache, now = Cache(), 0.0
    monkeypatch.setattr("cosmos_operator.controller.cache.time.monotonic", lambda: now)
    for name in ("own", "cut-off"):
        cache.put("Pod", pod(name, "own", "Running", label="one"))
    cache.put("Pod", pod("shared", "shared", "Running"))

    cache.remove("Pod", "n", "own", "u-own", "2", last=pod("own", "own", "Succeeded", 2, "one"))
    cache.remove(
        "Pod", "n", "cut-off", "u-cut-off", "2", last=pod("cut-off", "own", "Running", 2, "one")
    )
    cache.remove("Pod", "n", "shared", "u-shared", "2", last=pod("shared", "shared", "Failed", 2))

    (found,) = cache.departed(key("one"))
    assert (found["metadata"]["name"], found["status"]["phase"]) == ("own", "Succeeded")
    assert cache.departed(key("two")) == []
    now = 61.0
    assert cache.departed(key("one")) == []
