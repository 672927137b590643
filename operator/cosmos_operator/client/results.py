"""Results of a job: the model, the report and the videos that its status names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from cosmos_operator.kube.kinds import Manifest

Part = Literal["model", "report", "videos"]
PARTS: tuple[Part, ...] = ("model", "report", "videos")
CHECKPOINTS = re.compile(r"^checkpoints://(?P<path>[^/].*)$")
"""Address on the volume that holds all results."""


@dataclass(frozen=True)
class Result:
    """A result of a job on its volume."""

    part: Part
    name: str
    """Name of the result: model, report, or the name of the inference item."""
    address: str
    """Volume address of the file or folder, as the job's status has it."""
    path: str
    """Path of what belongs to the result, in the folder of the volume checkpoints: of the report a file, otherwise a
    folder."""


def results_of(job: Manifest) -> list[Result]:
    """The results that a job has by now: what it has published, and the videos of items that have succeeded."""
    return list(_results(job.get("status") or {}))


def _results(status: Manifest) -> Iterator[Result]:
    for output in status.get("outputs") or ():
        name, address = str(output["name"]), str(output["address"])
        path = _path_of(address)
        if path is None or name not in ("model", "report"):
            continue
        if name == "model":
            yield Result("model", name, address, str(PurePosixPath(path).parent))
        else:
            yield Result("report", name, address, path)
    for item in status.get("inference") or ():
        address = str(item.get("address") or "")
        path = _path_of(address)
        if path is not None and item.get("state") == "Succeeded":
            yield Result("videos", str(item["name"]), address, path)


def _path_of(address: str) -> str | None:
    """Path in the volume; None for an address that lies elsewhere or leaves the volume."""
    found = CHECKPOINTS.match(address)
    if found is None or ".." in PurePosixPath(found["path"]).parts:
        return None
    return found["path"].rstrip("/")
