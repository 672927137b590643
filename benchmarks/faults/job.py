"""The tiny job of the sweep: six stages on real files, its uninterrupted reference, and a copy before each stage."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType

import yaml
from support.clips import write_videos_dataset
from support.text_encoders import write_t5
from support.tiny_tokenizer import write_tiny_tokenizer
from support.training import SMALL_NET, small_experiment, write_model

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.source import Source, UrlSource
from cosmos_worker.config.stages import (
    Artifact,
    CacheLatentsConfig,
    EmbedTextConfig,
    FetchModelConfig,
    PrepareDatasetConfig,
    PublishConfig,
    StageConfig,
    TrainConfig,
)
from faults import processes
from faults.operations import CHANGING, READ, Fault
from faults.processes import Ended

STAGES = ("fetch-model", "prepare-dataset", "embed-text", "cache-latents", "train", "publish")
RUN = "checkpoints://job-0123456789ab"
RUN_FOLDER = "checkpoints/job-0123456789ab/posttraining/diffusion_video2world_instruction/small"
PUBLISHED_FOLDER = "checkpoints/published"
LATENTS_FOLDER, INDEX_FOLDER, TEXT_FOLDER = "datasets/latents", "datasets/index", "embeddings/t5"
MODEL_FOLDER = "models/net"
MARKED_FOLDERS = {
    "fetch-model": "models", "prepare-dataset": INDEX_FOLDER, "embed-text": TEXT_FOLDER,
    "cache-latents": LATENTS_FOLDER, "train": RUN.replace("://", "/"), "publish": PUBLISHED_FOLDER,
}  # fmt: skip
"""Stage → folder of its completion marker, below the volumes."""
STEPS, SAVE_EVERY, KEPT = 6, 2, 2
MAX_LENGTH = 8


def experiment(steps: int = STEPS, save_every: int = SAVE_EVERY, **trainer: object) -> Experiment:
    """Two blocks of 32 channels; a checkpoint and exports every few steps, of which two are kept."""
    return small_experiment(
        max_steps=steps, save_every_steps=save_every, keep_last=KEPT, keep_exports=KEPT,
        trackers=(), log_every_steps=1, **trainer,
    )  # fmt: skip


def documents(inputs: Path, train: Experiment | None = None) -> dict[str, StageConfig]:
    """The stage documents of the job, by stage."""
    own = train or experiment()
    target = {"key": "k"}
    dataset = "datasets://index"
    return {
        "fetch-model": FetchModelConfig(
            **target, target_uri="models://",
            artifacts=(
                Artifact(
                    kind="model", name="net", target_uri="models://net",
                    source=Source(url=UrlSource(url=(inputs / "model.tar").as_uri())),
                ),
            ),
        ),
        "prepare-dataset": PrepareDatasetConfig(
            **target, target_uri=dataset, data_uri="datasets://data", layout="videos", video=own.video,
            source=Source(url=UrlSource(url=(inputs / "videos.tar").as_uri())), validation_fraction=0.2,
            num_workers=1,
        ),
        "embed-text": EmbedTextConfig(
            **target, target_uri="embeddings://t5", dataset_uri=dataset, encoder_uri=str(inputs / "t5"),
            max_length=MAX_LENGTH, max_unknown_fraction=1.0,
        ),
        "cache-latents": CacheLatentsConfig(
            **target, target_uri="datasets://latents", dataset_uri=dataset, video=own.video,
            tokenizer_uri=str(inputs / "tokenizer"), tokenizer=own.tokenizer, tokenizer_runtime="torchscript",
        ),
        "train": TrainConfig(
            **target, target_uri=RUN, experiment=own, run_name="small", model_uri="models://net",
            dataset_uri=dataset, embeddings_uri="embeddings://t5", latents_uri="datasets://latents",
        ),
        "publish": PublishConfig(
            **target, target_uri="checkpoints://published", job="job", name="published", net=SMALL_NET,
            run_uri=f"{RUN}/{RUN_FOLDER.split('/', 2)[2]}",
        ),
    }  # fmt: skip


def write_inputs(folder: Path) -> None:
    """Archives of a model and of videos, a text encoder and a tokenizer."""
    folder.mkdir(parents=True)
    write_model(folder / "source" / "model.pt")
    write_videos_dataset(folder / "videos", clips=8, frames=17)
    for name, content in (("model", folder / "source"), ("videos", folder / "videos")):
        with tarfile.open(folder / f"{name}.tar", "w") as archive:
            archive.add(content, ".")
    write_t5(folder / "t5")
    write_tiny_tokenizer(folder / "tokenizer")


@dataclass(frozen=True)
class Reference:
    """An uninterrupted run of the job.

    Attributes:
        root: holds inputs, the folder of the work, and its copies.
        seconds: of each stage.
        operations: by stage and number of processes: what each process changes, kind and path, in their order.
        reads: by stage and number of processes: files that the first process opens to read.
    """

    root: Path
    seconds: Mapping[tuple[str, int], float]
    operations: Mapping[tuple[str, int], Sequence[Sequence[str]]]
    reads: Mapping[tuple[str, int], int]

    @property
    def work(self) -> Path:
        """The four volumes of the job that is carried out now."""
        return self.root / "work"

    def before(self, stage: str) -> Path:
        """A copy of the volumes before a stage."""
        return self.root / "copies" / stage

    def after(self, stage: str) -> Path:
        """A copy of the volumes after a stage."""
        number = STAGES.index(stage) + 1
        return self.root / "copies" / (STAGES[number] if number < len(STAGES) else "end")

    def reset(self, stage: str) -> None:
        """Put the volumes back as they were before a stage."""
        copy_tree(self.before(stage), self.work)


def copy_tree(source: Path, target: Path) -> None:
    """Replace a folder by a copy of another, with times of writing."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)


def environment(root: Path) -> dict[str, str]:
    """The volumes of the work, as the worker finds them."""
    work = root / "work"
    return {
        f"COSMOS_{name.upper()}": str(work / name)
        for name in ("models", "datasets", "embeddings", "checkpoints")
    }


def write_document(root: Path, stage: str, config: StageConfig) -> Path:
    """Write the document of a stage."""
    path = root / "documents" / f"{stage}.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def begin_stage(
    root: Path,
    stage: str,
    faults: Sequence[Fault | None] = (None,),
    more: Mapping[str, str] = MappingProxyType({}),
) -> list[BaseProcess]:
    """Start the processes of a stage, with more variables of the environment than the volumes."""
    document = root / "documents" / f"{stage}.yaml"
    arguments = [stage, "--config", str(document)]
    return processes.start(arguments, {**environment(root), **more}, root / "logs", faults)


def run_stage(root: Path, stage: str, faults: Sequence[Fault | None] = (None,)) -> Ended:
    """Run a stage to its end, with as many processes as there are entries of faults."""
    return processes.wait(begin_stage(root, stage, faults), root / "logs")


def recorder(root: Path, trace: Path) -> Fault:
    """No fault, but a list of what a process does to files of the work."""
    kinds = (*CHANGING, READ)
    return Fault(str(root / "work"), "record", count=None, kinds=kinds, trace=str(trace))


def make_reference(root: Path, worlds: Sequence[int] = (1, 2)) -> Reference:
    """Carry out the job without faults, and record what each stage does to files.

    The training is carried out once with each number of processes; its results differ by rounding, so each number has
    copies of its own under ``copies/train-N``.
    """
    write_inputs(root / "inputs")
    for name in ("models", "datasets", "embeddings", "checkpoints"):
        (root / "work" / name).mkdir(parents=True)
    for stage, config in documents(root / "inputs").items():
        write_document(root, stage, config)
    seconds: dict[tuple[str, int], float] = {}
    operations: dict[tuple[str, int], list[list[str]]] = {}
    reads: dict[tuple[str, int], int] = {}
    for stage in STAGES:
        copy_tree(root / "work", root / "copies" / stage)
        for world in worlds if stage == "train" else (1,):
            copy_tree(root / "copies" / stage, root / "work")
            traces = [root / f"trace-{rank}" for rank in range(world)]
            for trace in traces:
                trace.unlink(missing_ok=True)
            ended = run_stage(root, stage, [recorder(root, trace) for trace in traces])
            if ended.code:
                raise RuntimeError(f"the reference's {stage} ended with {ended.code}: {ended.log}")
            seconds[stage, world] = ended.seconds
            lines = [one.read_text().splitlines() if one.exists() else [] for one in traces]
            operations[stage, world] = [[x for x in one if not x.startswith(READ)] for one in lines]
            reads[stage, world] = sum(one.startswith(READ) for one in lines[0])
            copy_tree(root / "work", root / "copies" / f"{stage}-{world}")
        copy_tree(root / "copies" / f"{stage}-1", root / "work")
    copy_tree(root / "work", root / "copies" / "end")
    return Reference(root, seconds, operations, reads)
