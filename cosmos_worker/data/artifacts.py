"""Folders of model files: from folder, archive, repository or bucket into the models volume, checked for completeness.

An artifact's files are first complete beside the target, then moved into it, so that a target holds whole files or
none. A target that holds other files of the same names is never overwritten.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.config import Artifact, HuggingFaceSource, S3Source
from cosmos_worker.data.archive import extract_file, extract_url
from cosmos_worker.data.artifact_files import choose_files, names_in, with_shards
from cosmos_worker.data.candidate import folder_content, shorten
from cosmos_worker.data.fetch import partial_folder
from cosmos_worker.data.hub import download_repository
from cosmos_worker.data.lfs import REMEDY, is_lfs_pointer
from cosmos_worker.data.placing import Facts, describe_file, place_files
from cosmos_worker.data.web_page import refuse_page
from cosmos_worker.data.weight_forms import ADAPTER_FILE, SUFFIX, choose_weights, list_names
from cosmos_worker.errors import DataError
from cosmos_worker.layout import MODEL_FILE, Volumes, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fetched:
    """What a target folder has of an artifact."""

    files: Facts
    commit: str | None = None
    """Of the repository; None for other sources, and for what was fetched before commits were recorded."""


def fetch_artifact(artifact: Artifact, volumes: Volumes) -> Fetched:
    """Bring an artifact's files into its target folder and check them.

    Raises:
        DataError: needed files are missing, or the target holds other files of these names.
        CheckpointError: a model's weights are ambiguous, or their index is damaged.
        RetryableError: the network fails.
    """
    target = volumes.resolve(artifact.target_uri)
    if artifact.source.path is not None:
        files = _files_of_path(artifact, volumes.resolve(artifact.source.path))
        fetched = Fetched(place_files(files, target, artifact.name, move=False))
    else:
        record = target / f"fetched-{artifact.kind}.json"
        before = _fetched_before(artifact, record)
        if before is None:
            target.parent.mkdir(parents=True, exist_ok=True)
            fetched = _fetch_remote(artifact, target)
            source = artifact.source.model_dump(mode="json")
            held = {"source": source, "commit": fetched.commit, "files": fetched.files}
            write_json(record, held)
        else:
            fetched = before
    if artifact.kind == "model":
        _check_loads(artifact, target, fetched.files)
    return fetched


def _check_loads(artifact: Artifact, target: Path, files: Facts) -> None:
    """What the later stages will load from the target is what was fetched.

    Raises:
        DataError: the target holds another, better form, or an adapter.
    """
    loaded = choose_weights(list_names(target), str(target))
    if loaded not in files:
        raise DataError(
            f"{artifact.name}: {target / str(loaded)} would be loaded instead of {next(iter(files))}, which was "
            "fetched; remove it if nothing needs it, or give the artifact another name"
        )
    if (target / ADAPTER_FILE).is_file() and ADAPTER_FILE not in files:
        raise DataError(
            f"{artifact.name}: {target / ADAPTER_FILE} would be merged, which was not fetched; remove it, or give the "
            "artifact another name"
        )


def _fetched_before(artifact: Artifact, record: Path) -> Fetched | None:
    """What an earlier run fetched from the same source, if all of it is still there."""
    if not record.is_file():
        return None
    held = json.loads(record.read_text(encoding="utf-8"))
    files: Facts = held["files"]
    if held["source"] != artifact.source.model_dump(mode="json"):
        return None
    for name, facts in files.items():
        path = record.parent / name
        if not path.is_file() or describe_file(path) != facts:
            return None
    logger.info("%s already fetched folder=%s", artifact.name, record.parent)
    return Fetched(files, held.get("commit"))


def _fetch_remote(artifact: Artifact, target: Path) -> Fetched:
    source = artifact.source
    if source.url is not None:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
            extract_url(source.url, Path(name))
            root = _root_of_archive(artifact, Path(name))
            return Fetched(place_files(_files_in(artifact, root), target, artifact.name, move=True))
    partial = partial_folder(source, target)
    if source.s3 is not None:
        return Fetched(_fetch_objects(artifact, source.s3, partial, target))
    assert source.hugging_face is not None
    folder = _download(artifact, source.hugging_face, partial)
    is_download = folder.parent == partial
    facts = place_files(_files_in(artifact, folder), target, artifact.name, move=is_download)
    shutil.rmtree(partial, ignore_errors=True)
    return Fetched(facts, folder.name)


def _download(artifact: Artifact, source: HuggingFaceSource, partial: Path) -> Path:
    """The artifact's files of a repository; a model's index first, then the shards that it names."""
    where = f"hugging_face {source.repo}@{source.revision}"
    folder = download_repository(source, partial, "model", _chooser(artifact, where))
    if folder.parent == partial and (shards := _lacking_shards(artifact, folder)):
        pinned = source.model_copy(update={"revision": folder.name})
        download_repository(
            pinned, partial, "model", lambda names: [n for n in shards if n in names]
        )
    return folder


def _chooser(artifact: Artifact, where: str) -> Callable[[Sequence[str]], list[str]]:
    """Picks the artifact's files among the names that a repository or a bucket holds."""

    def choose(names: Sequence[str]) -> list[str]:
        choice = choose_files(artifact.kind, names)
        if choice.missing:
            raise _lacking(artifact, where, choice.missing, shorten(sorted(names)))
        return choice.names

    return choose


def _lacking_shards(artifact: Artifact, folder: Path) -> list[str]:
    """All files of a downloaded model whose index names shards that are not there; empty if all are."""
    if artifact.kind != "model":
        return []
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    whole = with_shards(choose_files("model", names), folder)
    return whole.names if whole.missing else []


def _fetch_objects(artifact: Artifact, source: S3Source, partial: Path, target: Path) -> Facts:
    """The artifact's objects below a prefix; or a single one, an archive or a model's weights."""
    from cosmos_worker.data import s3  # boto3 is loaded only where it is needed

    with s3.exclusive(partial):
        found = s3.download_source(source, partial, _chooser(artifact, source.uri))
        with tempfile.TemporaryDirectory(dir=partial, prefix="extracted.") as name:
            folder = found
            if found.is_file() and s3.is_archive(found.name):
                extract_file(found, Path(name), source.uri)
                folder = _root_of_archive(artifact, Path(name))
            elif found.is_file() and artifact.kind != "model":
                raise DataError(
                    f"{artifact.name}: {source.uri} is a single file; give the prefix of a folder, or one of "
                    f"{', '.join(s3.ARCHIVE_SUFFIXES)}"
                )
            elif found.is_dir() and (shards := _lacking_shards(artifact, found)):
                s3.download_source(source, partial, lambda names: [n for n in shards if n in names])
            files = _weights_of_file(found) if folder.is_file() else _files_in(artifact, folder)
            return place_files(files, target, artifact.name, move=True)


def _refuse_stand_in(path: Path) -> None:
    """Refuse a file that only stands for the wanted one.

    Raises:
        DataError: a Git LFS pointer or a web page.
    """
    if is_lfs_pointer(path):
        raise DataError(f"{path}: a Git LFS pointer, not the file; {REMEDY}")
    refuse_page(path, str(path), path.name)


def _weights_of_file(path: Path) -> dict[str, Path]:
    """A single file of weights under the name that models have.

    Raises:
        DataError: it is no file of weights.
    """
    _refuse_stand_in(path)
    return {Path(MODEL_FILE).stem + path.suffix: path}


def _files_of_path(artifact: Artifact, path: Path) -> dict[str, Path]:
    if artifact.kind == "model" and path.is_file() and path.suffix in (".pt", SUFFIX):
        return _weights_of_file(path)
    if not path.is_dir():
        hint = f" or a .pt or {SUFFIX} file" if artifact.kind == "model" else ""
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
    choice = choose_files(artifact.kind, names_in(artifact.kind, folder))
    if artifact.kind == "model":
        choice = with_shards(choice, folder)
        missing = choice.missing
    else:
        missing = [*choice.missing, *_missing_pieces(folder, choice.names)]
    if missing:
        raise _lacking(artifact, str(folder), missing, folder_content(folder))
    for name in choice.names:
        _refuse_stand_in(folder / name)
    return {name: folder / name for name in choice.names}


def _lacking(artifact: Artifact, where: str, missing: Sequence[str], content: str) -> DataError:
    return DataError(
        f"{artifact.name}: {where} lacks {', '.join(missing)} for a {artifact.kind}; it holds {content}; "
        "add the files or correct the source"
    )


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
        if not choose_files(artifact.kind, names_in(artifact.kind, path)).missing
    ]
    if artifact.kind == "model":  # transformer/ is also one by itself
        fitting = [path for path in fitting if path.parent not in fitting]
    if len(fitting) > 1 and fitting[0] != folder:
        found = ", ".join(str(path.relative_to(folder)) for path in fitting[:5])
        raise DataError(
            f"{artifact.name}: {len(fitting)} folders of the archive hold a {artifact.kind} ({found}); pack one"
        )
    return fitting[0] if fitting else folder
