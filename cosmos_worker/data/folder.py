"""The folder layout: videos below videos/ with captions of the same name below metas/; everything is training data.

Source: cosmos_predict1/diffusion/training/datasets/dataset_video.py, which takes videos/*.mp4 and metas/*.txt; here
folders below these and other containers count as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from cosmos_worker.data.candidate import Candidate, Listing
from cosmos_worker.data.dataset_files import (
    VIDEO_ENDINGS,
    ending_of,
    find_files,
    most_frequent,
)
from cosmos_worker.data.parallel import map_in_threads
from cosmos_worker.data.problems import BadClip, read_caption, read_text
from cosmos_worker.data.text_files import nfc, raise_if_volume
from cosmos_worker.errors import DataError

VIDEO_FOLDER = "videos"
CAPTION_FOLDER = "metas"
CAPTION_ENDINGS = frozenset((".txt",))
MAX_CAPTION_BYTES = 1 << 20
"""Largest caption file; an encoder takes 512 tokens."""


def list_videos(root: Path, num_workers: int = 1) -> Listing:
    """Pair videos with captions, sorted by name; a clip's id is the path of its video below videos/ without ending.

    Args:
        root: folder with videos/ and metas/.
        num_workers: captions that are read at the same time; pays on network disks.

    Raises:
        DataError: neither videos nor captions.
        OSError: the volume does not give names or captions.
    """
    videos = find_files(root, VIDEO_FOLDER, VIDEO_ENDINGS)
    captions = find_files(root, CAPTION_FOLDER, CAPTION_ENDINGS)
    counts = {**videos.passed_over, **captions.passed_over, **_beside(root)}
    passed_over = most_frequent(counts, root.name)
    bad_videos = {_stem(problem.file) for problem in videos.bad}
    bad_captions = [one for one in captions.bad if _stem(one.file) not in bad_videos]
    found_bad = [*videos.bad, *bad_captions]  # one for each clip
    if not videos.names and not captions.names and not found_bad:
        others = ", ".join(f"{pattern} ({count})" for pattern, count in passed_over.items())
        raise DataError(
            f"{root / VIDEO_FOLDER}: no videos in it ({others or 'no files'}); give the root of a dataset in the "
            f"videos layout, with files such as {VIDEO_FOLDER}/x.mp4 and {CAPTION_FOLDER}/x.txt"
        )
    bad = found_bad
    by_stem, texts = _by_stem(videos.names), _by_stem(captions.names)
    told = {_stem(problem.file) for problem in found_bad}
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
            return _pair(stem, by_stem.get(stem, []), texts.get(stem, []), root)
        except BadClip as problem:
            return problem

    outcomes = map_in_threads(outcome, stems, num_workers, "read-captions", "files")
    candidates = tuple(item for item in outcomes if isinstance(item, Candidate))
    bad += [item for item in outcomes if isinstance(item, BadClip)]
    return Listing(candidates, tuple(bad), passed_over)


def _beside(root: Path) -> dict[str, int]:
    """Number of videos that lie beside the folder of videos instead of in it."""
    try:
        names = [path.name for path in root.iterdir()]
    except OSError as error:
        raise_if_volume(error)
        return {}
    number = sum(ending_of(name) in VIDEO_ENDINGS and name[0] != "." for name in names)
    return {f"videos beside {VIDEO_FOLDER}/": number} if number else {}


def _stem(name: str) -> str:
    """Name below videos/ or metas/ without ending: what video and caption have in common."""
    return nfc(PurePosixPath(*PurePosixPath(name).parts[1:]).with_suffix("").as_posix())


def _by_stem(names: Iterable[str]) -> defaultdict[str, list[str]]:
    found = defaultdict(list)
    for name in names:
        found[_stem(name)].append(name)
    return found


def _repeated(stem: str, names: Sequence[str]) -> Iterator[BadClip]:
    """Each of several files that would be the same clip."""
    for name in names:
        other = next(one for one in names if one != name)
        yield BadClip(name, "clip_id_repeated", f"clip {stem!r} is also that of {other}")


def _pair(stem: str, videos: Sequence[str], captions: Sequence[str], root: Path) -> Candidate:
    if not videos:
        value = f"its video {VIDEO_FOLDER}/{stem}.mp4 does not exist"
        raise BadClip(captions[0], "video_missing", value)
    name = videos[0]
    if not captions:
        value = f"its caption {CAPTION_FOLDER}/{stem}.txt does not exist"
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
