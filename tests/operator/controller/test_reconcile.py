"""One pass over a job, on an API server in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.fakekube import Call, FakeKube
from support.passes import PTJS, Passes, key_of, make_claim, make_ptj, passes

import cosmos_operator
from cosmos_operator.api.crd import build_crd
from cosmos_operator.api.status import GpuHours
from cosmos_operator.controller import plans
from cosmos_operator.controller.reconcile import Reconciler
from cosmos_operator.decide.decision import Decision
from cosmos_operator.plan import job_plan


@pytest.fixture
def kube() -> Iterator[FakeKube]:
    with FakeKube(kinds=()) as kube:
        kube.install_crd(build_crd())
        make_claim(kube)
        yield kube


@pytest.fixture
async def rig(kube, tmp_path) -> AsyncIterator[Passes]:
    async with passes(kube, tmp_path) as rig:
        yield rig


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """Names of the functions that plan, in the order of their calls."""
    calls: list[str] = []

    def count(module: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(module, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            calls.append(name)
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, counted)

    count(plans, "plan_job")
    count(job_plan, "parse_job")
    count(job_plan, "plan_stages")
    return calls


def verbs(calls: list[Call]) -> list[tuple[str, str]]:
    return sorted((call.verb, call.resource.plural) for call in calls)


# --- plans ------------------------------------------------------------------------------------


async def test_job_is_planned_once_while_its_specification_stays(kube, rig, calls):
    make_ptj(kube, "one", {"runPolicy.suspend": True})
    await rig.sync()
    await rig.reconcile("one")
    await rig.reconcile("one")
    planned = ["plan_job", "parse_job", "plan_stages"]
    assert calls == planned

    job = kube.get(PTJS, "one")
    job["spec"]["runPolicy"]["stallTimeoutSeconds"] = 700
    kube.call(lambda: kube.store.update(PTJS, job))
    await rig.sync()
    await rig.reconcile("one")
    assert calls == planned * 2


async def test_invalid_job_is_planned_once(kube, rig, calls):
    make_ptj(kube, "one", {"training.experiment": "unknown"})
    await rig.sync()

    await rig.reconcile("one")
    await rig.reconcile("one")

    assert calls == ["plan_job", "parse_job"]


@pytest.mark.parametrize(
    "needs", [{"backend.type": "PyTorchJob"}, {"scheduling.queueName": "a", "backend.type": "Job"}]
)
async def test_job_that_needs_a_missing_kind_is_noted_until_it_needs_it_no_more(kube, rig, needs):
    make_ptj(kube, "one", needs)
    await rig.sync()
    await rig.reconcile("one")
    assert rig.cache.awaiting_kinds == {key_of("one")}

    kube.call(lambda: kube.store.delete(PTJS, "default", "one"))
    await rig.sync()
    await rig.reconcile("one")
    assert rig.cache.awaiting_kinds == set()


async def test_deleted_job_is_not_planned(rig, calls):
    assert await rig.reconcile("one") == (None, [])
    assert calls == []


async def test_job_that_cannot_be_planned_is_told_and_the_others_go_on(kube, rig, monkeypatch):
    original = plans.plan_job

    def plan(document, settings):
        if document["metadata"]["name"] == "bad":
            raise RecursionError("maximum recursion depth exceeded")
        return original(document, settings)

    monkeypatch.setattr(plans, "plan_job", plan)
    make_ptj(kube, "bad")
    make_ptj(kube, "good", {"runPolicy.suspend": True})
    await rig.sync()

    await rig.reconcile("bad")
    await rig.reconcile("good")

    status = kube.get(PTJS, "bad")["status"]
    assert status["state"] == "Failed"
    assert "job: cannot be planned: a bug in the operator" in status["message"]
    assert kube.get(PTJS, "good")["status"]["state"] == "Suspended"


def test_only_one_module_plans():
    package = Path(cosmos_operator.__file__).parent
    users = {
        path.relative_to(package).as_posix()
        for folder in ("controller", "decide")
        for path in (package / folder).rglob("*.py")
        if "import JobPlan, plan_job" in path.read_text() or "plan_stages" in path.read_text()
    }
    assert users == {"controller/plans.py"}


# --- requests ---------------------------------------------------------------------------------


async def test_job_that_waits_sends_no_request_and_asks_for_no_pass(kube, rig):
    make_ptj(kube, "one", {"runPolicy.suspend": True})
    await rig.sync()
    requeue_after_s, first = await rig.reconcile("one")
    assert ("patch", "posttrainingjobs") in verbs(first)
    assert requeue_after_s is None

    assert await rig.sync() == [], "what we have written ourselves is no news"
    assert await rig.reconcile("one") == (None, [])


async def test_job_that_has_ended_deletes_its_objects_after_a_while_and_is_not_read_again(
    kube, tmp_path
):
    async with passes(kube, tmp_path, keepFinishedSeconds=0) as rig:
        make_ptj(kube, "one")
        await rig.settle("one")
        for _ in range(3):
            await rig.sync()
            await rig.reconcile("one")
        await rig.sync()

        assert not rig.cache.has_objects(key_of("one"))
        assert kube.find("jobs.batch") == kube.find("configmaps") == []
        assert await rig.sync() == []
        assert await rig.reconcile("one") == (None, [])


async def test_job_that_goes_on_after_its_end_finds_its_objects_again(kube, rig):
    make_ptj(kube, "one")
    await rig.settle("one")
    job = kube.get(PTJS, "one")
    job["spec"]["runPolicy"] = {"suspend": True}
    kube.call(lambda: kube.store.update(PTJS, job))
    lost = {"conditions": [], "inference": [], "outputs": [], "attempts": []}
    kube.call(lambda: kube.store.patch_status(PTJS, job, **lost))
    await rig.sync()

    _, calls = await rig.reconcile("one")

    assert "create" not in {call.verb for call in calls if call.resource.plural != "events"}
    status = kube.get(PTJS, "one")["status"]
    assert status["state"] == "Succeeded", "from what its objects say"
    assert status["conditions"][2]["message"].startswith("fetch-model done in")


async def test_job_shares_the_stages_of_one_that_has_ended(kube, rig):
    make_ptj(kube, "one")
    await rig.settle("one")
    make_ptj(kube, "two")

    await rig.settle("two")

    jobs = kube.find("jobs.batch", stage="prepare-dataset")
    assert len(jobs) == 1
    assert [owner["name"] for owner in jobs[0]["metadata"]["ownerReferences"]] == ["one", "two"]
    assert kube.get(PTJS, "two")["status"]["state"] == "Succeeded"


async def test_neighbours_that_are_suspended_are_not_woken(kube, rig):
    for number in range(100):
        make_ptj(kube, f"waits-{number}", {"runPolicy.suspend": True})
    make_ptj(kube, "runs")
    await rig.sync()
    for number in range(100):
        await rig.reconcile(f"waits-{number}")
    await rig.reconcile("runs")

    woken: set[str] = set()
    for _ in range(10):
        woken |= {key.name for key in await rig.sync()}
        await rig.reconcile("runs")
        await asyncio.sleep(0.05)

    assert woken == {"runs"}
    assert {key.name for key in rig.woken} <= {"runs"}


async def test_users_of_a_shared_stage_are_woken_by_its_pods(kube, rig):
    make_ptj(kube, "one")
    make_ptj(kube, "two")
    await rig.sync()
    await rig.reconcile("one")
    await rig.reconcile("two")

    for _ in range(20):
        woken = {key.name for key in await rig.sync()}
        if woken:
            break
        await asyncio.sleep(0.05)

    assert woken == {"one", "two"}


# --- stale reads ------------------------------------------------------------------------------


async def test_pass_that_knows_nothing_of_its_objects_creates_nothing_twice(kube, rig, tmp_path):
    make_ptj(kube, "one")
    await rig.sync()
    await rig.reconcile("one")
    objects = {key: kube.find(key) for key in ("jobs.batch", "configmaps")}

    async with passes(kube, tmp_path) as other:  # as after a restart, with watches that are late
        other.cache.put("PostTrainingJob", kube.get(PTJS, "one"))
        for claim in kube.find("persistentvolumeclaims"):
            other.cache.put("PersistentVolumeClaim", claim)
        await other.reconcile("one")
        await other.reconcile("one")
        assert other.cache.of_job(key_of("one")), "what was there is known now"

    for key, before in objects.items():
        uids = {one["metadata"]["uid"] for one in before}
        assert uids <= {one["metadata"]["uid"] for one in kube.find(key)}
    names = [one["metadata"]["name"] for one in kube.find("jobs.batch")]
    assert len(names) == len(set(names))


async def test_pass_sees_what_it_has_written_before_any_watch_tells(kube, rig):
    make_ptj(kube, "one")
    await rig.sync()
    _, first = await rig.reconcile("one")
    assert ("create", "jobs") in verbs(first)

    _, second = await rig.reconcile("one")
    _, third = await rig.reconcile("one")

    assert verbs(second) == [("patch", "posttrainingjobs")], "its status follows its first objects"
    assert third == []


async def test_new_jobs_that_share_a_stage_create_it_once(kube, rig):
    for name in ("one", "two", "three"):
        make_ptj(kube, name)
    await rig.sync()
    before = len(kube.calls())

    await asyncio.gather(*map(rig.reconcile, ("one", "two", "three")))

    names = [call.name for call in kube.calls()[before:] if call.verb == "create"]
    jobs = [one["metadata"]["name"] for one in kube.find("jobs.batch")]
    assert jobs
    assert {verb for verb, _ in verbs(kube.calls()[before:])} == {"create"}, "nothing is looked at"
    assert len(names) == 2 * len(jobs), "each Job and each ConfigMap once"

    for name in ("one", "two", "three"):
        await rig.reconcile(name)
    for job in kube.find("jobs.batch"):
        assert len(job["metadata"]["ownerReferences"]) == 3


async def test_new_job_whose_first_objects_are_refused_says_so(kube, rig):
    make_ptj(kube, "one")
    kube.refuse(
        lambda call: (call.verb, call.resource.plural) == ("create", "jobs"), 403, "Forbidden",
        "exceeded quota: few",
    )  # fmt: skip
    await rig.sync()

    await rig.reconcile("one")
    await rig.reconcile("one")

    assert "exceeded quota: few" in str(kube.get(PTJS, "one")["status"])


async def test_older_news_does_not_replace_what_was_written(kube, rig):
    old = make_ptj(kube, "one", {"runPolicy.suspend": True})
    await rig.sync()
    await rig.reconcile("one")

    rig.cache.put("PostTrainingJob", old)  # an event that comes late

    assert await rig.reconcile("one") == (None, [])
    assert kube.get(PTJS, "one")["status"]["state"] == "Suspended"


async def test_status_goes_to_the_job_that_was_read_and_not_to_its_successor(kube, rig):
    make_ptj(kube, "one", {"runPolicy.suspend": True})
    await rig.sync()
    kube.call(lambda: kube.store.delete(PTJS, "default", "one"))
    made = make_ptj(kube, "one", {"training.experiment": "unknown"})

    await rig.reconcile("one")

    status = kube.get(PTJS, "one")["status"]
    assert kube.get(PTJS, "one")["metadata"]["uid"] == made["metadata"]["uid"]
    assert status["state"] == "Failed", "that of the new job, which was read after the conflict"


async def test_conflict_is_read_again_and_passed_again(kube, rig):
    make_ptj(kube, "one", {"runPolicy.suspend": True})
    await rig.sync()
    job = kube.get(PTJS, "one")
    job["metadata"]["annotations"] = {"team": "a"}
    kube.call(lambda: kube.store.update(PTJS, job))

    _, calls = await rig.reconcile("one")

    assert [call.verb for call in calls if call.resource.plural == "posttrainingjobs"] == [
        "patch", "get", "patch",
    ]  # fmt: skip
    assert kube.get(PTJS, "one")["status"]["state"] == "Suspended"


async def test_object_of_other_people_under_a_name_that_the_job_needs_is_told(kube, rig):
    pod = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}
    theirs = {"metadata": {"name": "one-1", "namespace": "default"}, "spec": {
        "suspend": True, "template": {"spec": pod}}}  # fmt: skip
    kube.create("jobs.batch", theirs)
    make_ptj(kube, "one")

    for _ in range(60):
        await rig.sync()
        await rig.reconcile("one")
        message = kube.get(PTJS, "one").get("status", {}).get("message", "")
        if "does not belong to this job" in message:
            break
        await asyncio.sleep(0.05)
    assert "Job 'one-1' exists and does not belong to this job" in message

    kube.call(lambda: kube.store.delete("jobs.batch", "default", "one-1", propagation="Background"))
    await rig.settle("one")
    assert kube.get(PTJS, "one")["status"]["state"] == "Succeeded"


async def test_end_of_a_job_is_awaited_without_requests(kube, rig):
    make_ptj(kube, "one", {"runPolicy.ttlSecondsAfterFinished": 1000})
    await rig.settle("one")

    requeue_after_s, calls = await rig.reconcile("one")

    assert calls == []
    assert requeue_after_s is not None
    assert 900 < requeue_after_s <= 1000


def test_gpu_hours_that_a_pass_adds_are_counted():
    counted = []

    class Counters:
        def note_gpu_hours(self, kind, hours):
            counted.append((kind, round(hours, 3)))

    reconciler = Reconciler.__new__(Reconciler)
    reconciler._counters = Counters()
    hours = GpuHours(used="1.0", repeated="0.5", waited="0.0")
    plan = SimpleNamespace(previous=SimpleNamespace(gpu_hours=hours))
    after = {"used": "1.25", "repeated": "0.4", "waited": "0.0"}
    reconciler._count_gpu_hours(plan, Decision(status={"gpuHours": after}))

    assert counted == [("used", 0.25)]
