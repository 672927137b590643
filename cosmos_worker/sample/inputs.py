"""The list of inputs as a job and its JSONL file name them: one input for each video, checked before files are read."""

from __future__ import annotations

import difflib
import errno
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from cosmos_worker.config.captions import (
    TextError,
    normalise_caption,
)
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import GenerateInput
from cosmos_worker.data.text_files import (
    FileError,
    as_on_disk,
    brief,
    kind_of_file,
    parse_json,
    printable,
    raise_if_volume,
    read_text_file,
)
from cosmos_worker.errors import ConfigError, DataError, UserError, plain_kind
from cosmos_worker.storage.volumes import Volumes

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
REQUIRED_KEYS, OPTIONAL_KEYS = ("visual_input", "prompt"), ("ground_truth", "id")
KEYS = (*REQUIRED_KEYS, *OPTIONAL_KEYS)
KEYS_TEXT = ", ".join(KEYS)
SHOWN_PROBLEMS = 10

T = TypeVar("T")


@dataclass(frozen=True)
class SampleInput:
    """One video to generate.

    Attributes:
        id: file name of the result without suffix, unique in the list.
        prompt: text, not blank.
        visual_input: image or video whose frames are known.
        ground_truth: video to compare with; it begins with the known frames.
        where: the line of the file or the entry of the list that names it, for messages.
        fps: frames per second of the result; None = those of the item's sampling.
        notes: changes to the conditioning image or video, for the log and the record.
    """

    id: str
    prompt: str
    visual_input: Path
    ground_truth: Path | None
    where: str
    fps: float | None = None
    notes: tuple[str, ...] = ()


def collect_inputs(
    listed: Sequence[GenerateInput], inputs_file: Path | None, volumes: Volumes
) -> list[SampleInput]:
    """Inputs of the job, then those of the file, checked.

    Raises:
        ConfigError: no input at all, or wrong entries of the job.
        DataError: wrong lines of the file; the message has at most 10.
    """
    inputs = _from_job(listed, volumes)
    raise_problems(ConfigError, inputs)
    if inputs_file is not None:
        from_file = read_inputs_file(inputs_file, len(inputs), inputs_file.parent)
        raise_problems(DataError, from_file)
        inputs += from_file
    if not inputs:
        raise ConfigError("inputs: the list is empty; give inputs or inputs_file_uri")
    seen: dict[str, str] = {}
    for one in inputs:
        if one.id in seen:
            raise ConfigError(
                f"{one.where}: id {one.id!r} is used by {seen[one.id]} too; give each input its own"
            )
        seen[one.id] = one.where
    return inputs


def _from_job(listed: Sequence[GenerateInput], volumes: Volumes) -> list[SampleInput]:
    return [
        SampleInput(
            id=one.id if one.id is not None else default_id(position),
            prompt=one.prompt,
            visual_input=as_on_disk(volumes.resolve(one.visual_input_uri)),
            ground_truth=as_on_disk(volumes.resolve(one.ground_truth_uri))
            if one.ground_truth_uri
            else None,
            where=f"inputs.{position}",
        )
        for position, one in enumerate(listed)
    ]


def split_batches(
    inputs: Sequence[T], lengths: Sequence[int], batch_size: int, padding: Literal["pad", "trim"]
) -> list[list[T]]:
    """Cut a list into consecutive batches.

    Args:
        inputs: of the list.
        lengths: tokens of each input's prompt.
        batch_size: the most inputs of a batch.
        padding: of the text context; with "trim" only prompts of one length share a batch.
    """
    batches: list[list[T]] = []
    previous: int | None = None
    for one, length in zip(inputs, lengths, strict=True):
        fits = bool(batches) and len(batches[-1]) < batch_size
        if fits and (padding == "pad" or length == previous):
            batches[-1].append(one)
        else:
            batches.append([one])
        previous = length
    return batches


def sampling_of(one: SampleInput, sampling: SamplingConfig) -> SamplingConfig:
    """The sampling of an input: that of its item, at the frame rate of the input if it has one."""
    return sampling if one.fps is None else sampling.model_copy(update={"fps": one.fps})


def default_id(position: int) -> str:
    """Id of an input that names none: its position in the list, with three digits or more."""
    return f"{position:03d}"


def read_inputs_file(path: Path, num_before: int, folder: Path) -> list[SampleInput]:
    """The lines of a JSONL file, each with its position as fallback id.

    Args:
        path: of {"visual_input": PATH, "prompt": TEXT}.
        num_before: position of the first line.
        folder: where relative paths begin.

    Raises:
        ConfigError: no such file, or a folder or device in its place.
        DataError: text that is not UTF-8, or lines that are no such objects; the message has at most 10.
        OSError: the volume does not give the file's content.
    """
    try:
        text = read_text_file(path)
    except FileError as error:
        reason = str(error).replace("cannot be read: No such file or directory", "no such file")
        raise ConfigError(
            f"{printable(str(path))}: {reason}; inputs_file_uri names a JSONL file of "
            '{"visual_input": PATH, "prompt": TEXT}'
        ) from None
    except TextError as error:
        raise DataError(f"{path}: {error}; save the file as UTF-8") from None
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise DataError(
            f'{path}: the file is empty; give one {{"visual_input": PATH, "prompt": TEXT}} a line'
        )
    inputs: list[SampleInput] = []
    problems: list[str] = []
    for position, (number, line) in enumerate(lines, num_before):
        where = f"{path}:{number}"
        try:
            inputs.append(_from_line(line, where, default_id(position), folder))
        except DataError as error:
            problems.append(str(error))
    _raise_problems(DataError, problems)
    return inputs


def _from_line(line: str, where: str, fallback_id: str, folder: Path) -> SampleInput:
    try:
        entry: Any = parse_json(line)
    except TextError as error:
        raise DataError(f"{where}: {error}; got {brief(line)}") from None
    if not isinstance(entry, dict):
        raise DataError(
            f"{where}: got {type(entry).__name__}; give an object with {KEYS_TEXT} on each line"
        )
    for key in entry:
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(f"{where}: unknown key {brief(key)}; {meant}allowed: {KEYS_TEXT}")
    for key in (*REQUIRED_KEYS, *(key for key in OPTIONAL_KEYS if key in entry)):
        if key not in entry:
            raise DataError(f"{where}: {key} is missing; give an object with {KEYS_TEXT}")
        if not isinstance(entry[key], str):
            raise DataError(f"{where}: {key}: got {brief(entry[key])}; give a text")
    try:
        prompt = normalise_caption(entry["prompt"])
    except TextError as error:
        raise DataError(f"{where}: prompt: {error}; write it anew") from None
    truth = entry.get("ground_truth")
    return SampleInput(
        id=entry.get("id", fallback_id),
        prompt=prompt,
        visual_input=as_on_disk(folder / entry["visual_input"])
        if entry["visual_input"]
        else Path(),
        ground_truth=as_on_disk(folder / truth) if truth else None,
        where=where,
    )


def _problems(one: SampleInput) -> list[str]:
    found = []
    if not one.prompt:
        found.append(f"{one.where}: prompt: is blank; write what the video shows")
    if not ID.fullmatch(one.id) or one.id == "generated":
        found.append(
            f"{one.where}: id: got {brief(one.id)}; use letters, digits, '.', '_', '-', at most 100, "
            "beginning with a letter or digit, not 'generated'"
        )
    for name, path in (("visual_input", one.visual_input), ("ground_truth", one.ground_truth)):
        wrong = None if path is None else _file_problem(path)
        if wrong is not None:
            found.append(f"{one.where}: {name}: {wrong}; correct the path")
    return found


def _file_problem(path: Path) -> str | None:
    """The reason why a path names no file that can be read; None if it names one.

    Raises:
        OSError: the volume does not answer.
    """
    shown = printable(str(path))
    if path == Path():
        return "no such file: the path is empty"
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a NUL or a lone surrogate
        return f"{brief(str(path))} cannot be a file's name ({error})"
    except OSError as error:
        raise_if_volume(error)
        if error.errno == errno.ENOENT:
            return f"no such file {shown}"
        return f"{_shortened(shown)} cannot be read: {os.strerror(error.errno or 0)}"
    return None if stat.S_ISREG(mode) else f"{shown} is {kind_of_file(mode)}, not a file"


def _shortened(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}..."


def raise_problems(error: type[UserError], inputs: Sequence[SampleInput]) -> None:
    """Raise an error with the problems of ids, prompts and paths of the inputs, at most 10, if there are some."""
    _raise_problems(error, [problem for one in inputs for problem in _problems(one)])


def raise_all(errors: Iterable[UserError]) -> None:
    """Raise several errors as one of the first one's kind, with the messages of at most 10, if there are some."""
    found = list(errors)
    if found:
        _raise_problems(plain_kind(found[0]), [str(one) for one in found])


def _raise_problems(error: type[UserError], problems: Sequence[str]) -> None:
    if not problems:
        return
    more = len(problems) - SHOWN_PROBLEMS
    rest = f"; and {more} more" if more > 0 else ""
    raise error("; ".join(problems[:SHOWN_PROBLEMS]) + rest)
