"""Rights that a service account has used, from the audit log of an API server, beside those that it was given."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Right = tuple[str, str, str]
"""API group, resource with its subresource if it has one, and verb."""
NEVER_REQUESTED: dict[Right, str] = {
    ("cosmos.dev", f"{plural}/finalizers", "update"): "asked for by the admission plugin "
    "OwnerReferencesPermissionEnforcement when an object names a job as its owner"
    for plural in ("posttrainingjobs", "inferencejobs")
}
"""Rights of which no request tells, and what they are for."""


def used_rights(files: Iterable[Path], user: str) -> set[Right]:
    """The rights that a user has used.

    Args:
        files: of the audit log, one event of ``audit.k8s.io`` as JSON a line; a line that is not whole yet is left out.
        user: name of the user, such as ``system:serviceaccount:lab:cosmos-operator``.
    """
    found: set[Right] = set()
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                event = _event(line)
                if event is not None and _is_allowed_to(event, user):
                    found.add(_right(event))
    return found


def _event(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) else None


def _is_allowed_to(event: dict[str, Any], user: str) -> bool:
    """True for a request of the user that was not refused for want of rights; 404 and 409 are uses as well."""
    if (event.get("user") or {}).get("username") != user or "objectRef" not in event:
        return False
    return bool((event.get("responseStatus") or {}).get("code", 200) not in (401, 403))


def _right(event: dict[str, Any]) -> Right:
    target = event["objectRef"]
    below = f"/{target['subresource']}" if target.get("subresource") else ""
    return target.get("apiGroup", ""), f"{target['resource']}{below}", str(event["verb"])


def granted_rights(roles: Iterable[dict[str, Any]]) -> set[Right]:
    """The rights that roles give.

    Args:
        roles: Role or ClusterRole manifests without wildcards.
    """
    return {
        (group, resource, verb)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def unused_rights(granted: set[Right], used: set[Right]) -> list[str]:
    """The rights that were given and never used, one line each, without NEVER_REQUESTED."""
    return [
        f"{verb} {resource}{'.' + group if group else ''}"
        for group, resource, verb in sorted(granted - used - NEVER_REQUESTED.keys())
    ]
