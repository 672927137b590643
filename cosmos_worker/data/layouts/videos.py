"""The folder layout: videos below videos/ with captions of the same name below metas/; everything is training data.

Without metas/ the captions lie beside the videos, and without videos/ both lie in the root or folders below it.

Source: cosmos_predict1/diffusion/training/datasets/dataset_video.py, which takes videos/*.mp4 and metas/*.txt; here
folders below these and other containers count as well. a-r-r-o-w/finetrainers, docs/dataset/README.md, for captions
beside their videos.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from cosmos_worker.data.dataset_files import (
    VIDEO_ENDINGS,
    ending_of,
    find_files,
    most_frequent,
)
from cosmos_worker.data.layouts.candidate import (
    Candidate,
    Listing,
)
from cosmos_worker.data.problems import BadClip, read_caption, read_text
from cosmos_worker.data.text_files import nfc, raise_if_volume
from cosmos_worker.errors import DataError
from cosmos_worker.runtime.progress import map_in_threads

VIDEO_FOLDER = "videos"
CAPTION_FOLDER = "metas"
CAPTION_ENDINGS = frozenset((".txt",))
MAX_CAPTION_BYTES = 1 << 20
"""Largest caption file; an encoder takes 512 tokens."""


@dataclass(frozen=True)
class Places:
    """Folders of a dataset, relative to its root; "." = the root itself."""

    videos: str
    captions: str

    @property
    def are_one(self) -> bool:
        """Captions lie beside their videos."""
        return self.videos == self.captions

    def endings(self) -> dict[str, frozenset[str]]:
        """Folder → endings of the files in it and below that name clips."""
        if self.are_one:
            return {self.videos: VIDEO_ENDINGS | CAPTION_ENDINGS}
        return {self.videos: VIDEO_ENDINGS, self.captions: CAPTION_ENDINGS}

    def stem(self, name: str) -> str:
        """What video and caption have in common: the name below their folder without ending."""
        path = PurePosixPath(name)
        folders = (self.captions, self.videos)
        below = path.relative_to(next(one for one in folders if path.is_relative_to(one)))
        return nfc(below.with_suffix("").as_posix()) if below.name else ""


def find_places(root: Path) -> Places:
    """Where videos and captions of a dataset lie."""
    videos = VIDEO_FOLDER if (root / VIDEO_FOLDER).is_dir() else "."
    return Places(videos, CAPTION_FOLDER if (root / CAPTION_FOLDER).is_dir() else videos)


def find_captions(root: Path) -> list[tuple[str, str]]:
    """Caption files of a dataset, sorted, and what each has in common with its video.

    Raises:
        OSError: the volume does not give the names.
    """
    if not any((root / folder).is_dir() for folder in (VIDEO_FOLDER, CAPTION_FOLDER)):
        return []  # texts in the root of another layout are no captions
    places = find_places(root)
    names = find_files(root, places.captions, CAPTION_ENDINGS).names
    return [(name, places.stem(name)) for name in names]


def list_videos(root: Path, num_workers: int = 1) -> Listing:
    """Pair videos with captions, sorted by name; a clip's id is the path of its video below its folder without ending.

    Args:
        root: folder with videos/ and metas/, or with videos and texts of the same names.
        num_workers: captions that are read at the same time; pays on network disks.

    Raises:
        DataError: neither videos nor captions.
        OSError: the volume does not give names or captions.
    """
    places = find_places(root)
    found = [find_files(root, folder, endings) for folder, endings in places.endings().items()]
    names = [name for files in found for name in files.names]
    counts = {pattern: n for files in found for pattern, n in files.passed_over.items()}
    bad = _one_a_clip(places, [problem for files in found for problem in files.bad])
    by_stem = _by_stem(places, (name for name in names if ending_of(name) in VIDEO_ENDINGS))
    texts = _by_stem(places, (name for name in names if ending_of(name) in CAPTION_ENDINGS))
    told = {places.stem(problem.file) for problem in bad}
    if places.are_one:  # a text without a video may be anything, such as README.txt
        others = [stem for stem in texts if stem not in by_stem and stem not in told]
        number = sum(len(texts.pop(stem)) for stem in others)
        counts |= {"texts without a video of the same name": number} if number else {}
    passed_over = most_frequent({**counts, **_beside(root, places)}, root.name)
    if not by_stem and not texts and not bad:
        _refuse_nothing(root, places, passed_over)
    stems = []
    for stem in sorted(by_stem.keys() | texts.keys()):
        if stem in told and not (stem in by_stem and stem in texts):
            continue  # the other half of the clip is bad
        if len(by_stem[stem]) > 1:
            bad += _repeated(stem, by_stem[stem])
        else:
            stems.append(stem)

    def outcome(stem: str) -> Candidate | BadClip:
        try:
            return _pair(stem, by_stem.get(stem, []), texts.get(stem, []), root, places)
        except BadClip as problem:
            return problem

    outcomes = map_in_threads(outcome, stems, num_workers, "read-captions", "files")
    candidates = tuple(item for item in outcomes if isinstance(item, Candidate))
    bad += [item for item in outcomes if isinstance(item, BadClip)]
    notes = (f"captions are the texts beside the videos, there is no {CAPTION_FOLDER}/",)
    return Listing(candidates, tuple(bad), passed_over, notes if places.are_one else ())


def _one_a_clip(places: Places, problems: Sequence[BadClip]) -> list[BadClip]:
    """Problems of videos, and those of captions whose video has none."""
    videos = [one for one in problems if ending_of(one.file) not in CAPTION_ENDINGS]
    bad_videos = {places.stem(problem.file) for problem in videos}
    others = [one for one in problems if ending_of(one.file) in CAPTION_ENDINGS]
    return [*videos, *(one for one in others if places.stem(one.file) not in bad_videos)]


def _refuse_nothing(root: Path, places: Places, passed_over: Mapping[str, int]) -> NoReturn:
    others = ", ".join(f"{pattern} ({count})" for pattern, count in passed_over.items())
    raise DataError(
        f"{root / places.videos}: no videos in it ({others or 'no files'}); give the root of a dataset in the "
        f"videos layout, with files such as {VIDEO_FOLDER}/x.mp4 and {CAPTION_FOLDER}/x.txt"
    )


def _beside(root: Path, places: Places) -> dict[str, int]:
    """Number of videos that lie beside the folder of videos instead of in it."""
    if places.videos == ".":
        return {}
    try:
        names = [path.name for path in root.iterdir()]
    except OSError as error:
        raise_if_volume(error)
        return {}
    number = sum(ending_of(name) in VIDEO_ENDINGS and name[0] != "." for name in names)
    return {f"videos beside {VIDEO_FOLDER}/": number} if number else {}


def _by_stem(places: Places, names: Iterable[str]) -> defaultdict[str, list[str]]:
    found = defaultdict(list)
    for name in names:
        found[places.stem(name)].append(name)
    return found


def _repeated(stem: str, names: Sequence[str]) -> Iterator[BadClip]:
    """Each of several files that would be the same clip."""
    for name in names:
        other = next(one for one in names if one != name)
        yield BadClip(name, "clip_id_repeated", f"clip {stem!r} is also that of {other}")


def _pair(
    stem: str, videos: Sequence[str], captions: Sequence[str], root: Path, places: Places
) -> Candidate:
    if not videos:
        value = f"its video {PurePosixPath(places.videos, stem)}.mp4 does not exist"
        raise BadClip(captions[0], "video_missing", value)
    name = videos[0]
    if not captions:
        beside = f"{PurePosixPath(places.videos, stem)}.txt or " if places.are_one else ""
        value = f"its caption {beside}{CAPTION_FOLDER}/{stem}.txt does not exist"
        raise BadClip(name, "caption_missing", value)
    if len(captions) > 1:
        value = f"the caption of {stem!r} is also {captions[1]}"
        raise BadClip(captions[0], "clip_id_repeated", value)
    caption = read_folder_caption(root, captions[0])
    return Candidate(f"train/{stem}", "train", name, name, (caption,))


def read_folder_caption(root: Path, name: str) -> str:
    """The caption in one text file.

    Raises:
        BadClip: there is none that can be used.
        OSError: the volume does not give its content.
    """
    text = read_text(root / name, name, MAX_CAPTION_BYTES)
    if not text.strip():
        raise BadClip(name, "caption_empty", "no text in it")
    return read_caption(text, name, "its text")
