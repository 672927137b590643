"""Folders of model files: which files each kind needs, and how they get into the models volume.

An artifact's files are first complete beside the target, then moved into it, so that a target holds whole files or
none. A target that holds other files of the same names is never overwritten.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.config import Artifact
from cosmos_worker.data.archive import extract_url
from cosmos_worker.data.candidate import folder_content
from cosmos_worker.data.hub import download_repository
from cosmos_worker.errors import DataError
from cosmos_worker.layout import (
    DECODER_FILE,
    ENCODER_FILE,
    FILTER_FILE,
    MEAN_STD_FILE,
    MODEL_FILE,
    WHITELIST,
    WORD_LISTS,
    Volumes,
    content_key,
    sha256_of_file,
    sync_folder,
    write_json,
)

logger = logging.getLogger(__name__)

LINK_SIZE_BYTES = 64 << 20
"""Files of at least this size are hard-linked where source and target share a file system."""
GIT_LFS = b"version https://git-lfs"
"""First bytes of the pointer that stands for a large file in a repository without Git LFS."""
CONFIG_FILE = "config.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "spiece.model")
"""A text encoder needs one of these."""
TEXT_EXTRA_FILES = ("special_tokens_map.json", "added_tokens.json")
CHAT_TOKENIZER_FILES = (*TOKENIZER_FILES, "tokenizer.model", "tekken.json")
"""A chat model needs one of these."""
CHAT_EXTRA_FILES = (
    "special_tokens_map.json", "added_tokens.json", "generation_config.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
PICTURE_FILES = ("preprocessor_config.json", "processor_config.json")
"""A model that sees pictures needs one of these."""
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Weights of a model for transformers, best first; an index comes with the files that it names."""

Facts = dict[str, dict[str, int | str]]
"""File name → size_bytes and sha256."""


@dataclass(frozen=True)
class Choice:
    """Which files of a folder or repository an artifact takes."""

    names: list[str]
    """Files to take."""
    missing: list[str]
    """What is needed and not there."""


def choose_files(kind: str, names: Sequence[str]) -> Choice:
    """Pick the files of an artifact among all names of a folder or repository.

    Args:
        kind: of `ArtifactKind`.
        names: relative paths; files in sub-folders are taken for guardrails only.

    Returns:
        The files to take, and what is missing.
    """
    there = set(names)
    if kind == "model":
        return _required((MODEL_FILE,), (CONFIG_FILE,), there)
    if kind == "tokenizer":
        return _required((ENCODER_FILE, DECODER_FILE, MEAN_STD_FILE), (CONFIG_FILE,), there)
    if kind == "guardrails":
        return _guardrails(there)
    if kind == "text_encoder":
        return _transformers(there, TEXT_EXTRA_FILES, TOKENIZER_FILES)
    if kind == "text_classifier":
        return _transformers(there, CHAT_EXTRA_FILES, CHAT_TOKENIZER_FILES)
    if kind == "image_encoder":
        return _transformers(there, (), PICTURE_FILES)
    return _transformers(there, CHAT_EXTRA_FILES, CHAT_TOKENIZER_FILES, PICTURE_FILES)


def _guardrails(there: set[str]) -> Choice:
    """Word lists and the video filter; files that begin with a dot are no lists."""
    choice = _required((FILTER_FILE,), (), there)
    for folder in WORD_LISTS:
        lists = [name for name in sorted(there) if _is_list(name, folder)]
        choice.names.extend(lists)
        if not lists and folder != WHITELIST:
            choice.missing.append(f"a list of words in {folder}/")
    return choice


def _is_list(name: str, folder: str) -> bool:
    parent, _, file = name.rpartition("/")
    return parent == folder and not file.startswith(".")


def _transformers(there: set[str], extra: Sequence[str], *one_of_each: Sequence[str]) -> Choice:
    """A model for transformers: its configuration, weights in one form, and one of each group of files."""
    choice = _required((CONFIG_FILE,), [name for group in one_of_each for name in group], there)
    choice.names.extend(name for name in extra if name in there)
    choice.missing.extend(
        f"one of {', '.join(group)}" for group in one_of_each if not there.intersection(group)
    )
    weights = next((name for name in WEIGHT_FILES if name in there), None)
    if weights is None:
        choice.missing.append("model.safetensors or pytorch_model.bin, whole or in pieces")
    else:
        choice.names.append(weights)
        if weights.endswith(".index.json"):
            stem, suffix = weights.removesuffix(".index.json").rsplit(".", 1)
            choice.names.extend(sorted(n for n in there if _is_piece(n, stem, suffix)))
    return choice


def _required(required: Sequence[str], optional: Sequence[str], there: set[str]) -> Choice:
    names = [name for name in (*required, *optional) if name in there]
    return Choice(names, [name for name in required if name not in there])


def _is_piece(name: str, stem: str, suffix: str) -> bool:
    return name.startswith(f"{stem}-") and name.endswith(f".{suffix}") and "/" not in name


def fetch_artifact(artifact: Artifact, volumes: Volumes) -> Facts:
    """Bring an artifact's files into its target folder and check them.

    Returns:
        File name → size in bytes and sha256.

    Raises:
        DataError: needed files are missing, or the target holds other files of these names.
        RetryableError: the network fails.
    """
    target = volumes.resolve(artifact.target_uri)
    if artifact.source.path is not None:
        files = _files_of_path(artifact, volumes.resolve(artifact.source.path))
        return place_files(files, target, artifact.name, move=False)
    record = target / f"fetched-{artifact.kind}.json"
    facts = _fetched_before(artifact, record)
    if facts is None:
        target.parent.mkdir(parents=True, exist_ok=True)
        facts = _fetch_remote(artifact, target)
        write_json(record, {"source": artifact.source.model_dump(mode="json"), "files": facts})
    return facts


def _fetched_before(artifact: Artifact, record: Path) -> Facts | None:
    """What an earlier run fetched from the same source, if all of it is still there."""
    if not record.is_file():
        return None
    held = json.loads(record.read_text(encoding="utf-8"))
    files: Facts = held["files"]
    if held["source"] != artifact.source.model_dump(mode="json"):
        return None
    for name, facts in files.items():
        path = record.parent / name
        if not path.is_file() or _describe(path) != facts:
            return None
    logger.info("%s already fetched folder=%s", artifact.name, record.parent)
    return files


def _fetch_remote(artifact: Artifact, target: Path) -> Facts:
    source = artifact.source
    if source.url is not None:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
            extract_url(source.url, Path(name))
            root = _root_of_archive(artifact, Path(name))
            return place_files(_files_in(artifact, root), target, artifact.name, move=True)
    assert source.hugging_face is not None
    partial = target.with_name(f".{target.name}.{content_key(source.model_dump())}.partial")
    folder = download_repository(
        source.hugging_face,
        partial,
        "model",
        lambda names: choose_files(artifact.kind, names).names,
    )
    is_download = folder.parent == partial
    facts = place_files(_files_in(artifact, folder), target, artifact.name, move=is_download)
    shutil.rmtree(partial, ignore_errors=True)
    return facts


def _files_of_path(artifact: Artifact, path: Path) -> dict[str, Path]:
    if artifact.kind == "model" and path.is_file() and path.suffix == ".pt":
        return {MODEL_FILE: path}
    if not path.is_dir():
        hint = " or a .pt file" if artifact.kind == "model" else ""
        raise DataError(
            f"{artifact.name}: source path {artifact.source.path} ({path}) is no folder{hint}; "
            "correct the path or mount its volume"
        )
    return _files_in(artifact, path)


def _files_in(artifact: Artifact, folder: Path) -> dict[str, Path]:
    """The artifact's files in a folder.

    Raises:
        DataError: with all that is missing and what is there.
    """
    choice = choose_files(artifact.kind, _names_in(artifact.kind, folder))
    missing = [*choice.missing, *_missing_pieces(folder, choice.names)]
    if missing:
        raise DataError(
            f"{artifact.name}: {folder} lacks {', '.join(missing)} for a {artifact.kind}; "
            f"it holds {folder_content(folder)}; add the files or correct the source"
        )
    for name in choice.names:
        with (folder / name).open("rb") as stream:
            if stream.read(len(GIT_LFS)) == GIT_LFS:
                raise DataError(
                    f"{folder / name}: a Git LFS pointer, not the file; run 'git lfs pull' in that repository"
                )
    return {name: folder / name for name in choice.names}


def _names_in(kind: str, folder: Path) -> list[str]:
    """Names of the files of a folder; those in its folders too, where a kind has some."""
    paths = folder.rglob("*") if kind == "guardrails" else folder.iterdir()
    return sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())


def _missing_pieces(folder: Path, names: Sequence[str]) -> list[str]:
    """Weight files that an index names and the folder lacks."""
    missing: set[str] = set()
    for name in names:
        if name.endswith(".index.json"):
            try:
                pieces = json.loads((folder / name).read_text(encoding="utf-8"))["weight_map"]
                missing.update(piece for piece in pieces.values() if piece not in names)
            except (ValueError, KeyError, AttributeError) as error:
                raise DataError(
                    f"{folder / name}: no index of weight files ({error!r}); fetch the file again"
                ) from None
    return sorted(missing)


def _root_of_archive(artifact: Artifact, folder: Path) -> Path:
    """The folder of an archive that has the artifact's files: its root, or the only one below it that fits."""
    folders = [folder, *sorted(path for path in folder.rglob("*") if path.is_dir())]
    fitting = [
        path
        for path in folders
        if not choose_files(artifact.kind, _names_in(artifact.kind, path)).missing
    ]
    if len(fitting) > 1 and fitting[0] != folder:
        found = ", ".join(str(path.relative_to(folder)) for path in fitting[:5])
        raise DataError(
            f"{artifact.name}: {len(fitting)} folders of the archive hold a {artifact.kind} ({found}); pack one"
        )
    return fitting[0] if fitting else folder


def place_files(files: Mapping[str, Path], target: Path, name: str, *, move: bool) -> Facts:
    """Put files into the target folder, all or none, and describe them.

    Args:
        files: name in the target → file to take.
        target: folder, may exist; a file in it that equals the wanted one stays.
        name: the artifact, for messages.
        move: the files may be taken away from where they are.

    Returns:
        File name → size in bytes and sha256.

    Raises:
        DataError: the target holds a different file of one of these names.
    """
    facts = {file: _describe(path) for file, path in files.items()}
    absent = {}
    for file, path in files.items():
        present = target / file
        if not present.exists():
            absent[file] = path
        elif not present.samefile(path) and _describe(present) != facts[file]:
            raise DataError(
                f"{name}: {present} exists with other content than the source's {path}; "
                "remove it if nothing needs it, or give the artifact another name"
            )
    if absent:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".incoming.") as folder:
            for file, path in absent.items():
                (Path(folder) / file).parent.mkdir(parents=True, exist_ok=True)
                _take(path, Path(folder) / file, move=move)
            for file in absent:
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / file).replace(target / file)
        sync_folder(target)
    logger.info("%s files=%d new=%d folder=%s", name, len(files), len(absent), target)
    return facts


def _take(path: Path, copy: Path, *, move: bool) -> None:
    """Move, hard-link or copy one file."""
    path = path.resolve()  # a cached file of the Hub is a link
    if move:
        shutil.move(path, copy)
        return
    if path.stat().st_size >= LINK_SIZE_BYTES:
        try:
            os.link(path, copy)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP):
                raise
            logger.info("copying file=%s reason=%s", path, error.strerror)
    shutil.copyfile(path, copy)
    with copy.open("rb") as stream:
        os.fsync(stream.fileno())


def _describe(path: Path) -> dict[str, int | str]:
    size_bytes = path.stat().st_size
    if size_bytes >= LINK_SIZE_BYTES:
        logger.info("hashing file=%s mib=%d", path, size_bytes >> 20)
    return {"size_bytes": size_bytes, "sha256": sha256_of_file(path)}
