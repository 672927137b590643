"""Content of the page of one job: its figures, warnings, files and configuration. Makes no HTML."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.config.documents import load_yaml
from cosmos_worker.config.presets import EXPERIMENTS
from cosmos_worker.errors import ConfigError, DataError
from cosmos_worker.report.dataset import describe_losses, read_dataset
from cosmos_worker.storage.volumes import (
    ADDRESS,
    BEST_FILE,
    CHANGES_FILE,
    EXPORT_FOLDER,
    RESOLVED_CONFIG_FILE,
    SUMMARY_FILE,
    WORDS_FILE,
)
from cosmos_worker.view.figures import Line, curve, number_of
from cosmos_worker.view.folders import Folders
from cosmos_worker.view.jobs import Job, find_published, find_reports

WEIGHT_ENDINGS = (".pt", ".safetensors", ".json", ".bin", ".jit", ".pth")
MAX_FILES = 200
HELD_OUT = ("validation_loss", "validation_loss_ema")


@dataclass(frozen=True)
class File:
    """A file to download: its name for people, its address and its size."""

    name: str
    address: str
    size_bytes: int


@dataclass(frozen=True)
class Difference:
    """An option that has other values: its path, and a value a column; None = it is absent there."""

    name: str
    values: tuple[str | None, ...]


# --- configuration ---------------------------------------------------------------------------


def read_config(folders: Folders, run: Path) -> dict[str, Any]:
    """The resolved configuration of a run; empty if it is absent or cannot be read."""
    path = run / RESOLVED_CONFIG_FILE
    folders.counts["files"] += 1
    if path.is_symlink():
        return {}
    try:
        document = load_yaml(path)
    except ConfigError:
        return {}
    return document if isinstance(document, dict) else {}


def flat(value: Any, prefix: str = "") -> dict[str, str]:  # noqa: ANN401 - any YAML value
    """The values of a document by dotted path, as JSON."""
    if isinstance(value, Mapping) and value:
        found: dict[str, str] = {}
        for name, inner in value.items():
            found |= flat(inner, f"{prefix}.{name}" if prefix else str(name))
        return found
    return {prefix: json.dumps(value, ensure_ascii=False, default=str)}


def differences(documents: Sequence[Mapping[str, str]]) -> list[Difference]:
    """Options that not all documents have with the same value, by name.

    Args:
        documents: of `flat`.
    """
    names = sorted({name for one in documents for name in one})
    rows = [Difference(name, tuple(one.get(name) for one in documents)) for name in names]
    return [row for row in rows if len(set(row.values)) > 1]


def changes_of_preset(config: Mapping[str, Any]) -> tuple[str, list[Difference]] | None:
    """Name of the run's preset, and the options that the run has other values of; None if there is no such preset."""
    experiment = config.get("experiment")
    if not isinstance(experiment, dict) or experiment.get("name") not in EXPERIMENTS:
        return None
    name = str(experiment["name"])
    preset = EXPERIMENTS[name].model_dump(mode="json")
    return name, differences([flat(preset), flat(experiment)])


# --- quality and warnings --------------------------------------------------------------------


def held_out_rows(lines: Sequence[Line], best: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Held-out losses by step, the latest first: step, values by name, and True for the best checkpoint."""
    rows: dict[int, dict[str, float]] = {}
    for name in HELD_OUT:
        for step, value in curve(lines, name):
            rows.setdefault(int(step), {})[name] = value
    chosen = number_of(dict(best), "step")
    return [
        {"step": step, "values": rows[step], "is_best": chosen == step}
        for step in sorted(rows, reverse=True)
    ]


def read_best(folders: Folders, run: Path) -> dict[str, Any]:
    """The checkpoint with the lowest held-out loss, as the training has noted it; empty if it notes none."""
    return folders.json_object(run / EXPORT_FOLDER / BEST_FILE)


def warnings_of(folders: Folders, job: Job, config: Mapping[str, Any]) -> list[str]:
    """Sentences on what somebody should know: captions, dropped clips, stretched videos, a network that stayed."""
    if job.run is None:
        return []
    return [
        *_of_captions(job.run),
        *_of_dataset(dataset_of(folders, job, config)),
        *_of_change(folders.json_object(job.run / CHANGES_FILE)),
    ]


def _of_captions(run: Path) -> list[str]:
    if (run / WORDS_FILE).is_symlink():
        return []
    try:
        return describe_losses(run)
    except (DataError, OSError) as error:
        return [f"{error}."]


def _of_dataset(folder: Path | None) -> list[str]:
    if folder is None or (folder / SUMMARY_FILE).is_symlink():
        return []
    try:
        return read_dataset(folder).warnings
    except (DataError, OSError) as error:
        return [f"{error}."]


def _of_change(changes: Mapping[str, Any]) -> Iterator[str]:
    """See ``is_unchanged`` in weights/weight_change.py, which imports torch."""
    steps = [step for step in changes if str(step).isdecimal()]
    last = changes[max(steps, key=int)] if steps else {}
    taken = (last.get("reg") or last.get("ema") or {}) if isinstance(last, dict) else {}
    if isinstance(taken, dict) and taken.get("network") == 0:
        yield (
            "Nothing was trained: the network equals the one that the training began with. Look at the learning "
            "rate, its warm-up and the gradient norm."
        )


def dataset_of(folders: Folders, job: Job, config: Mapping[str, Any]) -> Path | None:
    """The folder of the dataset's index that a run was trained on; None if it is not in the folder that is shown."""
    address = config.get("dataset_uri")
    match = ADDRESS.match(address) if isinstance(address, str) else None
    if match is None or match["volume"] != "datasets":
        return None
    shown = folders.address_of(job.folder.parent.parent / "datasets" / match["path"])
    if shown is None or not folders.is_shown(f"{shown}/{SUMMARY_FILE}"):
        return None
    return folders.path_of(shown)


# --- files -----------------------------------------------------------------------------------


def files_of(folders: Folders, job: Job) -> list[File]:
    """Weights of the run and of the models that it has published, and its reports."""
    found = [_file(folders, path, "report") for path in find_reports(folders, job)]
    places = [("published", folder) for folder in find_published(folders, job)]
    if job.run is not None:
        places.append(("run", job.run / EXPORT_FOLDER))
    for kind, folder in places:
        names = [Path(one.path) for one in folders.entries(folder) if one.is_file()]
        weights = sorted(path for path in names if path.name.endswith(WEIGHT_ENDINGS))
        found += [_file(folders, path, f"{kind} {folder.name}") for path in weights]
    return [one for one in found if one is not None][:MAX_FILES]


def _file(folders: Folders, path: Path, kind: str) -> File | None:
    address = folders.address_of(path)
    try:
        size = path.stat().st_size
    except OSError:
        return None
    return None if address is None else File(f"{kind}: {path.name}", address, size)
