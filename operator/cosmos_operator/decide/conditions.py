"""The conditions of a job while a pass decides on them. Pure."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

from cosmos_operator.api.status import Condition, ConditionType, ConditionWord
from cosmos_operator.kube.objects import format_time

ORDER: tuple[ConditionType, ...] = typing.get_args(ConditionWord)
MAX_MESSAGE = 4096
Answer = Literal["True", "False", "Unknown"]


class Conditions:
    """Conditions by type.

    Args:
        previous: those of the last pass.
        now: time of this pass.
        generation: generation of the job that this pass is about.
    """

    def __init__(self, previous: Iterable[Condition], now: datetime, generation: int) -> None:
        self._found = {condition.type: condition for condition in previous}
        self._previous = dict(self._found)
        self._now, self._generation = format_time(now), generation

    def set(self, kind: ConditionType, status: Answer, reason: str, message: str = "") -> None:
        """Set a condition; its transition time moves only if its status differs from that of the last pass."""
        before = self._previous.get(kind)
        since = before.last_transition_time if before and before.status == status else self._now
        self._found[kind] = Condition.model_construct(
            type=kind,
            status=status,
            reason=reason,
            message=message[:MAX_MESSAGE],
            last_transition_time=since,
            observed_generation=self._generation,
        )

    def get(self, kind: ConditionType) -> Condition | None:
        """The condition as it is so far; None if it was never set."""
        return self._found.get(kind)

    def is_true(self, kind: ConditionType) -> bool:
        """True if the condition's status is True."""
        found = self._found.get(kind)
        return found is not None and found.status == "True"

    def is_current(self, kind: ConditionType) -> bool:
        """True if the condition was set for the present specification of the job, not for an earlier one."""
        found = self._found.get(kind)
        return found is not None and found.observed_generation == self._generation

    def all(self) -> tuple[Condition, ...]:
        """All conditions, in the order in which a job goes through them."""
        return tuple(self._found[kind] for kind in ORDER if kind in self._found)
