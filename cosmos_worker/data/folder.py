"""The folder layout: videos/*.mp4 with metas/*.txt of the same stem; everything is training data.

Source: cosmos_predict1/diffusion/training/datasets/dataset_video.py.
"""

from __future__ import annotations

from pathlib import Path

from cosmos_worker.data.candidate import Candidate, Listing, refuse_duplicates
from cosmos_worker.data.problems import BadClip, read_text
from cosmos_worker.errors import DataError

VIDEO_FOLDER = "videos"
CAPTION_FOLDER = "metas"


def list_videos(root: Path) -> Listing:
    """Pair videos with captions, sorted by file name.

    Raises:
        DataError: neither videos nor captions, or two clips with the same id.
    """
    videos = _by_stem(root / VIDEO_FOLDER, ".mp4")
    captions = _by_stem(root / CAPTION_FOLDER, ".txt")
    if not videos and not captions:
        raise DataError(
            f"{root / VIDEO_FOLDER}: no *.mp4; give the root of a dataset in the videos layout"
        )
    candidates: list[Candidate] = []
    bad: list[BadClip] = []
    for stem in sorted(videos.keys() | captions.keys()):
        try:
            candidates.append(_pair(stem, videos.get(stem), captions.get(stem), root))
        except BadClip as problem:
            bad.append(problem)
    refuse_duplicates(candidates)
    return Listing(tuple(candidates), tuple(bad))


def _by_stem(folder: Path, suffix: str) -> dict[str, Path]:
    """Files by name without suffix; hidden files, such as those of macOS archives, are no clips."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix.lower() == suffix and not path.name.startswith("."):
            other = found.setdefault(path.stem, path)
            if other is not path:
                raise DataError(
                    f"{path}: clip id {path.stem!r} is also that of {other.name}; rename one of them"
                )
    return found


def _pair(stem: str, video: Path | None, caption: Path | None, root: Path) -> Candidate:
    if video is None:
        name = f"{CAPTION_FOLDER}/{stem}.txt"
        raise BadClip(name, "video_missing", f"its video {VIDEO_FOLDER}/{stem}.mp4 does not exist")
    name = video.relative_to(root).as_posix()
    if caption is None:
        value = f"its caption {CAPTION_FOLDER}/{stem}.txt does not exist"
        raise BadClip(name, "caption_missing", value)
    caption_name = caption.relative_to(root).as_posix()
    text = read_text(caption, caption_name).strip()
    if not text:
        raise BadClip(caption_name, "caption_empty", "no text in it")
    return Candidate(f"train/{stem}", "train", name, name, (text,))
