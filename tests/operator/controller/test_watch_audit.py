from __future__ import annotations

import pytest

from cosmos_operator.controller.watch_audit import (
    MIN_AGE_S,
    WatchAudit,
)

LATER = MIN_AGE_S


class Audit(WatchAudit):
    """Pods of one namespace."""

    def tell(self, name: str, version: str, now: float, *, is_deleted: bool = False) -> None:
        self.note("Pod", "default", name, f"uid-{name}", version, now, is_deleted=is_deleted)

    def list(self, now: float, **versions: str) -> None:
        listed = [
            {"metadata": {"namespace": "default", "name": name, "uid": f"uid-{name}",
                          "resourceVersion": version}}
            for name, version in versions.items()
        ]  # fmt: skip
        self.audit("Pod", listed, now)

    def lag(self, now: float) -> float:
        return self.lag_seconds("Pod", now)


@pytest.fixture
def audit() -> Audit:
    return Audit()


def test_watch_that_delivers_everything_does_not_lag(audit):
    audit.tell("a", "5", 0)
    audit.list(1, a="5")
    audit.list(1 + LATER, a="5")

    assert audit.lag(1000) == 0


def test_change_without_an_event_is_lag_only_at_the_second_audit(audit):
    audit.tell("a", "5", 0)
    audit.list(10, a="6")
    assert audit.lag(10 + 2 * LATER) == 0

    audit.list(10 + LATER, a="6")

    assert audit.lag(50 + LATER) == 40 + LATER


def test_audits_soon_after_another_do_not_confirm(audit):
    audit.tell("a", "5", 0)
    audit.list(10, a="6")
    audit.list(10 + LATER - 1, a="6")

    assert audit.lag(1000) == 0


def test_object_that_always_changes_is_no_lag_while_events_come(audit):
    for index in range(20):
        now = index * LATER
        audit.tell("a", str(index), now - 1)
        audit.list(now, a=str(index + 1))

        assert audit.lag(now) == 0


def test_new_object_without_an_event_is_lag(audit):
    audit.list(0)
    audit.list(10, a="1")
    audit.list(10 + LATER, a="1")

    assert audit.lag(10 + LATER) == LATER


def test_late_event_ends_the_lag(audit):
    audit.list(0, a="1")
    audit.list(LATER, a="1")
    assert audit.lag(LATER) == LATER

    audit.tell("a", "1", LATER + 1)

    assert audit.lag(LATER + 1) == 0


def test_object_gone_without_an_event_is_forgotten(audit):
    audit.tell("a", "1", 0)
    audit.list(10)
    audit.list(10 + LATER)

    assert audit.lag(1000) == 0


def test_list_from_before_a_deletion_is_no_lag(audit):
    audit.tell("a", "1", 0)
    audit.tell("a", "2", 11, is_deleted=True)
    audit.list(10, a="1")
    audit.list(10 + LATER)

    assert audit.lag(1000) == 0


def test_object_made_anew_is_another_one(audit):
    audit.tell("a", "1", 0)
    audit.note("Pod", "default", "a", "uid-new", "9", 5)
    audit.list(6, a="1")

    audit.list(6 + LATER, a="1")
    assert audit.lag(1000) == 0


def test_forgotten_kind_begins_anew(audit):
    audit.tell("a", "1", 0)
    audit.list(0, a="2")
    audit.forget("Pod")

    audit.list(LATER, a="2")

    assert audit.lag(1000) == 0, "what was owed before is not owed any more"
