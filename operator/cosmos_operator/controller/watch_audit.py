"""Finds dead watches by comparing their events with lists. Pure; the clock is an argument.

A watch that dies silently delivers nothing and reports nothing. So each list is compared with the events so far: an
object that has changed, or has gone, without an event is suspected; if there is still no event at a list that is taken
MIN_AGE_S later, the watch of its kind lags. Objects that have gone without an event are forgotten instead: a watch that
was begun anew is alive, and does not tell what went in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

MIN_AGE_S = 30.0
"""Seconds that an event may take to arrive, with room to spare."""

Identity = tuple[str, str, str]
"""Namespace, name and uid of an object."""


@dataclass
class _Suspect:
    """An object of which a list knew more than the watch had delivered."""

    since: float
    is_confirmed: bool = False


@dataclass
class _Kind:
    """Events and suspicions of one kind."""

    delivered: dict[Identity, str] = field(default_factory=dict)
    """Last resourceVersion in an event, of each object that exists as far as the watch says."""
    deleted: dict[Identity, float] = field(default_factory=dict)
    """Time at which the watch reported that an object has gone: a list that was asked for before may still hold it."""
    suspects: dict[Identity, _Suspect] = field(default_factory=dict)


class WatchAudit:
    """Compares events with lists, for each kind that is watched."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def note(
        self,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        resource_version: str,
        now: float,
        *,
        is_deleted: bool = False,
    ) -> None:
        """Take note of an event, which clears its object of suspicion."""
        state = self._kinds.setdefault(kind, _Kind())
        identity = (namespace, name, uid)
        state.suspects.pop(identity, None)
        if is_deleted:
            state.delivered.pop(identity, None)
            state.deleted[identity] = now
        else:
            state.delivered[identity] = resource_version

    def audit(self, kind: str, listed: Iterable[Mapping[str, Any]], now: float) -> None:
        """Compare a complete list with the events so far.

        Args:
            kind: kind of the objects.
            listed: all objects that the watch covers.
            now: time at which the list was asked for, on the same clock as in ``note``.
        """
        state = self._kinds.setdefault(kind, _Kind())
        versions = {
            _identity(item["metadata"]): item["metadata"]["resourceVersion"] for item in listed
        }
        differing = set(state.delivered) - set(versions)
        differing |= {
            identity
            for identity, version in versions.items()
            if state.delivered.get(identity) != version and state.deleted.get(identity, -inf) < now
        }
        for identity in set(state.suspects) - differing:
            del state.suspects[identity]
        for identity in differing:
            suspect = state.suspects.setdefault(identity, _Suspect(now))
            suspect.is_confirmed |= now - suspect.since >= MIN_AGE_S
            if suspect.is_confirmed and identity not in versions:
                del state.suspects[identity], state.delivered[identity]
        state.deleted = {
            identity: when for identity, when in state.deleted.items() if when > now - MIN_AGE_S
        }

    def lag_seconds(self, kind: str, now: float) -> float:
        """Seconds for which the watch has certainly owed an event; 0 if it owes none."""
        suspects = self._kinds.get(kind, _Kind()).suspects.values()
        return max((now - each.since for each in suspects if each.is_confirmed), default=0.0)

    def forget(self, kind: str) -> None:
        """Forget a kind that is no longer watched, or whose watch is begun anew."""
        self._kinds.pop(kind, None)


def _identity(metadata: Mapping[str, Any]) -> Identity:
    return metadata.get("namespace", ""), metadata["name"], metadata["uid"]
