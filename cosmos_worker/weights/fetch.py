"""Fetch the files of an artifact from a folder, archive, repository or bucket into the models volume, and check them.

An artifact's files are first complete beside the target, then moved into it, so that a target holds whole files or
none. A target that holds other files of the same names is never overwritten.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosmos_worker.config.addresses import recorded
from cosmos_worker.config.source import Artifact, HuggingFaceSource, S3Source
from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.sources.archive import (
    extract_file,
    extract_url,
)
from cosmos_worker.sources.folder import (
    Facts,
    describe_file,
    partial_folder,
    place_files,
)
from cosmos_worker.sources.hub import download_repository
from cosmos_worker.storage.file_digests import digest_of_files, stamp
from cosmos_worker.storage.files import shorten
from cosmos_worker.storage.links import leads_outside
from cosmos_worker.storage.volumes import (
    Volumes,
    write_json,
)
from cosmos_worker.weights.artifact_files import (
    choose_files,
    files_in,
    files_of_path,
    lacking_files,
    root_of_archive,
    weights_of_file,
    with_shards,
)
from cosmos_worker.weights.forms import (
    ADAPTER_FILES,
    choose_weights,
    list_names,
    other_corrections,
)

logger = logging.getLogger(__name__)

Check = Callable[[str, Mapping[str, Path], Path | None], None]
"""Checks the files of an artifact before they are moved into the target. Arguments: its kind; the files by their names
in the target; the folder that they were chosen in (None = a single file)."""


@dataclass(frozen=True)
class Fetched:
    """The files of an artifact in its target folder."""

    files: Facts
    commit: str | None = None
    """Commit of the repository; None for other sources, and for what was fetched before commits were recorded."""


def fetch_artifact(artifact: Artifact, volumes: Volumes, check: Check) -> Fetched:
    """Bring an artifact's files into its target folder and check them.

    Args:
        artifact: what to fetch.
        volumes: where its target is.
        check: raises if the files are not right.

    Raises:
        DataError: needed files are missing, or the target holds other files of these names.
        CheckpointError: a model's weights are ambiguous, damaged or not finite, or their index is damaged.
        RetryableError: the network fails.
    """
    target = volumes.resolve(artifact.target_uri)
    record = target / f"fetched-{artifact.kind}.json"
    if artifact.source.path is not None:
        path = volumes.resolve(artifact.source.path)
        files = files_of_path(artifact, path)
        _refuse_links_outside(artifact, path, files)
        check(artifact.kind, files, path if path.is_dir() else None)
        fetched = Fetched(place_files(files, target, artifact.name, move=False))
        _check_pin(artifact, fetched.files)
        try:
            _write_record(record, artifact, fetched)
        except OSError as error:  # files that were there already, on a volume that is only read
            logger.info("%s: no record is kept (%s)", record, error.strerror)
    else:
        before = _fetched_before(artifact, record)
        fetched = before or _fetch_remote(artifact, target, record, check)
        _check_pin(artifact, fetched.files)
    if artifact.kind == "model":
        _check_loads(artifact, target, fetched.files)
    return fetched


def _check_pin(artifact: Artifact, files: Facts) -> None:
    """Compare fetched files with the digest that the job gives.

    Raises:
        CheckpointError: they are others.
    """
    found = digest_of_files(files)
    if artifact.sha256 not in (None, found):
        raise CheckpointError(
            f"{artifact.name}: the files {shorten(sorted(files))} have the SHA-256 {found} together, the job asks for "
            f"{artifact.sha256}; correct sha256 of the source, or find out who has changed the files"
        )


def _refuse_links_outside(artifact: Artifact, folder: Path, files: Mapping[str, Path]) -> None:
    """Refuse files of a folder that are links to something outside of it.

    Raises:
        DataError: one is.
    """
    for file in files.values() if folder.is_dir() else ():
        if file.is_relative_to(folder) and leads_outside(folder, file.relative_to(folder)):
            raise DataError(
                f"{artifact.name}: {file} is a link to something outside of {folder}, which is not followed; copy the "
                "file into the folder"
            )


def _write_record(record: Path, artifact: Artifact, fetched: Fetched) -> None:
    """Write the source of the files, and the facts by which they are known again."""
    files = {
        name: {**facts, **stamp(record.parent / name)} for name, facts in fetched.files.items()
    }
    source = recorded(artifact.source.model_dump(mode="json"))
    write_json(record, {"source": source, "commit": fetched.commit, "files": files})


def _check_loads(artifact: Artifact, target: Path, files: Facts) -> None:
    """Make sure that later stages load the fetched files from the target, and no others.

    Raises:
        DataError: the target holds another, better form, or an adapter.
    """
    loaded = choose_weights(list_names(target), str(target))
    if loaded not in files:
        raise DataError(
            f"{artifact.name}: {target / str(loaded)} would be loaded instead of {next(iter(files))}, which was "
            "fetched; remove it if nothing needs it, or give the artifact another name"
        )
    for name in ADAPTER_FILES:
        if (target / name).is_file() and name not in files:
            raise DataError(
                f"{artifact.name}: {target / name} would be merged, which was not fetched; remove it, or give the "
                "artifact another name"
            )


def _fetched_before(artifact: Artifact, record: Path) -> Fetched | None:
    """The files that an earlier run fetched from the same source, if all of them are still there."""
    if not record.is_file():
        return None
    held = json.loads(record.read_text(encoding="utf-8"))
    wanted = artifact.source.model_dump(mode="json")
    if held["source"] not in (
        recorded(wanted),
        wanted,
    ):  # the latter by versions that recorded whole addresses
        return None
    files: Facts = {
        name: {key: facts[key] for key in ("size_bytes", "sha256")}
        for name, facts in held["files"].items()
    }
    for name, facts in files.items():
        path = record.parent / name
        if not path.is_file() or describe_file(path) != facts:
            return None
    logger.info("%s already fetched folder=%s", artifact.name, record.parent)
    return Fetched(files, held.get("commit"))


def _fetch_remote(artifact: Artifact, target: Path, record: Path, check: Check) -> Fetched:
    """Download an artifact, place its files and write their record."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if artifact.source.s3 is None:
        fetched = _fetch_unshared(artifact, target, check)
        _write_record(record, artifact, fetched)
        return fetched
    from cosmos_worker.sources import s3  # boto3 is loaded only where it is needed

    partial = partial_folder(artifact.source, target)
    with s3.locked_download(partial):
        before = _fetched_before(artifact, record)  # by another process, while this one waited
        if before is not None:
            return before
        fetched = Fetched(_fetch_objects(artifact, artifact.source.s3, partial, target, check))
        _write_record(record, artifact, fetched)
        return fetched


def _fetch_unshared(artifact: Artifact, target: Path, check: Check) -> Fetched:
    """Files of a URL or of the Hub, whose downloads take no lock."""
    source = artifact.source
    if source.url is not None:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
            extract_url(source.url, Path(name))
            root = root_of_archive(artifact, Path(name))
            files = files_in(artifact, root)
            check(artifact.kind, files, root)
            return Fetched(place_files(files, target, artifact.name, move=True))
    partial = partial_folder(source, target)
    assert source.hugging_face is not None
    folder = _download(artifact, source.hugging_face, partial)
    is_download = folder.parent == partial
    files = files_in(artifact, folder)
    _check_download(artifact, files, folder, partial, check)
    facts = place_files(files, target, artifact.name, move=is_download)
    shutil.rmtree(partial, ignore_errors=True)
    return Fetched(facts, folder.name)


def _check_download(
    artifact: Artifact, files: Mapping[str, Path], folder: Path | None, partial: Path, check: Check
) -> None:
    """Check downloaded files; those that are not right are removed, or the next attempt would take the same ones."""
    try:
        check(artifact.kind, files, folder)
    except CheckpointError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


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
            raise lacking_files(artifact, where, choice.missing, names, shorten(sorted(names)))
        left = [name for name in other_corrections(names) if name not in choice.names]
        if left and artifact.kind == "model":
            logger.warning(
                "%s: %s holds %s, which by their names are LoRA corrections; they are not fetched and not applied",
                artifact.name, where, shorten(left),
            )  # fmt: skip
        return choice.names

    return choose


def _lacking_shards(artifact: Artifact, folder: Path) -> list[str]:
    """All files of a downloaded model whose index names shards that are not there; empty if all are."""
    if artifact.kind != "model":
        return []
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    whole = with_shards(choose_files("model", names), folder)
    return whole.names if whole.missing else []


def _fetch_objects(
    artifact: Artifact, source: S3Source, partial: Path, target: Path, check: Check
) -> Facts:
    """The artifact's objects below a prefix; or a single one, an archive or a model's weights.

    The caller holds the lock of ``partial``.
    """
    from cosmos_worker.sources import s3

    found = s3.download_source(source, partial, _chooser(artifact, source.uri))
    with tempfile.TemporaryDirectory(dir=partial, prefix=s3.EXTRACTED) as name:
        folder = found
        if found.is_file() and s3.is_archive(found.name):
            extract_file(found, Path(name), source.uri)
            folder = root_of_archive(artifact, Path(name))
        elif found.is_file() and artifact.kind != "model":
            raise DataError(
                f"{artifact.name}: {source.uri} is a single file; give the prefix of a folder, or one of "
                f"{', '.join(s3.ARCHIVE_SUFFIXES)}"
            )
        elif found.is_dir() and (shards := _lacking_shards(artifact, found)):
            s3.download_source(source, partial, lambda names: [n for n in shards if n in names])
        files = (
            weights_of_file(artifact, found, source.uri)
            if folder.is_file()
            else files_in(artifact, folder)
        )
        beside = folder if folder.is_dir() else None
        _check_download(artifact, files, beside, partial, check)
        return place_files(files, target, artifact.name, move=True)
