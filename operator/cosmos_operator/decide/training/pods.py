"""The pods of one attempt as one gang: who leads, who is left, how they ended. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from cosmos_operator.api.labels import ATTEMPT_LABEL, JOB_LABEL
from cosmos_operator.api.status import Attempt
from cosmos_operator.decide.endings import explain
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.decide.training.outcomes import CONSEQUENCES, classify
from cosmos_operator.decide.training.progress import (
    LogFacts,
    read_log,
)
from cosmos_operator.kube.containers import kept_alive_by
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import labels_of, name_of, parse_time
from cosmos_operator.kube.pods import (
    Ending,
    deleted_at,
    ending_of,
    is_over,
    is_stuck,
    is_terminating,
)
from cosmos_operator.plan.backend import BACKENDS, Backend
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.training_run import run_address
from cosmos_worker.config.stages import TrainConfig


@dataclass(frozen=True)
class Gang:
    """The workload, the pods and the log of one attempt."""

    workload: Manifest | None
    pods: tuple[Manifest, ...]
    leader: Manifest | None
    """The pod of rank 0."""
    active: tuple[Manifest, ...]
    """Pods that have not ended and are not stuck, whatever keeps them."""
    stuck: tuple[Manifest, ...]
    """Pods that should have ended long ago: their nodes do not answer, and nobody knows when they will."""
    endings: tuple[Ending, ...]
    facts: LogFacts
    """Facts in the leader's log."""
    has_log: bool
    """True if the leader's log could be read."""
    last_words: tuple[Ending, ...] = ()
    """Endings of pods that are gone by now, which tell the last step and the last save."""

    @property
    def working(self) -> tuple[Manifest, ...]:
        """Active pods whose workers have not ended: others are kept by containers that are not ours."""
        return tuple(pod for pod in self.active if not kept_alive_by(pod))

    @property
    def kept(self) -> tuple[Manifest, ...]:
        """Active pods whose workers have ended, and that other containers keep."""
        return tuple(pod for pod in self.active if kept_alive_by(pod))

    @property
    def active_names(self) -> list[str]:
        """Names of the pods that have not ended."""
        return [name_of(pod) for pod in self.active]

    @property
    def first_ending(self) -> Ending | None:
        """The leader's ending, otherwise that of another pod; None if no pod has ended."""
        return self.leader_ending or next(iter(self.endings), None)

    @property
    def leader_ending(self) -> Ending | None:
        """The end of the leader's worker; None if it has not ended."""
        return _read_ending(self.leader) if self.leader is not None else None

    @property
    def note(self) -> str:
        """A note of the worker for people, in its log or in its result; empty if there is none."""
        ending = self.first_ending
        return self.facts.note or str(((ending.result or {}) if ending else {}).get("note", ""))

    @property
    def leaving(self) -> Manifest | None:
        """A pod that somebody takes away while the others still run; None if there is none."""
        return next((pod for pod in self.pods if is_terminating(pod)), None)

    @property
    def has_failed_by_itself(self) -> bool:
        """True if a pod that nobody took away has failed, and not merely because others were taken away."""
        own = [_read_ending(pod) for pod in self.pods if "deletionTimestamp" not in pod["metadata"]]
        verdict = classify(ending for ending in own if ending is not None)
        if verdict is None:
            return False
        return verdict.outcome not in CONSEQUENCES or (
            verdict.outcome == "PeerLost" and self._ended_before_any_was_deleted(verdict.ending)
        )

    def _ended_before_any_was_deleted(self, ending: Ending) -> bool:
        deleted = [when for pod in self.pods if (when := deleted_at(pod)) is not None]
        if not deleted or ending.finish_time is None:
            return False
        return parse_time(ending.finish_time) <= min(deleted)

    def first_ending_that(self, fits: Callable[[Ending], bool]) -> Ending | None:
        """The first ending that fits; None if none does."""
        return next((ending for ending in self.endings if fits(ending)), None)

    def run_address(self, stage: Stage) -> str:
        """Volume address of the folder of the training run."""
        assert isinstance(stage.document, TrainConfig)
        return run_address(stage.document)


def read_gang(pass_: Pass, backend: Backend, attempt: Attempt) -> Gang:
    """The workload, the pods and the log of one attempt, among what was observed."""
    used = BACKENDS.get(attempt.backend, backend)
    workload = pass_.observed.get(used.kind, attempt.workload)
    if workload is not None and not pass_.owns(workload):
        workload = None
    labels = {JOB_LABEL: pass_.job.name, ATTEMPT_LABEL: str(attempt.number)}
    pods = pass_.observed.pods_with(labels)
    if workload is None:  # pods of an earlier job of the same name say nothing about this one
        pods = tuple(pod for pod in pods if not is_over(pod))
    leaders = [
        pod for pod in pods if used.leader_labels.items() <= pod["metadata"]["labels"].items()
    ]
    leader = next((pod for pod in leaders if not is_over(pod)), next(iter(leaders), None))
    text = pass_.observed.logs.get(name_of(leader)) if leader is not None else None
    going = [pod for pod in pods if not is_over(pod)]
    stuck = tuple(pod for pod in going if is_stuck(pod, pass_.now))
    active = tuple(pod for pod in going if pod not in stuck)
    endings = tuple(ending for pod in pods if (ending := _read_ending(pod)) is not None)
    facts = read_log(text or "")
    last_words = tuple(_read_last_words(pass_, attempt, labels))
    return Gang(workload, pods, leader, active, stuck, endings, facts, text is not None, last_words)


def _read_last_words(pass_: Pass, attempt: Attempt, labels: Mapping[str, str]) -> Iterator[Ending]:
    """Endings of the attempt's pods that have gone; not of those of an earlier job of the same name."""
    if attempt.start_time is None:
        return
    began = parse_time(attempt.start_time)
    for pod in pass_.observed.departed_pods:
        is_own = labels.items() <= labels_of(pod).items()
        if is_own and parse_time(pod["metadata"]["creationTimestamp"]) >= began:
            ending = _read_ending(pod)
            if ending is not None:
                yield ending


def _read_ending(pod: Manifest) -> Ending | None:
    """The end of the worker in a training pod, explained; None if it has not ended."""
    ending = ending_of(pod)
    return explain(ending, "train") if ending is not None else None
