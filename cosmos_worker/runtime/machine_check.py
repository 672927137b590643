"""Compares what a machine has with what a job needs, one line an item."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmos_worker.config.choices import NEEDS
from cosmos_worker.config.document_version import VERSION_KEY
from cosmos_worker.config.documents import load_yaml
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.config.stages import (
    STAGE_CONFIGS,
    CacheLatentsConfig,
    GenerateConfig,
    PrepareDatasetConfig,
    StageConfig,
    TrainConfig,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.sizes import checkpoint_bytes
from cosmos_worker.runtime import machine
from cosmos_worker.storage.volumes import Volumes


@dataclass(frozen=True)
class Item:
    """An item that a job can need: its probe, and advice if it is missing."""

    probe: machine.Probe
    remedy: str


ITEMS: dict[str, Item] = {
    "driver": Item(
        machine.probe_driver,
        "use a node with an NVIDIA driver, and give the container a GPU (spec.compute.gpusPerNode, docker --gpus all)",
    ),
    "torch": Item(machine.probe_torch, "install the extra 'worker' of this package"),
    "cuda": Item(
        machine.probe_cuda,
        "give the container a GPU, use a CUDA build of torch, and a driver that is not older than it",
    ),
    "nccl": Item(machine.probe_nccl, "use a CUDA build of torch for Linux"),
    "te": Item(
        machine.probe_transformer_engine,
        "use an image that has transformer-engine[pytorch]; pip install --no-build-isolation needs the CUDA toolkit",
    ),
    "te-fp8": Item(
        machine.probe_engine_float8,
        "use an image that has transformer-engine[pytorch] 2.16 or later, on GPUs of compute capability 8.9 or later",
    ),
    "apex": Item(
        machine.probe_apex,
        "use an image that has it, or build NVIDIA's sources with their C++ and CUDA extensions; no registry has it",
    ),
    "torchao": Item(machine.probe_torchao, "pip install 'torchao>=0.17'"),
    "av": Item(machine.probe_pyav, "pip install 'av>=17.1'"),
    "shm": Item(
        machine.probe_shared_memory,
        "give /dev/shm at least 1 GiB (spec.compute.sharedMemory, docker --shm-size=8g)",
    ),
}
TOKEN = "hf-token"  # noqa: S105 - the name of an item
TOKEN_REMEDY = "set HF_TOKEN (spec.credentials.huggingFace)"  # noqa: S105 - advice
DISK_REMEDY = "free space, use a larger volume, or one that this user may write"


@dataclass(frozen=True)
class Needs:
    """The items and folders that a job cannot run without."""

    items: frozenset[str] = frozenset()
    """Names of NEEDS."""
    folders: tuple[tuple[Path, int], ...] = ()
    """Folders to write, and bytes that must be free there; 0 = any."""


@dataclass(frozen=True)
class Line:
    """One line of the result: an item and its finding."""

    name: str
    finding: machine.Finding
    is_needed: bool
    remedy: str

    @property
    def is_missing(self) -> bool:
        """True if the item is needed but cannot be used."""
        return self.is_needed and not self.finding.found

    def __str__(self) -> str:
        status = "ok" if self.finding.found else "MISSING" if self.is_missing else "absent"
        advice = f"; {self.remedy}" if self.is_missing else ""
        return f"{status:<8}{self.name:<9}{self.finding.detail}{advice}"


def parse_needs(text: str) -> frozenset[str]:
    """The items of a list such as ``cuda,te``.

    Raises:
        ConfigError: an unknown item.
    """
    names = frozenset(name.strip() for name in text.split(",") if name.strip())
    unknown = sorted(names - set(NEEDS))
    if unknown:
        raise ConfigError(f"--needs: got {', '.join(unknown)}; allowed: {', '.join(NEEDS)}")
    return names


def check_machine(needs: Needs, environment: Mapping[str, str]) -> Iterator[Line]:
    """Probe every item and folder."""
    for name, item in ITEMS.items():
        is_needed = name in needs.items
        yield Line(name, item.probe(is_needed), is_needed, item.remedy)
    yield Line(TOKEN, machine.probe_token(environment), TOKEN in needs.items, TOKEN_REMEDY)
    for folder, required in needs.folders:
        yield Line("disk", machine.probe_disk(folder, required), True, DISK_REMEDY)


def require_all(lines: Sequence[Line]) -> None:
    """Check that no needed item is missing.

    Raises:
        ConfigError: names the missing items and their remedies.
    """
    missing = [line for line in lines if line.is_missing]
    if missing:
        raise ConfigError(
            f"this machine cannot run the job: {len(missing)} missing: "
            + "; ".join(f"{line.name}: {line.finding.detail}: {line.remedy}" for line in missing)
        )


# --- needs of a document -------------------------------------------------------------------


def stage_of(document: Any, where: str) -> str:  # noqa: ANN401 - any YAML value
    """The stage that a document belongs to, by its keys.

    Raises:
        ConfigError: the keys are those of no stage, or of several.
    """
    keys = set(document) - {VERSION_KEY} if isinstance(document, dict) else set()
    stages = [name for name, model in STAGE_CONFIGS.items() if _has_keys(model, keys)]
    if len(stages) != 1:
        raise ConfigError(
            f"{where}: got the keys {', '.join(sorted(map(str, keys))) or 'of no mapping'}, which are those of "
            f"{' and '.join(stages) or 'no stage'}; give the complete document of one of {', '.join(STAGE_CONFIGS)}"
        )
    return stages[0]


def _has_keys(model: type[StageConfig], keys: Collection[str]) -> bool:
    fields = model.model_fields
    required = {name for name, field in fields.items() if field.is_required()}
    return required <= set(keys) <= set(fields)


def read_document(path: Path) -> StageConfig:
    """Read a stage document; the stage follows from its keys.

    Raises:
        ConfigError: a bad document, or one of no stage.
    """
    return load_stage_config(stage_of(load_yaml(path), str(path)), path, ())


def needs_of_document(path: Path, volumes: Volumes) -> Needs:
    """The needs of a document's stage, without those of guardrail models (see ``guardrails.check``).

    Raises:
        ConfigError: a bad document, or a volume that is not mounted.
    """
    config = read_document(path)
    required = checkpoint_bytes(config.experiment) if isinstance(config, TrainConfig) else 0
    return Needs(frozenset(_items_of(config)), ((volumes.resolve(config.target_uri), required),))


def _items_of(config: StageConfig) -> Iterator[str]:
    if isinstance(config, TrainConfig | GenerateConfig | CacheLatentsConfig):
        yield "torch"
    if isinstance(config, PrepareDatasetConfig | CacheLatentsConfig | GenerateConfig):
        yield "av"
    if isinstance(config, TrainConfig) and config.experiment.trainer.device == "cuda":
        yield from ("driver", "cuda", "nccl", "shm")
    if isinstance(config, TrainConfig):
        yield from _libraries_of(config.experiment)
    if isinstance(config, GenerateConfig) and config.device == "cuda":
        yield from ("driver", "cuda")
        if config.context_parallel > 1:
            yield from ("nccl", "shm")


def _libraries_of(experiment: Experiment) -> Iterator[str]:
    if experiment.optimizer.implementation == "apex":
        yield "apex"
    if experiment.optimizer.state_bits == 8 or experiment.acceleration.linear == "float8":
        yield "torchao"
    if experiment.acceleration.attention == "transformer_engine":
        yield "te"
    if experiment.acceleration.linear == "transformer_engine_float8":
        yield from ("driver", "cuda", "te-fp8")
