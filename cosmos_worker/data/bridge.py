"""The bridge layout: annotation/{train,val,test}/*.json, each naming its videos and instruction.

Source: cosmos_predict1/diffusion/training/datasets/dataset_3D.py for the fields; there the number of frames is
len(state) and the video is not consulted, here both must agree.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

from cosmos_worker.data.actions import parse_actions
from cosmos_worker.data.candidate import Candidate, Listing, refuse_duplicates
from cosmos_worker.data.index import SPLITS, Split
from cosmos_worker.data.parallel import map_in_threads
from cosmos_worker.data.problems import BadClip, read_text
from cosmos_worker.errors import DataError

ANNOTATION_FOLDER = "annotation"


def list_bridge(root: Path, camera: int, num_workers: int = 1) -> Listing:
    """Read all annotations below ``root/annotation``, sorted by split and file name.

    Args:
        root: folder with annotation/ and videos/.
        camera: index into each annotation's list of videos.
        num_workers: annotations that are read at the same time; pays on network disks.

    Raises:
        DataError: no annotation at all, or two clips with the same id.
    """
    files = [
        (split, path)
        for split in SPLITS
        for path in sorted((root / ANNOTATION_FOLDER / split).glob("*.json"))
        if not path.name.startswith(".")
    ]

    def outcome(file: tuple[Split, Path]) -> Candidate | BadClip:
        try:
            return read_annotation(root, file[1], file[0], camera)
        except BadClip as problem:
            return problem

    outcomes = map_in_threads(outcome, files, num_workers, "read-annotations", "files")
    candidates = [item for item in outcomes if isinstance(item, Candidate)]
    bad = [item for item in outcomes if isinstance(item, BadClip)]
    if not candidates and not bad:
        raise DataError(
            f"{root / ANNOTATION_FOLDER}: no *.json in {', '.join(SPLITS)}; "
            "give the root of a dataset in the bridge layout"
        )
    refuse_duplicates(candidates)
    return Listing(tuple(candidates), tuple(bad))


def read_annotation(root: Path, path: Path, split: Split, camera: int) -> Candidate:
    """Read one annotation.

    Raises:
        BadClip: with the annotation's path relative to the root.
    """
    name = path.relative_to(root).as_posix()
    try:
        document = json.loads(read_text(path, name))
    except json.JSONDecodeError as error:
        raise BadClip(name, "annotation_broken", f"not JSON: {error}") from None
    if not isinstance(document, dict):
        value = f"holds a {type(document).__name__}, not an object"
        raise BadClip(name, "annotation_broken", value)
    episode = document.get("episode_id", document.get("original_path"))
    if not isinstance(episode, str | int) or episode == "":
        raise BadClip(name, "annotation_broken", "neither episode_id nor original_path is given")
    return Candidate(
        clip_id=f"{split}/{episode}",
        split=split,
        source=name,
        video=_video(document, camera, name),
        captions=(_caption(document, name),),
        num_annotated=parse_actions(document, name).lengths,
    )


def _video(document: dict[str, Any], camera: int, name: str) -> str:
    videos = document.get("videos")
    if not isinstance(videos, list) or not videos:
        raise BadClip(name, "annotation_broken", f"videos is {videos!r}, not a list of videos")
    if camera >= len(videos):
        raise BadClip(name, "camera_missing", f"camera {camera} of {len(videos)} videos")
    entry = videos[camera]
    video = entry.get("video_path") if isinstance(entry, dict) else None
    if not isinstance(video, str) or not video:
        value = f"videos[{camera}].video_path is {video!r}, not a path"
        raise BadClip(name, "annotation_broken", value)
    path = PurePosixPath(video)
    if path.is_absolute() or ".." in path.parts:
        raise BadClip(name, "video_outside", f"videos[{camera}].video_path {video!r}")
    return path.as_posix()


def _caption(document: dict[str, Any], name: str) -> str:
    texts = document.get("texts")
    if texts is None or texts == []:
        raise BadClip(name, "caption_missing", f"texts is {texts!r}")
    if not isinstance(texts, list) or not isinstance(texts[0], str):
        raise BadClip(name, "annotation_broken", f"texts is {texts!r:.80}, not a list of strings")
    caption = texts[0].strip()
    if not caption:
        raise BadClip(name, "caption_empty", f"texts[0] is {texts[0]!r}")
    return caption
