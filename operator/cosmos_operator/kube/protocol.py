"""What the operator asks of a Kubernetes API server. Nothing else of it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

Manifest = dict[str, Any]

FIELD_MANAGER = "cosmos-operator"
"""Owner of the fields that the operator writes by server-side apply."""


class Cluster(Protocol):
    """A Kubernetes API server.

    Every method may raise ``ClusterUnavailable`` (try again later); those that write may raise ``Refused``
    (the server says no, and why). Kinds are those of ``kinds.KINDS``.
    """

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None if it is absent or its kind is not served."""

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: str = "",
    ) -> list[Manifest]:
        """All objects with these labels; empty if the kind is not served."""

    async def create(self, manifest: Manifest) -> bool:
        """Create an object; False if one of that name exists already."""

    async def add_owner(self, kind: str, namespace: str, name: str, owner: Manifest) -> None:
        """Add an owner reference to an object, beside those that it has."""

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool
    ) -> None:
        """Delete the object with this uid; nothing happens if it is gone.

        Args:
            kind: its kind.
            namespace: its namespace.
            name: its name.
            uid: its identity: an object that was made anew under the name is left alone.
            foreground: it stays, marked as being deleted, until all that it owns has gone.
        """

    async def apply_status(self, manifest: Manifest) -> None:
        """Replace the status of a PostTrainingJob by server-side apply."""

    async def record_event(self, manifest: Manifest) -> None:
        """Write an Event."""

    async def read_log(
        self, namespace: str, pod: str, container: str, tail_lines: int
    ) -> str | None:
        """The last lines of a container's log, or None if there is no log (yet, or any more)."""

    async def served(self) -> frozenset[str]:
        """The optional kinds that the API server has now."""
