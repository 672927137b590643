"""Volumes that fail while a stage runs: full, read-only, slow, failing once, stale; and what came of it."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from faults.inspection import compare_end, find_partial
from faults.job import STAGES, Reference, run_stage
from faults.operations import READ, RENAME, SYNC, WRITE, Fault

WRITING = (WRITE, RENAME, SYNC)


@dataclass(frozen=True)
class Kind:
    """One way in which a volume fails.

    Attributes:
        name: for the table.
        error: errno; 0 = slow.
        kinds: operations that fail.
        share: of the stage's operations of these kinds, after which it begins.
        count: operations that fail; None = all from there on.
    """

    name: str
    error: int
    kinds: tuple[str, ...]
    share: float
    count: int | None
    seconds: float = 0.0


KINDS = (
    Kind("disk full from the middle on", errno.ENOSPC, WRITING, 0.5, None),
    Kind("disk full once", errno.ENOSPC, WRITING, 0.7, 1),
    Kind("read-only from the start", errno.EROFS, WRITING, 0.0, None),
    Kind("read-only from the middle on", errno.EROFS, WRITING, 0.5, None),
    Kind("EIO of one write", errno.EIO, WRITING, 0.4, 1),
    Kind("EIO of one read", errno.EIO, (READ,), 0.3, 1),
    Kind("ESTALE of one read", errno.ESTALE, (READ,), 0.6, 1),
    Kind("ESTALE of one write", errno.ESTALE, WRITING, 0.6, 1),
    Kind("slow, 20 ms an operation", 0, (*WRITING, READ), 0.0, None, 0.02),
)


@dataclass(frozen=True)
class Result:
    """The outcome of a fault of the volume.

    Attributes:
        code, message: of the stage while the volume fails.
        partial: files under finished names that are not whole.
        problems: of the next attempt, once the volume works again.
    """

    stage: str
    kind: str
    code: int
    message: str
    partial: Sequence[str]
    problems: Sequence[str]


def sweep(
    reference: Reference, stages: Sequence[str] = STAGES, kinds: Sequence[Kind] = KINDS
) -> Iterator[Result]:
    """Each kind in each stage, with one process; then the stage again on a volume that works."""
    for stage in stages:
        for kind in kinds:
            yield _run(reference, stage, kind)


def _run(reference: Reference, stage: str, kind: Kind) -> Result:
    reference.reset(stage)
    root, expected = reference.root, reference.root / "copies" / f"{stage}-1"
    counted = sum(one.split()[0] in kind.kinds for one in reference.operations[stage, 1][0])
    counted += reference.reads[stage, 1] if READ in kind.kinds else 0
    first = 1 + int(kind.share * counted)
    action = "fail" if kind.error else "delay"
    fault = Fault(
        str(reference.work), action, first, kind.count, kind.kinds, error=kind.error, seconds=kind.seconds
    )  # fmt: skip
    ended = run_stage(root, stage, [fault])
    partial = find_partial(reference.work, expected)
    again = run_stage(root, stage)
    problems = (
        compare_end(reference.work, expected)
        if not again.code
        else [f"{again.code}: {again.message}"]
    )
    return Result(stage, kind.name, ended.code, ended.message, partial, problems)


def table(results: Sequence[Result]) -> list[str]:
    """Lines of a Markdown table: kind of fault and stage, how the stage ended, and what was left."""
    lines = [
        "| volume | stage | exit code and message | partial files | next attempt |",
        "|---|---|---|---|---|",
    ]
    for one in results:
        message = " ".join(one.message.replace("|", "/").split())[:150]
        after = "; ".join(one.problems)[:150] or "same bits"
        lines.append(
            f"| {one.kind} | {one.stage} | {one.code} {message} | {len(one.partial)} | {after} |"
        )
    return lines
