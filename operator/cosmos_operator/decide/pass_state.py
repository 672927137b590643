"""One pass in the making: what the steps of a pass read, and what they add to the decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from cosmos_operator.api.base import API_VERSION, KIND
from cosmos_operator.api.status import (
    Attempt,
    Checkpoints,
    ConditionType,
    InferenceResult,
    Output,
    PostTrainingJobStatus,
    Progress,
    State,
)
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.decide.conditions import Answer, Conditions
from cosmos_operator.decide.decision import Action, AddOwner, Create, Delete
from cosmos_operator.decide.observed import Observed
from cosmos_operator.decide.training.workloads import is_being_deleted
from cosmos_operator.plan.stages import Stage
from cosmos_operator.settings import Settings

Manifest = dict[str, Any]
MAX_ITEM_MESSAGE = 900


@dataclass(frozen=True)
class Failure:
    """Why a job cannot succeed."""

    reason: str
    message: str


@dataclass
class Draft:
    """A pass over one job: its inputs, and the decision so far."""

    document: Manifest
    """The job as the API server has it."""
    job: PostTrainingJob
    stages: Sequence[Stage]
    previous: PostTrainingJobStatus
    observed: Observed
    now: datetime
    settings: Settings
    conditions: Conditions
    state: State = "Pending"
    message: str = ""
    progress: Progress | None = None
    checkpoints: Checkpoints | None = None
    attempts: tuple[Attempt, ...] = ()
    failed_attempts: int = 0
    inference: tuple[InferenceResult, ...] = ()
    outputs: tuple[Output, ...] = ()
    failure: Failure | None = None
    is_held: bool = False
    """Something that the job needs is missing: nothing new begins."""
    done: set[str] = field(default_factory=set)
    """Names of the stages that have finished."""
    actions: list[Action] = field(default_factory=list)
    requeue_after_s: float | None = None

    @property
    def uid(self) -> str:
        """Identity of the job."""
        return str(self.document["metadata"]["uid"])

    @property
    def suspended(self) -> bool:
        """Whether the job asks to be stopped."""
        return self.job.spec.run_policy.suspend

    def say(self, state: State, message: str) -> None:
        """What people read; the first step of a pass that has something to say is heard."""
        if not self.message:
            self.state, self.message = state, message

    def condition(
        self, kind: ConditionType, status: Answer, reason: str, message: str = ""
    ) -> None:
        """Answer a question."""
        self.conditions.set(kind, status, reason, message)

    def fail(self, reason: str, message: str) -> None:
        """The job cannot succeed; the first reason counts."""
        self.failure = self.failure or Failure(reason, message)

    def fail_items(self, wrong: Mapping[str, str]) -> None:
        """Inference items that cannot be carried out, by name, and why."""
        done = tuple(
            one
            for one in self.previous.inference
            if one.name in wrong and one.state == "Succeeded" and one not in self.inference
        )
        self.inference += done  # an earlier version of the operator had it carried out
        known = {one.name for one in self.inference}
        self.inference += tuple(
            InferenceResult.model_construct(
                name=name,
                state="Failed",
                message=f"{why[:MAX_ITEM_MESSAGE]}; append it anew under another name",
            )
            for name, why in wrong.items()
            if name not in known
        )

    def look_again(self, seconds: float) -> None:
        """Ask for another pass at the latest after this time."""
        now = self.requeue_after_s
        self.requeue_after_s = seconds if now is None else min(now, seconds)

    def owner(self, *, controls: bool = True) -> Manifest:
        """The owner reference to this job."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.job.name,
            "uid": self.uid,
            "controller": controls,
            "blockOwnerDeletion": controls,
        }

    def owns(self, manifest: Manifest) -> bool:
        """Whether an object belongs to this very job, not to one of the same name that was before it."""
        owners = manifest["metadata"].get("ownerReferences", ())
        return any(owner["uid"] == self.uid for owner in owners)

    def create(self, manifest: Manifest, *, shared: bool = False) -> None:
        """Create an object that goes when the job goes (a shared one: when all jobs that use it are gone)."""
        metadata = {**manifest["metadata"], "ownerReferences": [self.owner(controls=not shared)]}
        self.actions.append(Create({**manifest, "metadata": metadata}))

    def share(self, kind: str, name: str) -> None:
        """Become a further owner of an object that jobs share."""
        self.actions.append(AddOwner(kind, name, self.owner(controls=False)))

    def create_unowned(self, manifest: Manifest) -> None:
        """Create an object that outlives the job."""
        self.actions.append(Create(manifest))

    def delete(self, manifest: Manifest, why: str, *, at_once: bool = False) -> None:
        """Delete an object, unless that has been asked for already.

        Args:
            manifest: the object.
            why: for the log.
            at_once: it does not wait for what it owns, even if it does so by now.
        """
        if is_being_deleted(manifest) and not at_once:
            return
        metadata = manifest["metadata"]
        self.actions.append(
            Delete(manifest["kind"], metadata["name"], metadata["uid"], why, not at_once)
        )
