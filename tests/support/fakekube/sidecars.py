"""Containers that other software puts into pods, such as the proxy of a service mesh: injected as a webhook does."""

from __future__ import annotations

from dataclasses import dataclass

from cosmos_operator.api.labels import STAGE_LABEL
from support.fakekube.resources import Object

COMMAND = "sidecar"
"""Program of such a container: runs until SIGTERM, then ends with the exit code that it is given."""


@dataclass(frozen=True)
class Sidecar:
    """A container in new pods of a stage, before the worker's, that ends only on SIGTERM."""

    stage: str
    """Stage, such as train."""
    name: str = "istio-proxy"
    exit_code: int = 0
    """Exit code after SIGTERM."""


def inject(pod: Object, sidecars: list[Sidecar]) -> None:
    """Put the containers for a pod's stage into it."""
    labels = pod["metadata"].get("labels", {})
    containers = pod["spec"]["containers"]
    image = main_container(pod)["image"]
    for sidecar in sidecars:
        if sidecar.stage == labels.get(STAGE_LABEL):
            command = [COMMAND, str(sidecar.exit_code)]
            containers.insert(0, {"name": sidecar.name, "image": image, "command": command})


def main_container(pod: Object) -> Object:
    """The container whose program a node runs."""
    found: Object = next(one for one in pod["spec"]["containers"] if not _is_sidecar(one))
    return found


def sidecars_of(pod: Object) -> list[tuple[str, int]]:
    """Name and final exit code of the other containers of a pod."""
    return [
        (one["name"], int(one["command"][1]))
        for one in pod["spec"]["containers"]
        if _is_sidecar(one)
    ]


def _is_sidecar(container: Object) -> bool:
    return bool(container.get("command", [""])[:1] == [COMMAND])
