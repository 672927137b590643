"""One pass over one job: its inputs, and the decision so far, to which each step of the pass adds. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from cosmos_operator.api.base import API_VERSION, KIND
from cosmos_operator.api.job import Job
from cosmos_operator.api.labels import DOCUMENT_ANNOTATION
from cosmos_operator.api.status import (
    Attempt,
    Checkpoints,
    ConditionType,
    GpuHours,
    InferenceResult,
    Output,
    PostTrainingJobStatus,
    Progress,
    StageResult,
    State,
)
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.decide.conditions import Answer, Conditions
from cosmos_operator.decide.decision import Action, AddOwner, Create, Delete
from cosmos_operator.decide.sharing import give_up_job
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import is_being_deleted, name_of, owner_uids, seconds_since
from cosmos_operator.kube.observed import Observed
from cosmos_operator.kube.pods import Ending
from cosmos_operator.kube.protocol import WEBHOOK_FAILED
from cosmos_operator.plan.stages import Stage
from cosmos_operator.settings import Settings

MAX_REASON = 900
SHORT_WAIT_S = 2.0
"""Seconds until the next pass where something is about to happen, such as the end of a deletion."""

LONG_WAIT_S = 300.0
"""Seconds until the next pass where watches tell of everything that matters, and only messages may grow old."""

StageState = Literal["Waiting", "Blocked", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True)
class StageView:
    """The state of a stage in this pass."""

    state: StageState
    """Waiting: its turn has not come; Blocked: it is kept from running by something that people can mend."""
    reason: str = ""
    message: str = ""
    ending: Ending | None = None
    """The end of the worker in its last pod."""
    workload: Manifest | None = None


@dataclass(frozen=True)
class Failure:
    """The reason for which a job cannot succeed."""

    reason: str
    message: str


@dataclass
class Pass:
    """One pass over a job: its inputs, and the decision so far."""

    document: Manifest
    """The job as the API server has it."""
    job: Job
    stages: Sequence[Stage]
    object_names: Mapping[str, str]
    """Name of a stage → name of its ConfigMap, and of its Job unless it is the training."""
    previous: PostTrainingJobStatus
    """The status that the last pass wrote."""
    observed: Observed
    now: datetime
    settings: Settings
    conditions: Conditions
    state: State = "Pending"
    message: str = ""
    progress: Progress | None = None
    checkpoints: Checkpoints | None = None
    attempts: tuple[Attempt, ...] = ()
    gpu_hours: GpuHours | None = None
    failed_attempts: int = 0
    forgiven_attempts: int = 0
    """Number of the last attempt that counts for nothing any more."""
    retry: int | None = None
    """Value of spec.runPolicy.retry up to which the job has tried again."""
    is_retrying: bool = False
    """True while failed stages are begun anew, as that counter has been raised."""
    refused_edit: str = ""
    """Edit of the training that is left out, and what to do instead."""
    hold: Failure | None = None
    """Reason for which the training is suspended until somebody edits the job."""
    inference: tuple[InferenceResult, ...] = ()
    outputs: tuple[Output, ...] = ()
    failure: Failure | None = None
    awaits_kind: bool = False
    """True if the job needs a kind that the API server has not."""
    ignored_fields: Sequence[str] = ()
    """Paths of fields of the job that only a newer version of the operator knows."""
    lacks_requirements: bool = False
    """True if a claim or a queue that the job needs is missing: nothing new begins."""
    results: dict[str, StageResult] = field(default_factory=dict)
    """Name of a stage that has ended → its end, for the status."""
    finished_stages: set[str] = field(default_factory=set)
    """Names of the stages that have succeeded."""
    actions: list[Action] = field(default_factory=list)
    requeue_after_s: float | None = None

    # --- facts ----------------------------------------------------------------------------------

    @property
    def uid(self) -> str:
        """Uid of the job."""
        return str(self.document["metadata"]["uid"])

    @property
    def has_training(self) -> bool:
        """True if the job is to train a model."""
        return self.job.kind == KIND

    @property
    def training_job(self) -> PostTrainingJob:
        """The job, which is known to be one with a training."""
        assert isinstance(self.job, PostTrainingJob)
        return self.job

    @property
    def is_suspended(self) -> bool:
        """True if the job's specification asks to stop."""
        return self.job.spec.run_policy.suspend

    def owns(self, manifest: Manifest) -> bool:
        """True if an object belongs to this very job, not to an earlier one of the same name."""
        return self.uid in owner_uids(manifest)

    @property
    def unforgiven_attempts(self) -> tuple[Attempt, ...]:
        """Attempts since the job was last told to try again, or given more memory."""
        return tuple(one for one in self.attempts if one.number > self.forgiven_attempts)

    def forgive_attempts(self) -> None:
        """Let all attempts so far count for nothing any more; they stay in the status."""
        self.forgiven_attempts = self.attempts[-1].number if self.attempts else 0
        self.failed_attempts = 0

    def unfinished_dependencies(self, stage: Stage) -> list[str]:
        """Names of the stages that must succeed before this one and have not."""
        return [name for name in stage.depends_on if name not in self.finished_stages]

    # --- status ---------------------------------------------------------------------------------

    def propose_state(self, state: State, message: str) -> None:
        """Propose the state and the sentence that people read; the first proposal of a pass is taken."""
        if not self.message:
            self.state, self.message = state, message

    def set_condition(
        self, kind: ConditionType, status: Answer, reason: str, message: str = ""
    ) -> None:
        """Set a condition of the job."""
        self.conditions.set(kind, status, reason, message)

    def fail_job(self, reason: str, message: str) -> None:
        """Let the job fail; the first reason of a pass is taken."""
        self.failure = self.failure or Failure(reason, message)

    def fail_items(self, wrong: Mapping[str, str]) -> None:
        """Let inference items fail.

        Args:
            wrong: names of items that cannot be carried out, and the reasons. Those that an earlier version of the
                operator has carried out stay as they are.
        """
        succeeded = tuple(
            one
            for one in self.previous.inference
            if one.name in wrong and one.state == "Succeeded" and one not in self.inference
        )
        self.inference += succeeded
        known = {one.name for one in self.inference}
        self.inference += tuple(
            InferenceResult.model_construct(
                name=name,
                state="Failed",
                message=f"{reason[:MAX_REASON]}; append it anew under another name",
            )
            for name, reason in wrong.items()
            if name not in known
        )

    def carry_over_progress(self) -> None:
        """Take over from the last pass what it knew of the training."""
        self.attempts = self.previous.attempts
        self.gpu_hours = self.previous.gpu_hours
        self.failed_attempts = 0 if self.is_retrying else self.previous.failed_attempts
        self.progress, self.checkpoints = self.previous.progress, self.previous.checkpoints

    # --- actions --------------------------------------------------------------------------------

    def requeue_after(self, seconds: float) -> None:
        """Ask for another pass after this time at the latest."""
        earlier = self.requeue_after_s
        self.requeue_after_s = seconds if earlier is None else min(earlier, seconds)

    def poll(self, since: str | None) -> None:
        """Ask for another pass to look at something that no watch tells of, less often the longer it has been so."""
        self.requeue_after(self.settings.poll_s(seconds_since(since, self.now)))

    def create(self, manifest: Manifest, *, shared: bool = False) -> None:
        """Create an object that is deleted with the job, or if shared, with the last job that uses it."""
        owners = [self.owner_reference(controls=not shared)]
        metadata = {**manifest["metadata"], "ownerReferences": owners}
        self.actions.append(Create({**manifest, "metadata": metadata}))

    def create_unowned(self, manifest: Manifest) -> None:
        """Create an object that outlives the job."""
        self.actions.append(Create(manifest))

    def add_owner(self, kind: str, name: str) -> None:
        """Make the job a further owner of an object that jobs share."""
        found = self.observed.get(kind, name)
        uid = str(found["metadata"].get("uid", "")) if found is not None else ""
        self.actions.append(AddOwner(kind, name, self.owner_reference(controls=False), uid))

    def give_up_job(self, job: Manifest, reason: str) -> None:
        """Give up a Job that jobs share, and its ConfigMap: the last job that does so deletes them."""
        config_map = self.observed.get("ConfigMap", name_of(job))
        self.actions += give_up_job(job, config_map, self.uid, reason)
        self.requeue_after(SHORT_WAIT_S)

    def delete(self, manifest: Manifest, reason: str, *, at_once: bool = False) -> None:
        """Delete an object, unless that has been asked for already.

        Args:
            manifest: the object.
            reason: for the log.
            at_once: delete it without waiting for what it owns, even if an earlier deletion waits for that.
        """
        if is_being_deleted(manifest) and not at_once:
            return
        metadata = manifest["metadata"]
        self.actions.append(
            Delete(manifest["kind"], metadata["name"], metadata["uid"], reason, not at_once)
        )

    def replaces_outdated(self, wanted: Manifest, found: Manifest) -> bool:
        """Delete what an edit has outdated, to create it anew: a stage's document, or the Service of another backend.

        No pod that mounts the document may run.

        Returns:
            False if the object is as wanted.
        """
        if wanted["kind"] == "ConfigMap":
            digests = [
                (one["metadata"].get("annotations") or {}).get(DOCUMENT_ANNOTATION)
                for one in (wanted, found)
            ]
            is_current, reason = (
                None in digests or digests[0] == digests[1],
                "its document has changed",
            )
        else:
            selectors = [(one.get("spec") or {}).get("selector") for one in (wanted, found)]
            is_current = wanted["kind"] != "Service" or selectors[0] == selectors[1]
            reason = "it selects the pods of another backend"
        if is_current:
            return False
        self.delete(found, reason)
        self.requeue_after(SHORT_WAIT_S)
        return True

    def owner_reference(self, *, controls: bool) -> Manifest:
        """The owner reference to this job."""
        return {
            "apiVersion": API_VERSION,
            "kind": self.job.kind,
            "name": self.job.name,
            "uid": self.uid,
            "controller": controls,
            "blockOwnerDeletion": controls,
        }

    # --- views of stages ------------------------------------------------------------------------

    def name_conflict(self, kind: str, name: str) -> StageView:
        """The view of a stage that needs an object whose name is taken by somebody else's."""
        self.requeue_after(SHORT_WAIT_S)
        return StageView(
            "Blocked",
            "NameConflict",
            f"{kind} {name!r} exists and does not belong to this job; it goes by itself if it is left over from a "
            f"deleted job of the same name; otherwise delete that {kind}, or use a job of another name (with "
            f"spec.checkpoints.from.job: {self.job.name} it continues a training of this one)",
        )

    def creation_refused(self, kind: str, name: str) -> StageView | None:
        """The view of a stage for which the API server refused to create an object; None if it did not."""
        refusal = self.observed.refusals.get((kind, name))
        if not refusal:
            return None
        self.requeue_after(self.settings.poll_seconds)
        message = f"{kind} {name} cannot be created: {refusal}"
        if WEBHOOK_FAILED in refusal:
            remedy = ", or set spec.backend.type: Job" if kind in ("PyTorchJob", "TrainJob") else ""
            message += f"; start the program that this webhook belongs to{remedy}"
        return StageView("Blocked", "Refused", message)
