"""The result of a pass: actions on the cluster, the new status, events, the time of the next pass. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosmos_operator.kube.kinds import Manifest


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
    """The owner reference."""
    uid: str = ""
    """Uid of the object: one that was created anew under the name is left alone."""


@dataclass(frozen=True)
class GiveUp:
    """Give up the job's share of an object that jobs share; the last owner deletes it.

    Whether others own it is read anew when this is carried out, and what is then written names the version that was
    read: of two jobs that give up at once, one is refused and tries again, and an object that another job has just
    begun to use stays.
    """

    kind: str
    name: str
    uid: str
    """Uid of the object."""
    owner_uid: str
    """Uid of the job."""
    reason: str
    """Reason for the log."""
    deletes: bool = True
    """False: an object that nobody else owns stays, since others use it all the same."""


@dataclass(frozen=True)
class Delete:
    """Delete an object."""

    kind: str
    name: str
    uid: str
    reason: str
    """Reason for the log."""
    foreground: bool = True
    """True: everything that it owns is deleted before it; False: it is deleted at once, what it owned afterwards."""


@dataclass(frozen=True)
class Annotate:
    """Set annotations of an object."""

    kind: str
    name: str
    uid: str
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class ReportProgress:
    """Write the progress of the training into the status of its TrainJob, where that has a field for it."""

    kind: str
    name: str
    uid: str
    trainer_status: Manifest


Action = Create | AddOwner | GiveUp | Delete | Annotate | ReportProgress


@dataclass(frozen=True)
class Event:
    """Something that happened to the job, for ``kubectl describe``."""

    reason: str
    message: str
    is_warning: bool = False


@dataclass(frozen=True)
class Decision:
    """The result of a pass."""

    actions: tuple[Action, ...] = ()
    status: Manifest | None = None
    """The whole new status; None = the status stays as it is."""
    events: tuple[Event, ...] = ()
    requeue_after_s: float | None = None
    """Seconds after which the job wants another pass even if nothing happens; None = only when something happens."""
    awaits_kind: bool = False
    """True if the job needs a kind that the API server has not, until somebody installs it."""
