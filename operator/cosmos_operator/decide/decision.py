"""What a pass decides: actions on the cluster, the new status, events, and when to look again. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Create:
    """Create an object, unless one of that name exists."""

    manifest: Manifest


@dataclass(frozen=True)
class AddOwner:
    """Make the job a further owner of an object that jobs share."""

    kind: str
    name: str
    owner: Manifest


@dataclass(frozen=True)
class Delete:
    """Delete an object."""

    kind: str
    name: str
    uid: str
    why: str
    foreground: bool = True
    """Everything that it owns goes before it; otherwise it goes at once, and what it owned as soon as it can."""


Action = Create | AddOwner | Delete


@dataclass(frozen=True)
class Event:
    """Something that happened, for ``kubectl describe``."""

    reason: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True)
class Decision:
    """The result of a pass."""

    actions: tuple[Action, ...] = ()
    status: Manifest | None = None
    """The whole new status, or None to leave it."""
    events: tuple[Event, ...] = ()
    requeue_after_s: float | None = None
    """Look again after this many seconds even if nothing is reported; None = only when something is."""
