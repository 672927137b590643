"""``cosmos prune``: says what on the volumes belongs to no living job, and removes it with ``--delete``.

Nothing else in this project removes what a stage has made. What is to go is first renamed, then the jobs are read
again, and what one of them refers to by then is put back: a job that is created meanwhile finds its files, or makes
them.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmos_operator.errors import InvalidSpec
from cosmos_operator.local.claim_content import (
    ASIDE,
    KEYED,
    LEFTOVERS,
    Content,
    Usage,
    find_holder,
    list_content,
    measure,
)
from cosmos_operator.local.references import References
from cosmos_worker.storage.volumes import Volumes

Print = Callable[[str], None]
"""Prints a line."""
ReadReferences = Callable[[], References]
"""Reads all jobs, at each call anew."""

UNITS = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


@dataclass(frozen=True)
class Rules:
    """The choice of what is removed."""

    older_than_s: float
    """Seconds since the last change in what is removed."""
    also: frozenset[str] = frozenset()
    """Addresses of results, such as checkpoints/NAME, that are to be removed too."""


@dataclass(frozen=True)
class Verdict:
    """A piece of content, its space, and why it stays."""

    content: Content
    usage: Usage
    kept_because: str
    """Reason for which it stays; empty if it is to be removed."""


def judge(content: Content, references: References, rules: Rules, now: float) -> Verdict:
    """The verdict on a piece of content.

    Args:
        content: the piece.
        references: what jobs refer to.
        rules: the choice.
        now: seconds since 1970, by the clock of the volumes' files.
    """
    usage = measure(content.path)
    return Verdict(content, usage, _reason_to_keep(content, usage, references, rules, now))


def _reason_to_keep(
    content: Content, usage: Usage, references: References, rules: Rules, now: float
) -> str:
    user = find_user(content, references)
    if user is not None:
        return f"used by {user}"
    if content.is_result and content.address not in rules.also:
        return f"a result; name it to remove it: --also {content.address}"
    age_s = now - usage.changed_at
    if age_s < rules.older_than_s:
        return f"changed {format_age(age_s)} ago; --older-than is {format_age(rules.older_than_s)}"
    holder = find_holder(content.path)
    return "" if holder is None else f"a process holds its lock {holder.name}"


def find_user(content: Content, references: References) -> str | None:
    """The job that refers to a piece of content; None if none does."""
    name = content.path.name
    is_leftover = any(pattern.match(name) for pattern in LEFTOVERS) and not ASIDE.match(name)
    if is_leftover and not KEYED.match(content.name):  # a file within a folder, known by its age
        return None
    return references.users.get(content.name.strip("."))


def prune(
    volumes: Volumes,
    read_references: ReadReferences,
    rules: Rules,
    write_line: Print,
    *,
    delete: bool,
) -> int:
    """Print what belongs to no job, and remove it if that is asked for; returns the bytes that are freed, or would be.

    Args:
        volumes: folders of the volumes.
        read_references: reads all jobs.
        rules: the choice.
        write_line: prints a line.
        delete: False = nothing is changed.

    Raises:
        InvalidSpec: a folder that does not exist, an address of --also that is not there or is a job's, or jobs whose
            files cannot be told.
    """
    _check_folders(volumes)
    references = read_references()
    if delete:
        _put_back_all(volumes, references, write_line)
    verdicts = _judge_all(list_content(volumes), references, rules)
    _check_also(rules, verdicts)
    _describe(verdicts, references, write_line)
    chosen = [one for one in verdicts if not one.kept_because]
    if delete:
        freed = sum(_remove_all(chosen, read_references, write_line))
        write_line(f"freed {format_size(freed)}")
        return freed
    total = sum(one.usage.size_bytes for one in chosen)
    write_line(
        f"{format_size(total)} would be freed; nothing was changed: --delete removes what is listed as unused"
        if chosen
        else "nothing to remove"
    )
    return total


def _check_folders(volumes: Volumes) -> None:
    missing = [
        f"{name}: no folder {root}" for name, root in volumes.roots.items() if not root.is_dir()
    ]
    if missing or not volumes.roots:
        raise InvalidSpec(
            missing
            or ["no folder to look at; give --workspace DIR, or --models DIR and the others"]
        )


def _judge_all(found: Iterable[Content], references: References, rules: Rules) -> list[Verdict]:
    """Verdicts on all content; what lies in a folder that goes, goes with it."""
    now, going, verdicts = time.time(), set[Path](), list[Verdict]()
    for content in found:
        if content.path.parent in going:
            continue
        verdict = judge(content, references, rules, now)
        verdicts.append(verdict)
        if not verdict.kept_because:
            going.add(content.path)
    return verdicts


def _check_also(rules: Rules, verdicts: Sequence[Verdict]) -> None:
    """Refuse names that were given and that are not removed.

    Raises:
        InvalidSpec: with each of them.
    """
    known = {one.content.address: one for one in verdicts}
    problems = []
    for address in sorted(rules.also):
        if address not in known:
            near = ", ".join(one for one in known if one.split("/")[0] == address.split("/")[0])
            problems.append(f"--also {address}: is not there; there is: {near or 'nothing'}")
        elif known[address].kept_because:
            problems.append(f"--also {address}: stays, {known[address].kept_because}")
    if problems:
        raise InvalidSpec(problems)


def _describe(verdicts: Sequence[Verdict], references: References, write_line: Print) -> None:
    number = len(references.jobs)
    write_line(
        f"{number} {'job' if number == 1 else 'jobs'}: {', '.join(sorted(references.jobs)) or 'none'}"
    )
    for note in references.notes:
        write_line(f"note: {note}")
    for verdict in verdicts:
        content = verdict.content
        word = "kept  " if verdict.kept_because else "unused"
        reason = f"; {verdict.kept_because}" if verdict.kept_because else "; no job refers to it"
        size = format_size(verdict.usage.size_bytes)
        write_line(f"{word} {size:>10}  {content.address}  ({content.kind}{reason})")


# --- removal -----------------------------------------------------------------------------------


def _remove_all(
    chosen: Sequence[Verdict], read_references: ReadReferences, write_line: Print
) -> Iterator[int]:
    """Remove what was chosen and yield the bytes of each; a job that refers to it by now gets it back."""
    moved = [(one, _set_aside(one.content)) for one in chosen]
    try:
        references = read_references()
    except BaseException:
        for verdict, aside in moved:
            _put_back(aside, verdict.content.path)
        raise
    for verdict, aside in moved:
        content = verdict.content
        user = find_user(content, references)
        if user is None:
            _remove(aside)
            yield verdict.usage.size_bytes
        elif _put_back(aside, content.path):
            write_line(f"put back {content.address}: {user} refers to it since")


def _set_aside(content: Content) -> Path:
    if ASIDE.match(content.path.name):
        return content.path
    aside = content.path.with_name(f".pruned.{content.path.name}")
    content.path.rename(aside)
    return aside


def _put_back(aside: Path, path: Path) -> bool:
    """Give content its name again; False, and it is removed, if a job has made it anew meanwhile."""
    if aside == path:
        return True
    if path.exists():
        _remove(aside)
        return False
    aside.rename(path)
    return True


def _put_back_all(volumes: Volumes, references: References, write_line: Print) -> None:
    """Give names back to what a killed prune had set aside, where a job refers to it."""
    for content in list(list_content(volumes)):
        match = ASIDE.match(content.path.name)
        if match and find_user(content, references) is not None:
            path = content.path.with_name(match["name"])
            if _put_back(content.path, path):
                write_line(f"put back {path.name}: a prune that was killed had set it aside")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        os.unlink(path)  # noqa: PTH108 - the same as unlink of a path, for links as well


# --- words -------------------------------------------------------------------------------------


def format_size(size_bytes: int) -> str:
    """A size in the largest unit that gives a number of at least one."""
    for unit, factor in UNITS:
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes} B"


def format_age(seconds: float) -> str:
    """A time in days, hours or minutes."""
    for unit, factor in (("d", 86400), ("h", 3600)):
        if seconds >= factor:
            return f"{seconds / factor:.1f} {unit}"
    return f"{max(0.0, seconds) / 60:.0f} min"
