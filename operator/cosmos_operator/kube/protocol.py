"""The requests that the operator sends to a Kubernetes API server; it uses nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cosmos_operator.kube.kinds import Manifest

FIELD_MANAGER = "cosmos-operator"
"""Name under which the API server records the fields that the operator writes."""


class Cluster(Protocol):
    """A Kubernetes API server.

    Every method may raise ``ClusterUnavailable`` (try again later); those that write may raise ``Refused`` (the
    server rejects the request and says why). Kinds are those of ``kinds.KINDS``.
    """

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """An object, or None if it is absent or its kind is not served."""

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: str = "",
    ) -> list[Manifest]:
        """All objects with these labels and this field selector; empty if the kind is not served."""

    async def create(self, manifest: Manifest) -> Manifest | None:
        """Create an object; returns it as it is now, or None if one of that name exists already."""

    async def add_owner(self, kind: str, namespace: str, name: str, owner: Manifest) -> Manifest:
        """Add an owner reference to an object, beside those that it has; returns the object as it is now."""

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool
    ) -> Manifest | None:
        """Delete the object with this uid; nothing happens if it is gone.

        Returns:
            The object, if it stays for a while, marked as being deleted; None if it is gone.

        Args:
            kind: its kind.
            namespace: its namespace.
            name: its name.
            uid: its identity: an object that was created anew under the name is left alone.
            foreground: True keeps the object, marked as being deleted, until all that it owns has gone; False deletes
                it at once, and what it owned afterwards.
        """

    async def apply_status(self, manifest: Manifest) -> Manifest:
        """Replace the status of a job by server-side apply; returns the job as it is now.

        Raises:
            Conflict: the job is no longer at the resourceVersion in the manifest.
        """

    async def create_event(self, manifest: Manifest) -> None:
        """Create an Event."""

    async def read_log(
        self, namespace: str, pod: str, container: str, tail_lines: int
    ) -> str | None:
        """The last lines of a container's log; None if there is no log yet, or no longer."""

    async def served(self) -> frozenset[str]:
        """The ``OPTIONAL_KINDS`` that the API server has now."""
