"""The requests that the operator sends to a Kubernetes API server; it uses nothing else of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from cosmos_operator.kube.kinds import Manifest

WEBHOOK_FAILED = "failed calling webhook"
"""Words of an API server that cannot reach an admission webhook."""
UNKNOWN_FIELD = "field not declared in schema"
"""Words of an API server that does not know a field that is applied; it calls that an error of its own."""
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

    async def add_owner(
        self, kind: str, namespace: str, name: str, owner: Manifest, *, uid: str
    ) -> Manifest | None:
        """Add an owner reference to the object with this uid; returns it as it is now, or None if it is gone."""

    async def remove_owner(
        self,
        kind: str,
        namespace: str,
        name: str,
        owner_uid: str,
        *,
        uid: str,
        resource_version: str,
    ) -> Manifest | None:
        """Remove an owner reference of the object with this uid; nothing happens if it has another version now.

        Returns:
            The object as it is now; None if nothing happened.

        Args:
            kind: its kind.
            namespace: its namespace.
            name: its name.
            owner_uid: uid of the owner.
            uid: its identity.
            resource_version: version in which its other owners were seen.
        """

    async def annotate(
        self, kind: str, namespace: str, name: str, annotations: Mapping[str, str], *, uid: str
    ) -> Manifest | None:
        """Set annotations of the object with this uid; returns it as it is now, or None if it is gone."""

    async def report_progress(
        self, kind: str, namespace: str, name: str, trainer_status: Manifest, *, uid: str
    ) -> None:
        """Write ``status.trainerStatus`` of the TrainJob with this uid; nothing happens if it is gone."""

    async def delete(
        self,
        kind: str,
        namespace: str,
        name: str,
        uid: str,
        *,
        foreground: bool,
        resource_version: str = "",
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
            resource_version: version that is to be deleted: nothing happens if it has another now; empty = any.
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

    async def dry_run(self, manifest: Manifest) -> Manifest:
        """Create an object without storing it; returns the object as the API server would store it."""

    async def served(self) -> frozenset[str]:
        """The ``OPTIONAL_KINDS`` that the API server has now."""

    async def served_schema(self, kind: str) -> Manifest | None:
        """The schema of a kind as the API server has it; None if it does not tell."""
