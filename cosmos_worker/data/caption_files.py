"""Captions of a dataset in the reference's two layouts, and where the reference's pickles belong to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cosmos_worker.data.layouts.bridge import (
    ANNOTATION_ENDINGS,
    ANNOTATION_FOLDER,
    read_bridge_caption,
)
from cosmos_worker.data.dataset_files import find_files
from cosmos_worker.data.layouts.videos import (
    find_captions,
    read_folder_caption,
)
from cosmos_worker.data.problems import BadClip
from cosmos_worker.text.reference_pickles import CaptionFile

logger = logging.getLogger(__name__)

PICKLE_FOLDER = "t5_xxl"
"""Beside metas/, with its names."""


def find_caption_files(root: Path) -> Iterator[CaptionFile]:
    """All captions of a dataset in either layout, in the order of their names.

    A caption that cannot be read is told in the log and left out: prepare-dataset has dropped its clip, with the
    reason in its report.

    Raises:
        OSError: the volume does not give names or captions.
    """
    annotations = find_files(root, ANNOTATION_FOLDER, ANNOTATION_ENDINGS).names
    sources = [(name, PurePosixPath(name), read_bridge_caption) for name in annotations]
    sources += [
        (name, PurePosixPath(PICKLE_FOLDER, f"{stem}.txt"), read_folder_caption)
        for name, stem in find_captions(root)
    ]
    for name, target, read in sources:
        try:
            caption = read(root, name)
        except BadClip as problem:
            logger.warning("unreadable caption: %s", problem)
            continue
        yield CaptionFile(caption, Path(target.with_suffix(".pickle")))
