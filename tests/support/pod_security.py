"""Rules of Pod Security "restricted" applied to a pod, for tests without a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ALLOWED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image",
    "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
SECCOMP = ("RuntimeDefault", "Localhost")


def violations(pod: dict[str, Any]) -> list[str]:
    """Everything in a pod spec that "restricted" does not allow."""
    return [*_of_pod(pod), *(flaw for c in _containers(pod) for flaw in _of_container(pod, c))]


def _containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def _of_pod(pod: dict[str, Any]) -> Iterator[str]:
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(name):
            yield name
    for volume in pod.get("volumes", ()):
        if kinds := set(volume) - {"name"} - ALLOWED_VOLUMES:
            yield f"volume {volume['name']}: {kinds}"


def _of_container(pod: dict[str, Any], container: dict[str, Any]) -> Iterator[str]:
    outer, own = pod.get("securityContext", {}), container.get("securityContext", {})
    both = {**outer, **own}
    name = container["name"]
    if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: may gain privileges"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", ()):
        yield f"{name}: keeps capabilities"
    if set(capabilities.get("add", ())) - {"NET_BIND_SERVICE"}:
        yield f"{name}: adds capabilities"
    if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
        yield f"{name}: may be root"
    if both.get("seccompProfile", {}).get("type") not in SECCOMP:
        yield f"{name}: no seccomp profile"
    if any(port.get("hostPort") for port in container.get("ports", ())):
        yield f"{name}: host port"


# --- OpenShift's restricted-v2 ------------------------------------------------------------------

RESTRICTED_V2_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip
FIRST_ID, NUM_IDS = 1_000_650_000, 10_000
"""Range of user and group numbers of a namespace, which OpenShift chooses."""


def openshift_violations(pod: dict[str, Any]) -> list[str]:
    """Everything in a pod spec that the SecurityContextConstraints restricted-v2 refuse."""
    outer = pod.get("securityContext") or {}
    flaws = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    flaws += [
        f"volume {volume['name']}: {kinds}"
        for volume in pod.get("volumes", ())
        if (kinds := set(volume) - {"name"} - RESTRICTED_V2_VOLUMES)
    ]
    if "fsGroup" in outer and not _is_in_range(outer["fsGroup"]):
        flaws.append(f"fsGroup {outer['fsGroup']}")
    for container in _containers(pod):
        own = container.get("securityContext") or {}
        both, name = {**outer, **own}, container["name"]
        if "runAsUser" in both and not _is_in_range(both["runAsUser"]):
            flaws.append(f"{name}: runAsUser {both['runAsUser']}")
        if own.get("privileged") or own.get("allowPrivilegeEscalation") is True:
            flaws.append(f"{name}: may gain privileges")
        if set(own.get("capabilities", {}).get("add", ())) - {"NET_BIND_SERVICE"}:
            flaws.append(f"{name}: adds capabilities")
        if (both.get("seccompProfile") or {"type": "RuntimeDefault"})["type"] != "RuntimeDefault":
            flaws.append(f"{name}: seccomp profile")
    return flaws


def _is_in_range(number: int) -> bool:
    return FIRST_ID <= number < FIRST_ID + NUM_IDS
