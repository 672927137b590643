"""The training: one workload an attempt, started, watched, stopped and repeated by us alone. Pure.

No attempt begins before all pods of the one before have ended, and a gang that loses a member is stopped as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosmos_operator.api.base import KIND
from cosmos_operator.api.status import Attempt, Checkpoints, Outcome
from cosmos_operator.decide.pass_state import (
    Draft,
    Manifest,
)
from cosmos_operator.decide.pods import STUCK_AFTER_S, Ending, name_of
from cosmos_operator.decide.stages.stage_jobs import (
    SHORT_WAIT_S,
    StageView,
    foreign,
)
from cosmos_operator.decide.times import format_duration, format_time, seconds_since
from cosmos_operator.decide.training import attempts as book
from cosmos_operator.decide.training.gang import (
    CONSEQUENCES,
    Gang,
    read_gang,
)
from cosmos_operator.decide.training.node_avoidance import (
    nodes_to_avoid,
    silent_nodes,
)
from cosmos_operator.decide.training.outcomes import (
    COUNTED,
    classify,
    outcome_of,
)
from cosmos_operator.decide.training.progress import report_progress
from cosmos_operator.decide.training.watch import (
    member_is_leaving,
    starts_too_late,
    watch,
)
from cosmos_operator.decide.training.workloads import (
    WorkloadState,
    is_being_deleted,
    read_state,
)
from cosmos_operator.plan.backend import Backend
from cosmos_operator.plan.names import ATTEMPT_LABEL, JOB_LABEL, attempt_name
from cosmos_operator.plan.render import build_config_map, build_leader_service, stage_name
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.workload import TrainingAttempt

MAX_MESSAGE = 1024


@dataclass
class Training:
    """The training of one pass."""

    draft: Draft
    stage: Stage
    backend: Backend

    def advance(self) -> StageView:
        """Look at the training and do what its attempts need."""
        draft = self.draft
        self._remember()
        if not draft.attempts:
            return self._begin_first()
        gang = read_gang(draft, self.backend, self.attempt)
        self._learn(gang)
        view = self._look(gang) if self.attempt.outcome == "Running" else self._after(gang)
        draft.progress = report_progress(draft, self.stage, gang, view)
        return view

    # --- what is known --------------------------------------------------------------------

    @property
    def attempt(self) -> Attempt:
        """The latest attempt."""
        return self.draft.attempts[-1]

    def _remember(self) -> None:
        """Attempts of the last status, and one whose status was never written but whose workload is there."""
        draft = self.draft
        draft.attempts = draft.previous.attempts
        draft.failed_attempts = draft.previous.failed_attempts
        draft.checkpoints = draft.previous.checkpoints
        number = draft.attempts[-1].number if draft.attempts else 0
        while self._workload(number + 1) is not None:
            number += 1
            self._append(number)

    def _workload(self, number: int) -> Manifest | None:
        found = self.draft.observed.get(
            self.backend.kind, attempt_name(self.draft.job.name, number)
        )
        return found if found is not None and self.draft.owns(found) else None

    def _append(self, number: int) -> None:
        known = self.draft.checkpoints.latest_step if self.draft.checkpoints else None
        attempt = Attempt.model_construct(
            number=number,
            backend=self.backend.kind,
            workload=attempt_name(self.draft.job.name, number),
            start_step=known,
        )
        self.draft.attempts = book.listed([*self.draft.attempts, attempt])

    def _change(self, **values: object) -> None:
        self.draft.attempts = (*self.draft.attempts[:-1], book.changed(self.attempt, **values))

    def _learn(self, gang: Gang) -> None:
        """Steps and checkpoints, from the log and from what the pods said when they ended."""
        facts, endings = gang.facts, gang.endings
        steps = [facts.step, *(ending.step for ending in endings)]
        saved = [facts.checkpoint, *(ending.checkpoint for ending in endings)]
        known = self.draft.checkpoints.latest_step if self.draft.checkpoints else None
        latest = max((step for step in (known, *saved) if step is not None), default=None)
        if latest is not None:
            self.draft.checkpoints = Checkpoints.model_construct(
                latest_step=latest, latest_address=gang.run_address(self.stage)
            )
        step = max((s for s in (self.attempt.end_step, *steps) if s is not None), default=None)
        self._change(end_step=step, start_step=facts.start_step)
        if gang.note and self.attempt.outcome == "Running":
            self._change(message=gang.note[:MAX_MESSAGE])
        if gang.workload is not None and self.attempt.start_time is None:
            created = gang.workload["metadata"]["creationTimestamp"]
            self._change(start_time=created)

    # --- an attempt that runs -------------------------------------------------------------

    def _look(self, gang: Gang) -> StageView:
        draft, workload = self.draft, gang.workload
        if workload is None:
            return self._vanished(gang)
        if is_being_deleted(workload):
            self._end("Deleted", "its workload was deleted", None)
            return self._after(gang)
        state = read_state(workload)
        if state.state == "Succeeded":
            self._end("Succeeded", self.attempt.message, gang.first_ending)
            return self._succeeded(gang)
        if state.state == "Failed":
            return self._has_failed(gang, state)
        if draft.suspended:
            return self._stop(gang, "Suspended", "spec.runPolicy.suspend is true")
        if draft.failure is not None:
            return self._stop(gang, "DeadlineExceeded", draft.failure.message)
        if gang.leaving is not None and gang.has_failed_by_itself:
            # the workload's controller takes the others away before it says that the workload has failed
            return self._failed(gang, "a pod failed")
        self._keep_companions()
        result = watch(draft, self.stage, gang)
        if result.outcome is not None:
            if result.outcome == "DeadlineExceeded":
                draft.fail("StartDeadlineExceeded", result.message)
            return self._stop(gang, result.outcome, result.message, node=result.node)
        return result.view

    def _vanished(self, gang: Gang) -> StageView:
        """There is no workload: it was never made, or somebody deleted it, and its pods may still save."""
        if self.attempt.start_time is not None:
            self._end("Deleted", "its workload was deleted", None)
            return self._after(gang)
        if self._is_held():
            self.draft.attempts = self.draft.attempts[:-1]
            return self._held()
        return self._create()

    def _has_failed(self, gang: Gang, state: WorkloadState) -> StageView:
        """Pods that have ended may say only that others did; those are then given the time to say why."""
        verdict = classify(gang.endings)
        explained = verdict is not None and verdict.outcome not in CONSEQUENCES
        age = seconds_since(state.finish_time, self.draft.now)
        if explained or not gang.active or gang.leaving is not None or age > STUCK_AFTER_S:
            return self._failed(gang, f"{state.reason}: {state.message}".strip(": "))
        self.draft.look_again(SHORT_WAIT_S)
        return self._stopping(gang)

    def _failed(self, gang: Gang, said: str) -> StageView:
        verdict = classify(gang.endings)
        missing = self.stage.nodes - len(gang.pods)
        silent = self._silent_node(gang)
        unexplained = verdict is None or (
            verdict.outcome in CONSEQUENCES and not gang.has_failed_by_itself
        )
        if gang.leaving is not None and unexplained:
            taken = member_is_leaving(gang.leaving)
            self._end(taken.outcome or "Deleted", taken.message, None, node=taken.node)
        elif silent and unexplained:
            self._end("NodeLost", f"node {silent} does not answer ({said})", None, node=silent)
        elif verdict is None and missing <= 0:
            self._end("Crashed", f"its pods left no trace ({said})", None)
        elif verdict is None or (missing > 0 and verdict.outcome in CONSEQUENCES):
            # pods that crash stay; those that are gone were taken away, and the others ended for that reason
            self._end("Deleted", f"{missing} of its {self.stage.nodes} pods were taken away", None)
        else:
            self._end(verdict.outcome, verdict.ending.message or said, verdict.ending)
        return self._after(gang)

    def _silent_node(self, gang: Gang) -> str:
        """A node of a pod that has not ended, if it says nothing any more: the others notice before Kubernetes acts."""
        silent = silent_nodes(self.draft.observed.nodes or ())
        places = (str(pod["spec"].get("nodeName", "")) for pod in gang.active)
        return next((node for node in places if node in silent), "")

    def _stop(self, gang: Gang, outcome: Outcome, message: str, node: str = "") -> StageView:
        """Stop a running attempt for a reason of ours; its pods get the time to save."""
        assert gang.workload is not None
        self._end(outcome, message, gang.first_ending, node=node)
        self.draft.delete(gang.workload, message)
        self.draft.look_again(SHORT_WAIT_S)
        return self._stopping(gang)

    def _end(self, outcome: Outcome, message: str, ending: Ending | None, node: str = "") -> None:
        counted = outcome in COUNTED
        self._change(
            outcome=outcome,
            message=message[:MAX_MESSAGE],
            counted=counted,
            exit_code=ending.exit_code if ending else None,
            node=(ending.node if ending else node) or node or None,
            finish_time=format_time(self.draft.now),
        )
        self.draft.failed_attempts += counted

    # --- an attempt that has ended --------------------------------------------------------

    def _after(self, gang: Gang) -> StageView:
        outcome = self.attempt.outcome
        if outcome == "Succeeded":
            return self._succeeded(gang)
        workload = gang.workload
        if workload is not None and gang.active:  # nobody else ends what is left of it
            self.draft.delete(workload, f"attempt {self.attempt.number}: {outcome}")
        elif (
            workload is not None and gang.stuck
        ):  # it would wait for ever for a node that is gone for good
            self.draft.delete(workload, f"{name_of(gang.stuck[0])} does not end", at_once=True)
        elif workload is not None and is_being_deleted(workload):
            self.draft.look_again(SHORT_WAIT_S)
            return self._stopping(gang)
        if gang.active:
            self.draft.look_again(SHORT_WAIT_S)
            return self._stopping(gang)
        if outcome == "UserError":
            ending = gang.explaining(lambda one: outcome_of(one) == "UserError")
            reason = ending.reason if ending and ending.reason.isalnum() else "UserError"
            self.draft.fail(reason, f"training: {self.attempt.message}")
            return StageView("Failed", reason, self.attempt.message)
        return self._next(gang)

    def _succeeded(self, gang: Gang) -> StageView:
        """The model is there. Pods that do not end are not left with their GPUs."""
        if gang.active:
            if gang.workload is not None and self._has_ended_long_ago():
                self.draft.delete(gang.workload, f"{', '.join(gang.active_names)} did not end")
            self.draft.look_again(SHORT_WAIT_S)
            return self._stopping(gang)
        return StageView("Succeeded", "Trained", ending=gang.first_ending, workload=gang.workload)

    def _has_ended_long_ago(self) -> bool:
        return seconds_since(self.attempt.finish_time, self.draft.now) > STUCK_AFTER_S

    def _stopping(self, gang: Gang) -> StageView:
        number, outcome = self.attempt.number, self.attempt.outcome
        pods = ", ".join(gang.active_names) or "its workload"
        known = f" ({outcome})" if outcome != "Running" else ""
        message = f"attempt {number}{known} ends: waits for {pods}"
        return StageView("Waiting", "Stopping", message, workload=gang.workload)

    def _next(self, gang: Gang) -> StageView:
        """Begin the next attempt, unless the job is held, has no attempts left, or must wait."""
        draft, policy = self.draft, self.draft.job.spec.run_policy
        if self._is_held():
            return self._held()
        last = self.attempt
        if draft.failed_attempts >= policy.max_attempts and last.counted:
            return self._give_up(
                "AttemptsExhausted",
                f"{draft.failed_attempts} of spec.runPolicy.maxAttempts={policy.max_attempts} attempts failed; "
                f"the last: {last.outcome}: {last.message}",
            )
        if book.is_hopeless(book.since_resumed(draft.attempts, draft.previous.conditions)):
            return self._give_up(
                "NoProgress",
                f"attempts in a row ended at step {last.end_step or 0} without progress; the last: "
                f"{last.outcome}: {last.message}",
            )
        if late := starts_too_late(draft, gang, f"{last.outcome}: {last.message}"):
            return self._give_up("StartDeadlineExceeded", late)
        wait = book.wait_s(draft.attempts, draft.settings.retry_backoff_seconds, draft.now)
        if wait > 0:
            draft.look_again(wait)
            message = f"attempt {last.number} ended ({last.outcome}); the next begins in {format_duration(wait)}"
            return StageView("Waiting", "BackingOff", message)
        self._clean_up(last.number)
        self._append(last.number + 1)
        return self._create()

    def _give_up(self, reason: str, message: str) -> StageView:
        self.draft.fail(reason, f"training: {message}")
        return StageView("Failed", reason, message)

    def _is_held(self) -> bool:
        """Whether no attempt may begin now."""
        draft = self.draft
        return draft.suspended or draft.failure is not None or draft.is_held

    def _held(self) -> StageView:
        if self.draft.suspended:
            return StageView("Waiting", "Suspended", "spec.runPolicy.suspend is true")
        if self.draft.failure is not None:
            return StageView("Waiting", "Failed", self.draft.failure.message)
        return StageView("Waiting", "Waiting", "waits for what the job needs")

    def _clean_up(self, number: int) -> None:
        """Delete workloads before the last: its finished pods stay for their logs."""
        for earlier in range(max(1, number - book.MAX_LISTED), number):
            workload = self._workload(earlier)
            if workload is not None:
                self.draft.delete(workload, f"attempt {number} has ended since")

    # --- beginning ------------------------------------------------------------------------

    def _begin_first(self) -> StageView:
        missing = [need for need in self.stage.depends_on if need not in self.draft.done]
        if missing:
            return StageView("Waiting", "Waiting", f"waits for {', '.join(missing)}")
        if self._is_held():
            return self._held()
        self._append(1)
        return self._create()

    def _companions(self) -> tuple[Manifest, Manifest]:
        """What all attempts use: the document that the pods mount, and the Service of the leader."""
        job = self.draft.job
        return build_config_map(job, self.stage), build_leader_service(job, self.backend)

    def _is_of_our_name(self, found: Manifest) -> bool:
        """Whether an object belongs to this job, or to a deleted one of its name, with which it goes in a moment."""
        owners = found["metadata"].get("ownerReferences", ())
        return any((one["kind"], one["name"]) == (KIND, self.draft.job.name) for one in owners)

    def _keep_companions(self) -> None:
        """Somebody may have deleted them while an attempt runs."""
        for manifest in self._companions():
            if self.draft.observed.get(manifest["kind"], manifest["metadata"]["name"]) is None:
                self.draft.create(manifest)

    def _create(self) -> StageView:
        """Create what the latest attempt needs."""
        draft, stage, attempt = self.draft, self.stage, self.attempt
        labels = {JOB_LABEL: draft.job.name, ATTEMPT_LABEL: str(attempt.number)}
        if left := draft.observed.pods_with(labels):
            draft.look_again(SHORT_WAIT_S)
            message = f"waits for pod {name_of(left[0])} of a deleted job of the same name"
            return StageView("Waiting", "NameConflict", message)
        avoid = nodes_to_avoid(draft, stage)
        name = stage_name(draft.job, stage)
        manifests = self.backend.build(
            TrainingAttempt(draft.job, stage, name, draft.settings, attempt.number, avoid)
        )
        for manifest in (*self._companions(), *manifests):
            key = (manifest["kind"], manifest["metadata"]["name"])
            found = draft.observed.get(*key)
            if key[0] == "Service" and found is not None and not self._is_of_our_name(found):
                continue  # a Service of other people has the job's name: only its short log address is lost
            if found is not None and not draft.owns(found):
                return foreign(draft, *key)
            if found is None:
                draft.create(manifest)
            if refusal := draft.observed.refusals.get(key):
                draft.look_again(draft.settings.poll_seconds)
                return StageView(
                    "Blocked", "Refused", f"{key[0]} {key[1]} cannot be created: {refusal}"
                )
        draft.look_again(draft.settings.poll_seconds)
        return StageView("Running", "Starting", f"starts attempt {attempt.number}")
