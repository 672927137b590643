"""Volume addresses, names of files on volumes, atomic writes and completion markers.

A stage document names files by *volume address*, ``models://Cosmos-Tiny/model.pt``, so that the same document
works in a pod (volume = mounted claim) and on one machine (volume = folder). Plain paths are accepted as well,
for running a stage by hand. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cosmos_worker.config.choices import FOLDER_PATTERN, PATH_PATTERN
from cosmos_worker.errors import ConfigError

logger = logging.getLogger(__name__)

VOLUMES = ("models", "datasets", "embeddings", "checkpoints")
ADDRESS = re.compile(r"^(?P<volume>[a-z][a-z0-9+.-]*)://(?P<path>.*)$")
TEMPORARY = re.compile(r"^\.(?P<name>.+)\.[a-z0-9_]{8}\.tmp$")
"""Names that ``atomic_write`` makes; the eight characters are those of ``tempfile.mkstemp``."""

MODEL_FILE = "model.pt"
WEIGHT_SUFFIXES = (".pt", ".safetensors")
"""Endings of a model's weights in one file."""
DESCRIPTION_FILE = "model.json"
ENCODER_FILE = "encoder.jit"
DECODER_FILE = "decoder.jit"
MEAN_STD_FILE = "mean_std.pt"
FILTER_FILE = "video_content_safety_filter/safety_filter.pt"
FACE_FILE = "face_blur_filter/Resnet50_Final.pth"
CUSTOM_WORDS, EXACT_WORDS, WHITELIST = WORD_LISTS = (
    "blocklist/custom",
    "blocklist/exact_match",
    "blocklist/whitelist",
)
VIDEO_READER_VERSION = 2
"""Raised with each version that reads other frames from the same file: results of earlier ones are not used again.
1 was decord 0.6, which began windows of some encodings late."""
INDEX_FILE = "index.jsonl"
SUMMARY_FILE = "summary.json"
DATASET_REPORT_FILE = "report.md"
METRICS_FILE = "metrics.jsonl"
RESOLVED_CONFIG_FILE = "config.yaml"
GENERATED_FILE = "generated.jsonl"
REPORT_FILE = "report.html"
EXPORT_FOLDER = "checkpoints"
ADAPTER_FOLDER = "adapter"
BEST_FILE = "best.json"
WORDS_FILE = "words.json"
CHANGES_FILE = "changes.json"
SAMPLES_FOLDER = "samples"
TRUTH_FOLDER = "truth"
SAMPLED_WINDOWS_FILE = "windows.json"
"""In the folder of samples: name of a video without suffix → its window and the caption that it was made with."""


def volume_variable(volume: str) -> str:
    """Name of the environment variable with the folder at which a volume is mounted."""
    return f"COSMOS_{volume.upper()}"


@dataclass(frozen=True)
class Volumes:
    """The folder of each volume on this machine."""

    roots: Mapping[str, Path] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Volumes:
        """Read COSMOS_MODELS, COSMOS_DATASETS, COSMOS_EMBEDDINGS and COSMOS_CHECKPOINTS."""
        names = {volume: environment.get(volume_variable(volume)) for volume in VOLUMES}
        return cls({volume: Path(root) for volume, root in names.items() if root})

    def resolve(self, address: str) -> Path:
        """Turn ``volume://path`` or a plain path into a path on this machine.

        Raises:
            ConfigError: unknown volume, volume without a mount, a path that leaves its volume, or no path at all.
        """
        match = ADDRESS.match(address)
        if match is None:
            return expanded_path(address)
        volume, relative = match["volume"], match["path"]
        if volume not in VOLUMES:
            raise ConfigError(
                f"{address}: unknown volume {volume!r}; use one of {', '.join(VOLUMES)} or a plain path"
            )
        if volume not in self.roots:
            raise ConfigError(
                f"{address}: volume {volume!r} is not mounted; set {volume_variable(volume)} to its folder"
            )
        root = self.roots[volume]
        path = Path(os.path.normpath(root / relative.lstrip("/")))
        if not path.is_relative_to(os.path.normpath(root)):
            raise ConfigError(f"{address}: leaves the volume {volume!r}; remove '..'")
        return path


def expanded_path(text: str) -> Path:
    """A plain path, with ``~`` and ``~user`` as the home folder that they stand for.

    Raises:
        ConfigError: no user of this name, or a control character.
    """
    if not re.fullmatch(PATH_PATTERN, text):
        raise ConfigError(f"{text!r}: has a control character, which no path has here; correct it")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        user = text.partition("/")[0]
        raise ConfigError(
            f"{text}: this machine knows no home folder of {user!r}; give the whole path, or ./{text} for a folder of "
            "this name"
        ) from None


# --- files that are either whole or absent ---------------------------------------------------


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_write(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path`` that replaces it (fsync, rename) only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        with temporary.open(mode, encoding=None if "b" in mode else "utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path, names: re.Pattern[str]) -> None:
    """Remove temporary files that :func:`atomic_write` of killed processes has left in a folder.

    Args:
        folder: nobody else may write these files in it now; it may be absent.
        names: of the files that were to be written.
    """
    for path in sorted(folder.glob(".*.tmp")):
        match = TEMPORARY.match(path.name)
        if match is None or not names.fullmatch(match["name"]) or not path.is_file():
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:  # no reason to end a stage
            logger.warning(
                "%s: a killed process left it, and it cannot be removed: %s", path, error
            )
        else:
            logger.info("removed %s, which a killed process left", path)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - any JSON value
    """Write JSON atomically."""
    with atomic_write(path, "w") as stream:
        json.dump(value, stream, indent=1, sort_keys=True)
        stream.write("\n")


def sha256_of_file(path: Path) -> str:
    """SHA-256 of a file, read in 4 MiB pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 22):
            digest.update(piece)
    return digest.hexdigest()


def content_key(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """First 12 hex digits of the SHA-256 of the value as sorted JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


# --- completion markers ----------------------------------------------------------------------


def marker_path(folder: Path, key: str) -> Path:
    """The completion marker of the stage with this key in this folder."""
    return folder / f"complete-{key}.json"


def read_marker(folder: Path, key: str) -> dict[str, Any] | None:
    """Result of a finished stage; None if it has not finished, or if its marker is damaged, so that it runs again."""
    path = marker_path(folder, key)
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        logger.warning("%s: damaged (%s); the stage runs again", path, error)
        return None
    if isinstance(result, dict) and "result" in result:
        return result
    logger.warning("%s: damaged (it has no result); the stage runs again", path)
    return None


# --- checkpoints of a training run -----------------------------------------------------------


def run_folder(output_root: Path, project: str, group: str, name: str) -> Path:
    """``${OUTPUT_ROOT}/PROJECT/GROUP/NAME``, as the reference lays it out.

    Raises:
        ConfigError: one of them is more or less than the name of one folder.
    """
    for part in (project, group, name):
        if not re.fullmatch(FOLDER_PATTERN, part):
            raise ConfigError(
                f"{part!r}: is not the name of one folder; use letters, digits and ._-"
            )
    return output_root / project / group / name


def export_name(step: int, weights: str) -> str:
    """``iter_{step:09d}_reg_model.pt`` or ``iter_{step:09d}_ema_model.pt``."""
    return f"iter_{step:09d}_{weights}_model.pt"


def adapter_name(step: int, weights: str) -> str:
    """``iter_{step:09d}_reg_adapter`` or ``iter_{step:09d}_ema_adapter``: the folder of a step's LoRA corrections."""
    return f"iter_{step:09d}_{weights}_adapter"


def samples_name(step: int) -> str:
    """``step_{step:09d}``: the folder of the sample videos of a step."""
    return f"step_{step:09d}"
