"""The bridge layout: annotation/{train,val,test}/*.json, each naming its videos, its instruction and its actions.

The instruction model does not see them; they are checked because an annotation with broken ones does not belong to
its video, or was written by a broken program.

Source: cosmos_predict1/diffusion/training/datasets/dataset_3D.py for names and sizes.

Source: cosmos_predict1/diffusion/training/datasets/dataset_3D.py for the fields; there the number of frames is
len(state) and the video is not consulted, here both must agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_worker.config.captions import TextError
from cosmos_worker.data.dataset_files import (
    VIDEO_ENDINGS,
    check_id,
    find_files,
    find_video,
    most_frequent,
)
from cosmos_worker.data.index import SPLITS, Split, split_named
from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
    without_repeated_ids,
)
from cosmos_worker.data.problems import BadClip, read_caption, read_text
from cosmos_worker.data.text_files import brief, nfc, parse_json, printable
from cosmos_worker.errors import DataError
from cosmos_worker.runtime.progress import map_in_threads

STATE = "state"
GRIPPER = "continuous_gripper_state"
POSE_SIZE = 6
"""Position x, y, z and rotation roll, pitch, yaw: the first numbers of each state."""


@dataclass(frozen=True)
class Actions:
    """The fields that an annotation has, float64."""

    state_ND: NDArray[np.float64] | None
    """N states of D >= 6 numbers; the first 6 are the pose."""
    gripper_N: NDArray[np.float64] | None
    """N openings of the gripper."""

    @property
    def lengths(self) -> dict[str, int]:
        """Name of each field that is there → its number of entries."""
        fields = {STATE: self.state_ND, GRIPPER: self.gripper_N}
        return {name: len(values) for name, values in fields.items() if values is not None}


def parse_actions(document: Mapping[str, Any], name: str) -> Actions:
    """Read the action fields of an annotation; each may be missing.

    Args:
        document: the annotation.
        name: how messages call it.

    Raises:
        BadClip: entries that are no numbers, not finite, of different sizes or too few.
    """
    state = _finite_array(document, STATE, 2, name)
    if state is not None and len(state) and state.shape[1] < POSE_SIZE:
        value = f"{STATE}[0] has {state.shape[1]} numbers, a pose has {POSE_SIZE}"
        raise BadClip(name, "action_broken", value)
    return Actions(state, _finite_array(document, GRIPPER, 1, name))


def _finite_array(
    document: Mapping[str, Any], field: str, num_dims: int, name: str
) -> NDArray[np.float64] | None:
    """A field as an array of ``num_dims`` dimensions, None if it is not there."""
    if field not in document:
        return None
    values = document[field]
    if not isinstance(values, list):
        raise BadClip(name, "action_broken", f"{field} is {brief(values)}, not a list")
    if not _is_regular(values, num_dims):
        raise BadClip(name, "action_broken", _describe_entry(values, field, num_dims))
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        raise BadClip(name, "action_broken", f"{field} has numbers that are too large") from None
    if not np.isfinite(array).all():
        where = "".join(f"[{index}]" for index in np.argwhere(~np.isfinite(array))[0])
        value = f"{field}{where} is {array[~np.isfinite(array)][0]}, not a finite number"
        raise BadClip(name, "action_broken", value)
    return array


def _is_regular(values: list[Any], num_dims: int) -> bool:
    """Whether all entries are numbers, or lists of equally many: numpy would make numbers of other things as well."""
    rows = values if num_dims > 1 else [values]
    if set(map(type, rows)) - {list} or len(set(map(len, rows))) > 1:
        return False
    return not set(map(type, chain.from_iterable(rows))) - {int, float}


def _describe_entry(values: list[Any], field: str, num_dims: int) -> str:
    """What is wrong with the first entry that cannot be part of an array."""
    for index, entry in enumerate(values):
        numbers = entry if num_dims > 1 else [entry]
        if not isinstance(numbers, list):
            return f"{field}[{index}] is {brief(entry)}, not a list of numbers"
        wrong = [x for x in numbers if isinstance(x, bool) or not isinstance(x, int | float)]
        if wrong:
            return f"{field}[{index}] has {brief(wrong[0])}, not a number"
        if num_dims > 1 and len(numbers) != len(values[0]):
            return f"{field}[{index}] has {len(numbers)} numbers, {field}[0] has {len(values[0])}"
    return f"{field} holds no numbers"


ANNOTATION_FOLDER = "annotation"
VIDEO_FOLDER = "videos"
"""Where the reference's datasets have their videos; an annotation may name any file below the root."""
ANNOTATION_ENDINGS = frozenset((".json",))


def list_bridge(root: Path, camera: int, num_workers: int = 1) -> Listing:
    """Read all annotations below ``root/annotation``, sorted by split and file name.

    Args:
        root: folder with annotation/ and videos/.
        camera: index into each annotation's list of videos.
        num_workers: annotations that are read at the same time; pays on network disks.

    Raises:
        DataError: no annotation at all.
        OSError: the volume does not give names or annotations.
    """
    found = find_files(root, ANNOTATION_FOLDER, ANNOTATION_ENDINGS)
    by_split: dict[Split, list[str]] = {split: [] for split in SPLITS}
    counts = Counter(found.passed_over)
    for name in found.names:
        split = split_of(name)
        if split is None:
            counts[f"{_folder_of(name)}/*.json, which is no split"] += 1
        else:
            by_split[split].append(name)
    files = [(split, root / name) for split, names in by_split.items() for name in names]
    if not files and not found.bad:
        counted = most_frequent(counts, ANNOTATION_FOLDER)
        others = ", ".join(f"{pattern} ({count})" for pattern, count in counted.items())
        raise DataError(
            f"{root / ANNOTATION_FOLDER}: no *.json in {', '.join(SPLITS)} ({others or 'no files'}); "
            "give the root of a dataset in the bridge layout"
        )

    named: set[str] = set()

    def outcome(file: tuple[Split, Path]) -> Candidate | BadClip:
        split, path = file
        name = path.relative_to(root).as_posix()
        try:
            document = _read_document(path, name)
            named.update(_named_videos(document))
            return _candidate(root, document, name, split, camera)
        except BadClip as problem:
            return problem

    outcomes = map_in_threads(outcome, files, num_workers, "read-annotations", "files")
    candidates = [item for item in outcomes if isinstance(item, Candidate)]
    bad = [item for item in outcomes if isinstance(item, BadClip)]
    unnamed = sum(
        nfc(video) not in named for video in find_files(root, VIDEO_FOLDER, VIDEO_ENDINGS).names
    )
    if unnamed:
        counts[f"videos below {VIDEO_FOLDER}/ that no annotation names"] = unnamed
    passed_over = most_frequent(counts, root.name)
    return without_repeated_ids(
        Listing(tuple(candidates), (*found.bad, *bad), passed_over, tuple(_notes(found.names)))
    )


def split_of(name: str) -> Split | None:
    """Split of an annotation by the folder that it is in; None if that is no split's.

    Args:
        name: path relative to the root, such as annotation/train/x.json.
    """
    parts = PurePosixPath(name).parts
    return split_named(parts[1]) if len(parts) > 2 else None


def _folder_of(name: str) -> str:
    """The folder that decides of the split."""
    return printable("/".join(PurePosixPath(name).parts[:-1][:2]))


def _notes(names: Iterable[str]) -> list[str]:
    """Which folders were taken for a split of another name."""
    folders = {_folder_of(name): split for name in names if (split := split_of(name)) is not None}
    return [
        f"{folder}/ is taken as split {split}"
        for folder, split in sorted(folders.items())
        if folder != f"{ANNOTATION_FOLDER}/{split}"
    ]


def read_annotation(root: Path, path: Path, split: Split, camera: int) -> Candidate:
    """Read one annotation.

    Raises:
        BadClip: with the annotation's path relative to the root.
        OSError: the volume does not give its content.
    """
    name = path.relative_to(root).as_posix()
    return _candidate(root, _read_document(path, name), name, split, camera)


def _candidate(
    root: Path, document: dict[str, Any], name: str, split: Split, camera: int
) -> Candidate:
    recording = document.get("original_path")
    return Candidate(
        clip_id=f"{split}/{_episode_id(document, name)}",
        split=split,
        source=name,
        video=_video(root, document, camera, name),
        captions=(_caption(document, name),),
        num_annotated=parse_actions(document, name).lengths,
        episode=recording if isinstance(recording, str) and recording else None,
    )


def read_bridge_caption(root: Path, name: str) -> str:
    """The caption of one annotation.

    Raises:
        BadClip: there is none that can be used.
        OSError: the volume does not give its content.
    """
    return _caption(_read_document(root / name, name), name)


def _read_document(path: Path, name: str) -> dict[str, Any]:
    try:
        document = parse_json(read_text(path, name))
    except TextError as error:
        raise BadClip(name, "annotation_broken", str(error)) from None
    if not isinstance(document, dict):
        value = f"holds a {type(document).__name__}, not an object"
        raise BadClip(name, "annotation_broken", value)
    return document


def _named_videos(document: dict[str, Any]) -> list[str]:
    """Videos of all cameras that an annotation names, in the form in which names are compared."""
    videos = document.get("videos")
    entries = videos if isinstance(videos, list) else []
    paths = [entry.get("video_path") for entry in entries if isinstance(entry, dict)]
    return [nfc(PurePosixPath(path).as_posix()) for path in paths if isinstance(path, str)]


def _episode_id(document: dict[str, Any], name: str) -> str:
    field = "episode_id" if "episode_id" in document else "original_path"
    episode = document.get(field)
    if episode is None or episode == "":
        raise BadClip(name, "annotation_broken", "neither episode_id nor original_path is given")
    if not isinstance(episode, str | int) or isinstance(episode, bool):
        value = f"{field} is {brief(episode)}, not a text or a whole number"
        raise BadClip(name, "annotation_broken", value)
    return check_id(str(episode), name, field)


def _video(root: Path, document: dict[str, Any], camera: int, name: str) -> str:
    videos = document.get("videos")
    if not isinstance(videos, list) or not videos:
        value = f"videos is {brief(videos)}, not a list of videos"
        raise BadClip(name, "annotation_broken", value)
    if camera >= len(videos):
        raise BadClip(name, "camera_missing", f"camera {camera} of {len(videos)} videos")
    entry, where = videos[camera], f"videos[{camera}].video_path"
    video = entry.get("video_path") if isinstance(entry, dict) else None
    if not isinstance(video, str) or not video:
        raise BadClip(name, "annotation_broken", f"{where} is {brief(video)}, not a path")
    return find_video(root, video, name, where)


def _caption(document: dict[str, Any], name: str) -> str:
    texts = document.get("texts")
    if texts is None or texts == []:
        raise BadClip(name, "caption_missing", f"texts is {texts!r}")
    if not isinstance(texts, list) or not isinstance(texts[0], str):
        raise BadClip(name, "annotation_broken", f"texts is {brief(texts)}, not a list of strings")
    return read_caption(texts[0], name, "texts[0]")
