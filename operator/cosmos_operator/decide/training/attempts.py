"""The training as a row of attempts, one workload each: begun, checked, stopped and repeated by us alone. Pure.

No attempt begins before all pods of the one before have ended, and a gang that loses a member is stopped as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosmos_operator.api.status import Attempt, Outcome
from cosmos_operator.decide.pass_state import SHORT_WAIT_S, Failure, Pass, StageView
from cosmos_operator.decide.training import backoff
from cosmos_operator.decide.training.attempt_list import (
    append_attempt,
    delete_earlier_workloads,
    end_attempt,
    may_still_start,
    note_others,
    recall_attempts,
    steps_of,
    update_attempt,
)
from cosmos_operator.decide.training.attempt_objects import (
    create_attempt,
    document_refused,
    restore_common_objects,
)
from cosmos_operator.decide.training.gpu_hours import count_gpu_hours
from cosmos_operator.decide.training.node_avoidance import silent_nodes
from cosmos_operator.decide.training.out_of_memory import describe_lack, was_given_more
from cosmos_operator.decide.training.outcomes import CONSEQUENCES, classify, outcome_of
from cosmos_operator.decide.training.pods import Gang, read_gang
from cosmos_operator.decide.training.progress import report_progress
from cosmos_operator.decide.training.running import (
    check_running_attempt,
    describe_leaving_pod,
    start_deadline_problem,
)
from cosmos_operator.decide.training.workload_report import report_to_workload
from cosmos_operator.kube.objects import (
    WorkloadState,
    format_duration,
    has_made_pods,
    is_being_deleted,
    name_of,
    read_state,
    seconds_since,
)
from cosmos_operator.kube.pods import STUCK_AFTER_S
from cosmos_operator.plan.backend import Backend
from cosmos_operator.plan.stages import Stage
from cosmos_worker.errors import EXIT_OK


@dataclass
class Training:
    """The training in one pass."""

    pass_: Pass
    stage: Stage
    backend: Backend

    @property
    def attempt(self) -> Attempt:
        """The latest attempt."""
        return self.pass_.attempts[-1]

    def advance(self) -> StageView:
        """Do what the latest attempt needs, or begin another one."""
        pass_ = self.pass_
        recall_attempts(pass_, self.backend)
        if not pass_.attempts:
            return self._begin_first()
        number = self.attempt.number
        gang = read_gang(pass_, self.backend, self.attempt)
        update_attempt(pass_, self.stage, gang)
        is_running = self.attempt.outcome == "Running"
        view = self._advance_running(gang) if is_running else self._advance_ended(gang)
        pass_.progress = report_progress(
            pass_, self.stage, gang.facts, has_finished=view.state == "Succeeded"
        )
        count_gpu_hours(pass_, self.stage, gang, number)
        report_to_workload(pass_, gang)
        return view

    # --- an attempt begins ----------------------------------------------------------------------

    def _begin_first(self) -> StageView:
        if missing := self.pass_.unfinished_dependencies(self.stage):
            return StageView("Waiting", "Waiting", f"waits for {', '.join(missing)}")
        if reason := self._reason_not_to_begin():
            return reason
        append_attempt(self.pass_, self.backend, 1, self.stage)
        return create_attempt(self.pass_, self.stage, self.backend)

    def _begin_next(self, gang: Gang) -> StageView:
        """Begin the next attempt, unless the job may not begin one now, has none left, or must wait."""
        pass_ = self.pass_
        if reason := self._reason_not_to_begin():
            return reason
        last = self.attempt
        if (problem := self._reason_to_give_up()) and last.outcome != "OutOfMemory":
            return self._fail_job(problem.reason, problem.message)
        if problem and not was_given_more(pass_):
            pass_.hold = Failure("OutOfMemory", describe_lack(pass_, self.stage))
            return StageView("Blocked", "OutOfMemory", pass_.hold.message)
        if problem:
            pass_.forgive_attempts()
        if problem_of_start := start_deadline_problem(pass_, gang, _last_words(last)):
            return self._fail_job("StartDeadlineExceeded", problem_of_start)
        wait = 0.0
        if last.number > pass_.forgiven_attempts:
            first_s = pass_.settings.retry_backoff_seconds
            wait = backoff.wait_s(pass_.unforgiven_attempts, first_s, pass_.now, pass_.uid)
        if wait > 0:
            pass_.requeue_after(wait)
            message = f"attempt {last.number} ended ({last.outcome}); the next begins in {format_duration(wait)}"
            return StageView("Waiting", "BackingOff", message)
        delete_earlier_workloads(pass_, self.backend, last.number)
        append_attempt(pass_, self.backend, last.number + 1, self.stage)
        return create_attempt(pass_, self.stage, self.backend)

    def _reason_to_give_up(self) -> Failure | None:
        """The reason for which another attempt like the last ones is pointless; None if it is not."""
        pass_, last, limit = self.pass_, self.attempt, self.pass_.job.spec.run_policy.max_attempts
        if pass_.failed_attempts >= limit and last.counted:
            return Failure(
                "AttemptsExhausted",
                f"{pass_.failed_attempts} of spec.runPolicy.maxAttempts={limit} attempts failed; the last: "
                f"{_last_words(last)}",
            )
        if backoff.is_hopeless(pass_.unforgiven_attempts):
            return Failure(
                "NoProgress",
                f"attempts in a row ended at step {last.end_step or 0} without progress; the last: {_last_words(last)}",
            )
        return None

    def _reason_not_to_begin(self) -> StageView | None:
        """The view of a training of which no attempt may begin now; None if one may."""
        if self.pass_.is_suspended:
            return StageView("Waiting", "Suspended", "spec.runPolicy.suspend is true")
        if self.pass_.failure is not None:
            return StageView("Waiting", "Failed", self.pass_.failure.message)
        if self.pass_.lacks_requirements:
            return StageView(
                "Waiting", "Waiting", "waits for the claims or the queue that the job needs"
            )
        return None

    def _fail_job(self, reason: str, message: str) -> StageView:
        self.pass_.fail_job(reason, f"training: {message}")
        return StageView("Failed", reason, message)

    # --- an attempt runs ------------------------------------------------------------------------

    def _advance_running(self, gang: Gang) -> StageView:
        pass_, workload = self.pass_, gang.workload
        if workload is None:
            return self._handle_missing_workload(gang)
        if is_being_deleted(workload):
            end_attempt(pass_, "Deleted", "its workload was deleted")
            return self._advance_ended(gang)
        state = read_state(workload)
        if state.state == "Succeeded":
            end_attempt(pass_, "Succeeded", self.attempt.message, gang.first_ending)
            return self._finish(gang)
        if state.state == "Failed":
            return self._handle_failed_workload(gang, state)
        if pass_.is_suspended:
            return self._stop(gang, "Suspended", "spec.runPolicy.suspend is true")
        if pass_.failure is not None:
            return self._stop(gang, "DeadlineExceeded", pass_.failure.message)
        if view := self._take_results(gang):
            return view
        restore_common_objects(pass_, self.stage)
        result = check_running_attempt(pass_, self.stage, gang)
        if result.outcome is not None:
            if result.outcome == "DeadlineExceeded":
                pass_.fail_job("StartDeadlineExceeded", result.message)
            return self._stop(gang, result.outcome, result.message, node=result.node)
        return document_refused(pass_, self.stage, gang.pods) or result.view

    def _take_results(self, gang: Gang) -> StageView | None:
        """End an attempt by what its workers did, before its workload's controller has reported it.

        That controller deletes the other pods before it reports that one has failed, and while containers that are not
        ours keep a pod, it reports nothing. None while the attempt goes on.
        """
        if gang.leaving is not None:
            return self._end_failed(gang, "a pod failed") if gang.has_failed_by_itself else None
        if not gang.kept:
            return None
        failed = next((one for one in gang.endings if one.exit_code != EXIT_OK), None)
        if failed is not None and self._is_explained(gang, failed.finish_time):
            return self._end_failed(gang, "a worker failed")
        if failed is not None or gang.leader_ending is None:
            self.pass_.requeue_after(SHORT_WAIT_S)
            return None
        end_attempt(self.pass_, "Succeeded", self.attempt.message, gang.leader_ending)
        return self._finish(gang)

    def _is_explained(self, gang: Gang, since: str | None) -> bool:
        """True if the ends of the pods tell why the attempt failed, or nobody is left who might tell in time."""
        verdict = classify(gang.endings)
        if verdict is not None and verdict.outcome not in CONSEQUENCES:
            return True
        age = seconds_since(since, self.pass_.now)
        return not gang.working or gang.leaving is not None or age > STUCK_AFTER_S

    def _handle_missing_workload(self, gang: Gang) -> StageView:
        """Create a workload that was never created; otherwise it was deleted: end the attempt, whose pods may save."""
        if self.attempt.start_time is not None:
            end_attempt(self.pass_, "Deleted", "its workload was deleted")
            return self._advance_ended(gang)
        number = self.attempt.number
        self.pass_.attempts = self.pass_.attempts[:-1]
        if reason := self._reason_not_to_begin():
            return reason
        append_attempt(
            self.pass_, self.backend, number, self.stage
        )  # the job may ask for another kind now
        return create_attempt(self.pass_, self.stage, self.backend)

    def _handle_failed_workload(self, gang: Gang, state: WorkloadState) -> StageView:
        """Give pods the time to report why they fail, if those that have ended report only that others did."""
        if self._is_explained(gang, state.finish_time):
            return self._end_failed(gang, f"{state.reason}: {state.message}".strip(": "))
        self.pass_.requeue_after(SHORT_WAIT_S)
        return self._view_of_stopping(gang)

    def _end_failed(self, gang: Gang, detail: str) -> StageView:
        """End a failed attempt with the outcome that its pods, or the lack of them, explain."""
        verdict = classify(gang.endings)
        nodes = self.attempt.nodes or self.stage.nodes
        num_missing = nodes - len(gang.pods)
        silent = self._silent_node(gang)
        is_unexplained = verdict is None or (
            verdict.outcome in CONSEQUENCES and not gang.has_failed_by_itself
        )
        if gang.leaving is not None and is_unexplained:
            leaving = describe_leaving_pod(gang.leaving)
            end_attempt(
                self.pass_, leaving.outcome or "Deleted", leaving.message, node=leaving.node
            )
        elif silent and is_unexplained:
            message = f"node {silent} does not answer ({detail})"
            end_attempt(self.pass_, "NodeLost", message, node=silent)
        elif verdict is None and self._never_had_pods(gang):
            end_attempt(
                self.pass_, "NotStarted", f"its workload failed before it had a pod ({detail})"
            )
        elif verdict is None and num_missing <= 0:
            end_attempt(self.pass_, "Crashed", f"its pods left no trace ({detail})")
        elif verdict is None or (num_missing > 0 and verdict.outcome in CONSEQUENCES):
            # pods that crash stay; those that are gone were deleted, and the others ended for that reason
            message = f"{num_missing} of its {nodes} pods were taken away"
            end_attempt(self.pass_, "Deleted", message)
        else:
            message = verdict.ending.message or detail
            end_attempt(self.pass_, verdict.outcome, message, verdict.ending)
        return self._advance_ended(gang)

    def _never_had_pods(self, gang: Gang) -> bool:
        """True if the workload's controller has failed it without making a pod."""
        has_seen_pods = gang.pods or self.attempt.scheduled_time is not None
        return not has_seen_pods and gang.workload is not None and not has_made_pods(gang.workload)

    def _silent_node(self, gang: Gang) -> str:
        """Name of a node with an active pod whose kubelet does not report; empty if there is none.

        The other pods notice the loss of such a node before Kubernetes acts on it.
        """
        silent = silent_nodes(self.pass_.observed.nodes or ())
        names = (str(pod["spec"].get("nodeName", "")) for pod in gang.active)
        return next((name for name in names if name in silent), "")

    def _stop(self, gang: Gang, outcome: Outcome, message: str, node: str = "") -> StageView:
        """Stop a running attempt for a reason of ours; its pods get the time to save."""
        assert gang.workload is not None
        end_attempt(self.pass_, outcome, message, gang.first_ending, node=node)
        self.pass_.delete(gang.workload, message)
        self.pass_.requeue_after(SHORT_WAIT_S)
        return self._view_of_stopping(gang)

    # --- an attempt has ended -------------------------------------------------------------------

    def _advance_ended(self, gang: Gang) -> StageView:
        """Wait for the pods of an attempt that has ended, then begin the next."""
        pass_, outcome = self.pass_, self.attempt.outcome
        if outcome == "Succeeded":
            return self._finish(gang)
        workload = gang.workload
        if workload is not None and not gang.pods and may_still_start(workload):
            pass_.delete(workload, f"attempt {self.attempt.number}: {outcome}")
            pass_.requeue_after(SHORT_WAIT_S)
            return self._view_of_stopping(gang)
        if workload is not None and gang.active:  # nobody else ends what is left of it
            note_others(pass_, gang)
            pass_.delete(workload, f"attempt {self.attempt.number}: {outcome}")
        elif workload is not None and gang.stuck:  # it would wait for ever for a lost node
            pass_.delete(workload, f"{name_of(gang.stuck[0])} does not end", at_once=True)
        elif workload is not None and is_being_deleted(workload):
            pass_.requeue_after(SHORT_WAIT_S)
            return self._view_of_stopping(gang)
        if gang.active:
            pass_.requeue_after(SHORT_WAIT_S)
            return self._view_of_stopping(gang)
        if outcome == "UserError" and self.attempt.number > pass_.forgiven_attempts:
            ending = gang.first_ending_that(lambda one: outcome_of(one) == "UserError")
            reason = ending.reason if ending and ending.reason.isalnum() else "UserError"
            return self._fail_job(reason, self.attempt.message)
        return self._begin_next(gang)

    def _finish(self, gang: Gang) -> StageView:
        """Wait for the pods of an attempt that has succeeded; those that do not end must not keep their GPUs.

        Where the number of steps has grown since it began, another attempt does the rest.
        """
        if gang.active:
            age = seconds_since(self.attempt.finish_time, self.pass_.now)
            grace_s = STUCK_AFTER_S if gang.working else self.pass_.settings.sidecar_grace_seconds
            if gang.workload is not None and age > grace_s:
                note_others(self.pass_, gang)
                self.pass_.delete(gang.workload, f"{', '.join(gang.active_names)} did not end")
            self.pass_.requeue_after(SHORT_WAIT_S)
            return self._view_of_stopping(gang)
        if (self.attempt.steps or 0) < steps_of(self.stage) and self.attempt.steps is not None:
            return self._begin_next(gang)
        return StageView("Succeeded", "Trained", ending=gang.first_ending, workload=gang.workload)

    def _view_of_stopping(self, gang: Gang) -> StageView:
        number, outcome = self.attempt.number, self.attempt.outcome
        pods = ", ".join(gang.active_names) or "its workload"
        known = f" ({outcome})" if outcome != "Running" else ""
        message = f"attempt {number}{known} ends: waits for {pods}"
        return StageView("Waiting", "Stopping", message, workload=gang.workload)


def _last_words(attempt: Attempt) -> str:
    return f"{attempt.outcome}: {attempt.message}"
