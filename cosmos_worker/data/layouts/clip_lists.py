"""Which files of a folder are its lists of clips, for the Jsonl layout.

Source: huggingface/datasets, src/datasets/packaged_modules/folder_based_builder and data_files.py, for metadata files
and names of splits; a-r-r-o-w/finetrainers, docs/dataset/README.md, for the two text files and their names.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from cosmos_worker.data.index import SPLIT_NAMES, split_named
from cosmos_worker.errors import DataError
from cosmos_worker.storage.files import shorten

OWN_NAME, METADATA_NAME = "dataset", "metadata"
SUFFIXES = (".jsonl", ".csv")
METADATA_SUFFIXES = (*SUFFIXES, ".parquet")
"""Endings of metadata files."""
CAPTION_LISTS = ("captions.txt", "caption.txt", "prompts.txt", "prompt.txt")
VIDEO_LISTS = ("videos.txt", "video.txt")
CLIP_PATTERNS = (
    "*.jsonl",
    "*.csv",
    "metadata.parquet",
    *(f"*/metadata{suffix}" for suffix in METADATA_SUFFIXES),
    *CAPTION_LISTS,
    *VIDEO_LISTS,
)
"""Files that say which clips there are, relative to the dataset's root."""
HOW = "keep one list, or call the one to use dataset.jsonl"


def find_lists(root: Path) -> tuple[str, ...]:
    """The lists of a dataset relative to its root: tables, or a file of captions and one of videos.

    Raises:
        DataError: no list, or several of which none is to be preferred.
    """
    tables = root_tables(root)
    own = _named(tables, OWN_NAME)
    if own:
        _only(root, own)
        return own
    alternatives = [names for names in (_named(tables, METADATA_NAME), _pair(root)) if names]
    parts = _metadata_of_splits(root)
    if parts:
        alternatives.append(parts)
    if not alternatives and tables:
        if all(_split_of(name) for name in tables):
            return tuple(tables)
        alternatives = [tuple(tables)]
    for names in alternatives:
        if names is not parts and not names[0].endswith(".txt"):
            _only(root, names)
    if len(alternatives) > 1:
        _refuse_several(root, [name for names in alternatives for name in names])
    if not alternatives:
        raise DataError(
            f"{root}: no list of clips; write dataset.jsonl with a line such as "
            '{"video": "clips/a.mp4", "caption": "..."} for each'
        )
    return alternatives[0]


def root_tables(root: Path) -> list[str]:
    """JSONL and CSV files in a dataset's root, and a metadata file of parquet."""
    return [
        path.name
        for path in sorted(root.iterdir())
        if (path.suffix.lower() in SUFFIXES or path.name == f"{METADATA_NAME}.parquet")
        and not path.name.startswith(".")
        and path.is_file()
    ]


def has_list(root: Path) -> bool:
    """Whether a folder holds a list of clips that this layout would read, or several."""
    try:
        find_lists(root)
    except DataError as error:
        return "no list of clips" not in str(error)
    except OSError:
        return False
    return True


def _named(tables: list[str], stem: str) -> tuple[str, ...]:
    return tuple(name for name in tables if PurePosixPath(name).stem == stem)


def _split_of(name: str) -> str | None:
    return split_named(PurePosixPath(name).stem)


def _only(root: Path, names: tuple[str, ...]) -> None:
    if len(names) > 1:
        _refuse_several(root, list(names))


def _refuse_several(root: Path, names: list[str]) -> None:
    raise DataError(f"{root}: holds {len(names)} lists of clips ({shorten(names)}); {HOW}")


def _pair(root: Path) -> tuple[str, ...]:
    """The two files of finetrainers: captions, videos."""
    captions = [name for name in CAPTION_LISTS if (root / name).is_file()]
    videos = [name for name in VIDEO_LISTS if (root / name).is_file()]
    if not captions or not videos:
        return ()
    if len(captions) > 1 or len(videos) > 1:
        _refuse_several(root, [*captions, *videos])
    return captions[0], videos[0]


def _metadata_of_splits(root: Path) -> tuple[str, ...]:
    """Metadata files in folders that are named after splits."""
    names: list[str] = []
    for split in sorted(SPLIT_NAMES):
        own = [f"{split}/{METADATA_NAME}{suffix}" for suffix in METADATA_SUFFIXES]
        there = tuple(name for name in own if (root / name).is_file())
        _only(root, there)
        names += there
    return tuple(names)
