"""The batch/v1 Job controller: plain and indexed Jobs, suspension, retries, pod failure policies."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

from support.fakekube.errors import ApiError
from support.fakekube.resources import Object
from support.fakekube.store import Event, utc_now
from support.fakekube.world import Controller, Key, is_true, key_of, reference, set_condition

TRACKING = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
JOBS = "jobs.batch"


@dataclass
class Pods:
    """The pods of a Job, sorted."""

    active: list[Object] = field(default_factory=list)
    terminating: list[Object] = field(default_factory=list)
    succeeded: list[Object] = field(default_factory=list)
    failed: list[Object] = field(default_factory=list)

    @property
    def uncounted(self) -> tuple[list[Object], list[Object]]:
        """Pods that ended and are not in the Job's status yet."""
        return [p for p in self.succeeded if _is_tracked(p)], [
            p for p in self.failed if _is_tracked(p)
        ]


def _is_tracked(pod: Object) -> bool:
    return TRACKING in pod["metadata"].get("finalizers", ())


def _index(pod: Object) -> int:
    return int(pod["metadata"].get("annotations", {}).get(INDEX, -1))


class JobController(Controller):
    """Runs pods until a Job is complete or has failed."""

    def keys(self, event: Event) -> Iterator[Key]:
        """A Job, or the Job of a pod."""
        if event.resource.key == JOBS:
            yield key_of(event.obj)
        elif event.resource.key == "pods":
            owner = next(
                (
                    r
                    for r in event.obj["metadata"].get("ownerReferences", ())
                    if r.get("controller")
                ),
                None,
            )
            if owner is not None and owner["kind"] == "Job":
                yield event.obj["metadata"]["namespace"], owner["name"]

    def sync(self, key: Key) -> None:
        """Look at one Job."""
        job = self.store.find(JOBS, *key)
        self._release_orphans(key, job["metadata"]["uid"] if job else "")
        if job is None:
            return
        pods = self._sorted_pods(job)
        status = copy.deepcopy(job.get("status", {}))
        conditions = status.get("conditions", [])
        if is_true(conditions, "Complete") or is_true(conditions, "Failed"):
            self._release(pods)
            return
        self._count(job, status, pods)
        if "startTime" not in status and not job["spec"]["suspend"]:
            status["startTime"] = utc_now()
        target = next((c for c in conditions if c["type"] == "FailureTarget"), None)
        failure = (
            (target["reason"], target["message"]) if target else self._failure(job, status, pods)
        )
        if failure:
            self._fail(status, pods, failure)
        elif "deletionTimestamp" not in job["metadata"]:
            self._manage(job, status, pods)
        self._write(job, status)
        self._release(pods)

    def _release_orphans(self, key: Key, uid: str) -> None:
        """Remove the finalizer from pods of an earlier Job of this name."""
        for pod in self.store.list("pods", key[0]):
            owners = pod["metadata"].get("ownerReferences", ())
            if any((r["kind"], r["name"]) == ("Job", key[1]) and r["uid"] != uid for r in owners):
                self.store.release("pods", pod, TRACKING)

    def _sorted_pods(self, job: Object) -> Pods:
        pods = Pods()
        only_failed = job["spec"]["podReplacementPolicy"] == "Failed"
        for pod in self.world.owned("pods", job):
            phase = pod["status"]["phase"]
            if phase == "Succeeded":
                pods.succeeded.append(pod)
            elif phase == "Failed":
                pods.failed.append(pod)
            elif "deletionTimestamp" not in pod["metadata"]:
                pods.active.append(pod)
            else:
                pods.terminating.append(pod)
                if not only_failed:
                    pods.failed.append(pod)
        return pods

    def _count(self, job: Object, status: Object, pods: Pods) -> None:
        succeeded, failed = pods.uncounted
        counted = [pod for pod in failed if _policy(job, pod)[0] != "Ignore"]
        status["failed"] = status.get("failed", 0) + len(counted)
        if job["spec"]["completionMode"] == "Indexed":
            done = _parse_indexes(status.get("completedIndexes", "")) | {
                _index(p) for p in succeeded
            }
            status["completedIndexes"] = _format_indexes(done)
            status["succeeded"] = len(done)
        else:
            status["succeeded"] = status.get("succeeded", 0) + len(succeeded)

    def _failure(self, job: Object, status: Object, pods: Pods) -> tuple[str, str] | None:
        for pod in pods.failed:
            action, message = _policy(job, pod)
            if action == "FailJob":
                return "PodFailurePolicy", message
        if status["failed"] > job["spec"]["backoffLimit"]:
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        return None

    def _fail(self, status: Object, pods: Pods, failure: tuple[str, str]) -> None:
        conditions = set_condition(status.get("conditions", []), "FailureTarget", "True", *failure)
        if not pods.active and not pods.terminating:
            conditions = set_condition(conditions, "Failed", "True", *failure)
        for pod in pods.active:
            self.store.delete("pods", *key_of(pod))
        status["conditions"] = conditions
        status.update(active=0, ready=0, terminating=len(pods.terminating) + len(pods.active))

    def _manage(self, job: Object, status: Object, pods: Pods) -> None:
        spec, conditions = job["spec"], status.get("conditions", [])
        active = len(pods.active)
        if spec["suspend"]:
            for pod in pods.active:
                self.store.delete("pods", *key_of(pod))
            active = 0
            conditions = set_condition(
                conditions, "Suspended", "True", "JobSuspended", "Job suspended"
            )
            status.pop("startTime", None)
        else:
            if is_true(conditions, "Suspended"):
                status["startTime"] = utc_now()
                conditions = set_condition(
                    conditions, "Suspended", "False", "JobResumed", "Job resumed"
                )
            if status["succeeded"] >= spec["completions"] and not active and not pods.terminating:
                about = ("True", "CompletionsReached", "Reached expected number of succeeded pods")
                conditions = set_condition(conditions, "SuccessCriteriaMet", *about)
                conditions = set_condition(conditions, "Complete", *about)
                status["completionTime"] = utc_now()
            else:
                active += self._create_pods(job, status, pods)
        status["conditions"] = conditions
        ready = sum(is_true(pod["status"].get("conditions", []), "Ready") for pod in pods.active)
        status.update(
            active=active, ready=ready if active else 0, terminating=len(pods.terminating)
        )

    # --- pods ----------------------------------------------------------------------------------

    def _create_pods(self, job: Object, status: Object, pods: Pods) -> int:
        spec = job["spec"]
        if pods.uncounted[1]:  # a pod failed just now: wait before the next
            self.again(key_of(job), self.world.timing.job_backoff_s * 2 ** min(6, status["failed"]))
            return 0
        blocking = pods.active + (
            pods.terminating if spec["podReplacementPolicy"] == "Failed" else []
        )
        room = spec["parallelism"] - len(blocking)
        if spec["completionMode"] == "Indexed":
            taken = {_index(pod) for pod in blocking} | _parse_indexes(status["completedIndexes"])
            free: list[int | None] = [i for i in range(spec["completions"]) if i not in taken]
        else:
            free = [None] * (spec["completions"] - status["succeeded"] - len(blocking))
        made = 0
        for index in free[: max(0, room)]:
            try:
                self.store.create("pods", _build_pod(job, index))
                made += 1
            except ApiError as error:
                self.world.write_event(
                    job, "Warning", "FailedCreate", f"Error creating: {error}", "job-controller"
                )
                self.again(key_of(job), self.world.timing.retry_s)
                break
        return made

    def _write(self, job: Object, status: Object) -> None:
        old = job.get("status", {}).get("conditions", [])
        self.store.patch_status(JOBS, job, **status)
        if "startTime" not in status and "startTime" in job.get("status", {}):
            new = copy.deepcopy(self.store.get(JOBS, *key_of(job)))
            del new["status"]["startTime"]
            self.store.update(JOBS, new, subresource="status")
        for condition in status.get("conditions", []):
            kind = {"Complete": "Normal", "Failed": "Warning"}.get(condition["type"])
            if kind and condition not in old:
                reason = "Completed" if kind == "Normal" else condition["reason"]
                text = "Job completed" if kind == "Normal" else condition["message"]
                self.world.write_event(job, kind, reason, text, "job-controller")

    def _release(self, pods: Pods) -> None:
        for pod in pods.succeeded + pods.failed:
            self.store.release("pods", pod, TRACKING)


def _build_pod(job: Object, index: int | None) -> Object:
    template = copy.deepcopy(job["spec"]["template"])
    meta, name = template.setdefault("metadata", {}), job["metadata"]["name"]
    labels = meta.setdefault("labels", {})
    labels["batch.kubernetes.io/job-name"] = labels["job-name"] = name
    labels["batch.kubernetes.io/controller-uid"] = labels["controller-uid"] = job["metadata"]["uid"]
    base = f"{name}-{index}" if index is not None else name
    meta["generateName"] = f"{base[:57]}-"
    if index is not None:
        labels[INDEX] = str(index)
        meta.setdefault("annotations", {})[INDEX] = str(index)
        template["spec"].setdefault("hostname", base)
        source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        for container in template["spec"]["containers"]:
            container.setdefault("env", []).append(
                {"name": "JOB_COMPLETION_INDEX", "valueFrom": source}
            )
    meta["namespace"] = job["metadata"]["namespace"]
    meta["ownerReferences"] = [reference(job)]
    meta["finalizers"] = [TRACKING]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}


def _policy(job: Object, pod: Object) -> tuple[str, str]:
    """Action of the pod failure policy on a failed pod (Count, Ignore or FailJob), and its reason."""
    if pod["status"]["phase"] != "Failed":
        return "Count", ""
    for number, rule in enumerate(job["spec"].get("podFailurePolicy", {}).get("rules", ())):
        why = _match(rule, pod)
        if why is not None:
            pod_name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            return rule["action"], why.format(
                pod=pod_name
            ) + f" matching {rule['action']} rule at index {number}"
    return "Count", ""


def _match(rule: Object, pod: Object) -> str | None:
    codes = rule.get("onExitCodes")
    if codes is None:
        for wanted in rule.get("onPodConditions", ()):
            if any(
                c["type"] == wanted["type"] and c["status"] == wanted["status"]
                for c in pod["status"].get("conditions", ())
            ):
                return f"Pod {{pod}} has condition {wanted['type']}"
        return None
    for status in pod["status"].get("containerStatuses", ()):
        code = status["state"].get("terminated", {}).get("exitCode", 0)
        is_listed = code in codes["values"]
        is_named = codes.get("containerName", status["name"]) == status["name"]
        if code and is_named and is_listed == (codes["operator"] == "In"):
            return f"Container {status['name']} for pod {{pod}} failed with exit code {code}"
    return None


def _parse_indexes(text: str) -> set[int]:
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _format_indexes(indexes: set[int]) -> str:
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
