"""Files that are truncated, emptied or have one bit turned, and what the stage that reads them next makes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults import job
from faults.inspection import compare_end
from faults.job import Reference, run_stage

RUN = job.RUN_FOLDER


def truncate(path: Path) -> None:
    """Leave the first two thirds."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def turn_bit(path: Path) -> None:
    """Turn one bit, at three fifths of the file."""
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 5] ^= 4
    path.write_bytes(content)


def empty(path: Path) -> None:
    """Leave nothing of it, as some file systems do after a crash of the machine."""
    path.write_bytes(b"")


FAULTS: dict[str, Callable[[Path], None]] = {
    "truncated": truncate, "one bit turned": turn_bit, "empty": empty,
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """One file, and the stage that reads it.

    Attributes:
        pattern: of the file, below the volumes; the last one that fits is damaged.
        stage: reads it next.
        after: True = the stage had finished and lost its marker, so that it reads what it made itself.
        keeps_marker: True = the stage had finished and is asked for again.
        world: number of the stage's processes.
    """

    name: str
    pattern: str
    stage: str
    after: bool = False
    keeps_marker: bool = False
    world: int = 1


TARGETS = (
    Target("checkpoint: tensors", f"{RUN}/state/iter_*/shards/__0_0.distcp", "train", after=True),
    Target(
        "checkpoint: tensors of the second of 2 processes",
        f"{RUN}/state/iter_*/shards/__1_0.distcp",
        "train",
        after=True,
        world=2,
    ),
    Target(
        "checkpoint: metadata of tensors",
        f"{RUN}/state/iter_*/shards/.metadata",
        "train",
        after=True,
    ),
    Target("checkpoint: progress.json", f"{RUN}/state/iter_*/progress.json", "train", after=True),
    Target("checkpoint: complete.json", f"{RUN}/state/iter_*/complete.json", "train", after=True),
    Target("exported weights", f"{RUN}/checkpoints/iter_*_ema_model.pt", "publish"),
    Target(
        "completion marker of the training",
        "checkpoints/job-*/complete-k.json",
        "train",
        keeps_marker=True,
    ),
    Target("published model", "checkpoints/published/model.pt", "publish", keeps_marker=True),
    Target(
        "fetched weights, read by fetch-model",
        "models/net/model.pt",
        "fetch-model",
        keeps_marker=True,
    ),
    Target("fetched weights, read by the training", "models/net/model.pt", "train"),
    Target("embeddings", "embeddings/t5/embeddings-*.safetensors", "train"),
    Target("facts of captions", "embeddings/t5/captions-*.json", "train"),
    Target("latents", "datasets/latents/latents-*.safetensors", "train"),
    Target("index.jsonl", "datasets/index/index.jsonl", "train"),
    Target("summary.json of the index", "datasets/index/summary.json", "train"),
    Target("MP4, read by cache-latents", "datasets/data/**/*.mp4", "cache-latents"),
    Target("MP4, read by prepare-dataset", "datasets/data/**/*.mp4", "prepare-dataset", after=True),
)


@dataclass(frozen=True)
class Result:
    """The outcome of one damaged file."""

    target: str
    fault: str
    verdict: str
    message: str


def sweep(reference: Reference, targets: Sequence[Target] = TARGETS) -> Iterator[Result]:
    """Each fault of each file."""
    for target in targets:
        for name, damage in FAULTS.items():
            yield _run(reference, target, name, damage)


def _run(
    reference: Reference, target: Target, fault: str, damage: Callable[[Path], None]
) -> Result:
    root = reference.root
    expected = root / "copies" / f"{target.stage}-{target.world}"
    is_done = target.after or target.keeps_marker
    job.copy_tree(expected if is_done else reference.before(target.stage), reference.work)
    if target.after:
        (reference.work / job.MARKED_FOLDERS[target.stage] / "complete-k.json").unlink()
    files = sorted(reference.work.glob(target.pattern))
    if not files:
        raise RuntimeError(f"{target.pattern}: no such file in {reference.work}")
    before = files[-1].read_bytes()
    damage(files[-1])
    ended = run_stage(root, target.stage, [None] * target.world)
    is_named = (
        files[-1].name in ended.log
        or "damaged (" in ended.log
        or str(files[-1].parent.name) in ended.message
    )
    if ended.code:
        verdict = "refused" if is_named else "refused, file not named"
        return Result(target.name, fault, f"{verdict}, exit code {ended.code}", ended.message)
    now = files[-1].read_bytes() if files[-1].exists() else b""
    differences = [
        one for one in compare_end(reference.work, expected) if files[-1].name not in one
    ]
    if differences:
        return Result(target.name, fault, "SILENTLY ACCEPTED", "; ".join(differences))
    if now == before:
        return Result(target.name, fault, "made anew, same bits", "named" if is_named else "")
    verdict = (
        "no effect on the result, named in the log"
        if is_named
        else "NOT NOTICED, no effect on the result"
    )
    return Result(target.name, fault, verdict, "")


def table(results: Sequence[Result]) -> list[str]:
    """Lines of a Markdown table: file and fault → what happened."""
    lines = ["| file | fault | what happened | message |", "|---|---|---|---|"]
    for one in results:
        message = " ".join(one.message.replace("|", "/").split())[:170]
        lines.append(f"| {one.target} | {one.fault} | {one.verdict} | {message} |")
    return lines
