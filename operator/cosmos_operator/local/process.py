"""Manifests → processes on this machine: claims become folders, ConfigMaps become files, a pod becomes a process.

Only manifests are read, never the plan, so that exactly what a cluster would run is run here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cosmos_operator.api.labels import DEPENDS_ANNOTATION, KEY_LABEL, STAGE_LABEL
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.pod import CONFIG_FILE, PROGRAM
from cosmos_worker.runtime.outcome import TERMINATION_VARIABLE
from cosmos_worker.storage.volumes import (
    Volumes,
    atomic_write,
    read_marker,
)

CONFIG_VOLUME = "config"
"""Volume with the stage's document; pod templates may bring other ConfigMaps."""
STAGES_FOLDER = "stages"
TERMINATION_FILE = "termination.json"


@dataclass(frozen=True)
class StageProcess:
    """One stage as a process of this machine."""

    stage: str
    kind: str
    key: str
    depends_on: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    """Folder of the stage's document and of its termination message."""
    target: Path
    """Folder that the stage writes its result to."""

    @property
    def termination_file(self) -> Path:
        """File in which the worker writes why it ended."""
        return self.folder / TERMINATION_FILE

    def result(self) -> dict[str, Any] | None:
        """Result of the stage; None if it has not finished."""
        marker = read_marker(self.target, self.key)
        return None if marker is None else marker["result"]


def build_processes(manifests: Iterable[Manifest], workspace: Path) -> tuple[StageProcess, ...]:
    """The workloads among the manifests as processes, in an order in which they can run."""
    manifests = list(manifests)
    documents = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}
    processes = [
        _build_process(manifest, documents, workspace)
        for manifest in manifests
        if manifest["kind"] in ("Job", "PyTorchJob")
    ]
    return order(processes)


def order(processes: Sequence[StageProcess]) -> tuple[StageProcess, ...]:
    """Each process after those that it depends on, otherwise in the order given.

    Raises:
        ValueError: a dependency that does not exist, or a cycle.
    """
    waiting, ordered = list(processes), list[StageProcess]()
    while waiting:
        done = {process.stage for process in ordered}
        ready = next((process for process in waiting if done.issuperset(process.depends_on)), None)
        if ready is None:
            names = ", ".join(process.stage for process in waiting)
            raise ValueError(
                f"stages that wait for each other or for a stage that does not exist: {names}"
            )
        waiting.remove(ready)
        ordered.append(ready)
    return tuple(ordered)


def _build_process(
    manifest: Manifest, documents: Mapping[str, Manifest], workspace: Path
) -> StageProcess:
    metadata, pod = manifest["metadata"], pod_spec(manifest)
    stage = metadata["labels"][STAGE_LABEL]
    folder = workspace / STAGES_FOLDER / stage
    folders = _mounted_folders(pod, workspace, folder)
    files = {
        name: _relocate(yaml.safe_load(text), folders)
        for name, text in documents[_config_map_name(pod)].items()
    }
    document = files[CONFIG_FILE]
    for name, content in files.items():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / name, "w") as stream:
            yaml.safe_dump(content, stream, sort_keys=False)
    container = pod["containers"][0]
    environment = _environment(container, pod, folders)
    environment[TERMINATION_VARIABLE] = str(folder / TERMINATION_FILE)
    program, *arguments = _relocate(container["command"], folders)
    start = [sys.executable, "-m", "cosmos_worker.cli"] if program == PROGRAM else [program]
    depends = metadata["annotations"][DEPENDS_ANNOTATION]
    return StageProcess(
        stage=stage,
        kind=arguments[0],
        key=metadata["labels"][KEY_LABEL],
        depends_on=tuple(name for name in depends.split(",") if name),
        command=(*start, *arguments),
        environment=environment,
        folder=folder,
        target=Volumes.from_environment(environment).resolve(document["target_uri"]),
    )


def pod_spec(manifest: Manifest) -> Manifest:
    """The pod of a Job, or of a PyTorchJob's master: one machine is one node."""
    spec = manifest["spec"]
    if manifest["kind"] == "PyTorchJob":
        spec = spec["pytorchReplicaSpecs"]["Master"]
    pod: Manifest = spec["template"]["spec"]
    return pod


def _config_map_name(pod: Manifest) -> str:
    name: str = next(v["configMap"]["name"] for v in pod["volumes"] if v["name"] == CONFIG_VOLUME)
    return name


def _mounted_folders(pod: Manifest, workspace: Path, config_folder: Path) -> dict[str, Path]:
    """Mount path → folder on this machine, of claims (``<workspace>/<claim>/<subPath>``) and the ConfigMap."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    folders = {}
    for mount in pod["containers"][0]["volumeMounts"]:
        volume = volumes[mount["name"]]
        if volume["name"] == CONFIG_VOLUME:
            folders[mount["mountPath"]] = config_folder
        elif "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            folder = workspace / claim / mount.get("subPath", "")
            folder.mkdir(parents=True, exist_ok=True)
            folders[mount["mountPath"]] = folder
    return folders


def _environment(container: Manifest, pod: Manifest, folders: Mapping[str, Path]) -> dict[str, str]:
    """This machine's environment with the container's variables, but for secrets and scratch folders."""
    scratch_volumes = {volume["name"] for volume in pod["volumes"] if "emptyDir" in volume}
    scratch = {m["mountPath"] for m in container["volumeMounts"] if m["name"] in scratch_volumes}
    given = {
        entry["name"]: str(_relocate(entry["value"], folders))
        for entry in container["env"]
        if "value" in entry and entry["value"] not in scratch
    }
    return {**os.environ, **given}


def _relocate(value: Any, folders: Mapping[str, Path]) -> Any:  # noqa: ANN401 - any YAML value
    """A copy in which paths below a mount lie in its folder."""
    if isinstance(value, str):
        for mount_path, folder in folders.items():
            if value == mount_path or value.startswith(f"{mount_path}/"):
                return f"{folder}{value.removeprefix(mount_path)}"
        return value
    if isinstance(value, Mapping):
        return {name: _relocate(inner, folders) for name, inner in value.items()}
    if isinstance(value, list):
        return [_relocate(inner, folders) for inner in value]
    return value
