"""Folders of model files: from folder, archive, repository or bucket into the models volume, checked for completeness.

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

from cosmos_worker.config.stages import (
    Artifact,
    HuggingFaceSource,
    S3Source,
)
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
from cosmos_worker.storage.file_digests import stamp
from cosmos_worker.storage.file_kinds import (
    SAFETENSORS,
    TORCH_ZIP,
    recognise,
    refuse_pointers,
    refuse_pointers_in,
)
from cosmos_worker.storage.files import folder_content, shorten
from cosmos_worker.storage.volumes import (
    MODEL_FILE,
    Volumes,
    write_json,
)
from cosmos_worker.storage.web_page import refuse_page
from cosmos_worker.weights.artifact_files import (
    choose_files,
    names_in,
    with_shards,
)
from cosmos_worker.weights.forms import (
    ADAPTER_FILES,
    SUFFIX,
    choose_weights,
    list_names,
    names_below,
    other_corrections,
    others_in,
)

logger = logging.getLogger(__name__)

Check = Callable[[str, Mapping[str, Path], Path | None], None]
"""Looks at the files of an artifact before they are placed: its kind, the files by their names in the target, and the
folder that they were chosen in (None = a single file)."""


@dataclass(frozen=True)
class Fetched:
    """What a target folder has of an artifact."""

    files: Facts
    commit: str | None = None
    """Of the repository; None for other sources, and for what was fetched before commits were recorded."""


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
        files = _files_of_path(artifact, path)
        check(artifact.kind, files, path if path.is_dir() else None)
        fetched = Fetched(place_files(files, target, artifact.name, move=False))
        if artifact.kind == "model":
            try:
                _write_record(record, artifact, fetched)
            except OSError as error:  # files that were there already, on a volume that is only read
                logger.info("%s: no record is kept (%s)", record, error.strerror)
    else:
        before = _fetched_before(artifact, record)
        fetched = before or _fetch_remote(artifact, target, record, check)
    if artifact.kind == "model":
        _check_loads(artifact, target, fetched.files)
    return fetched


def _write_record(record: Path, artifact: Artifact, fetched: Fetched) -> None:
    """Write where the files are from, and by what they are known again."""
    files = {
        name: {**facts, **stamp(record.parent / name)} for name, facts in fetched.files.items()
    }
    source = artifact.source.model_dump(mode="json")
    write_json(record, {"source": source, "commit": fetched.commit, "files": files})


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
    for name in ADAPTER_FILES:
        if (target / name).is_file() and name not in files:
            raise DataError(
                f"{artifact.name}: {target / name} would be merged, which was not fetched; remove it, or give the "
                "artifact another name"
            )


def _fetched_before(artifact: Artifact, record: Path) -> Fetched | None:
    """What an earlier run fetched from the same source, if all of it is still there."""
    if not record.is_file():
        return None
    held = json.loads(record.read_text(encoding="utf-8"))
    if held["source"] != artifact.source.model_dump(mode="json"):
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
    with s3.exclusive(partial):
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
            root = _root_of_archive(artifact, Path(name))
            files = _files_in(artifact, root)
            check(artifact.kind, files, root)
            return Fetched(place_files(files, target, artifact.name, move=True))
    partial = partial_folder(source, target)
    assert source.hugging_face is not None
    folder = _download(artifact, source.hugging_face, partial)
    is_download = folder.parent == partial
    files = _files_in(artifact, folder)
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
            raise _lacking(artifact, where, choice.missing, names, shorten(sorted(names)))
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
            folder = _root_of_archive(artifact, Path(name))
        elif found.is_file() and artifact.kind != "model":
            raise DataError(
                f"{artifact.name}: {source.uri} is a single file; give the prefix of a folder, or one of "
                f"{', '.join(s3.ARCHIVE_SUFFIXES)}"
            )
        elif found.is_dir() and (shards := _lacking_shards(artifact, found)):
            s3.download_source(source, partial, lambda names: [n for n in shards if n in names])
        files = (
            _weights_of_file(artifact, found, source.uri)
            if folder.is_file()
            else _files_in(artifact, folder)
        )
        beside = folder if folder.is_dir() else None
        _check_download(artifact, files, beside, partial, check)
        return place_files(files, target, artifact.name, move=True)


def _refuse_stand_in(path: Path) -> None:
    """Refuse a file that only stands for the wanted one.

    Raises:
        CheckpointError: a Git LFS pointer.
        DataError: a web page.
    """
    refuse_pointers([path])
    refuse_page(path, str(path), path.name)


def _weights_of_file(artifact: Artifact, path: Path, where: str) -> dict[str, Path]:
    """A single file of weights under the name that models have: by its content, or by its own name if that is damaged.

    Raises:
        DataError: a file of another kind, which is named.
    """
    _refuse_stand_in(path)
    kind = recognise(path)
    if kind in (TORCH_ZIP, SAFETENSORS):
        return {MODEL_FILE if kind == TORCH_ZIP else Path(MODEL_FILE).stem + SUFFIX: path}
    if path.suffix in (".pt", SUFFIX):
        return {Path(MODEL_FILE).stem + path.suffix: path}
    raise DataError(
        f"{artifact.name}: {where} is {kind or 'no weight file that is known'}; "
        "give a file of torch.save or safetensors, or the folder of several"
    )


def _files_of_path(artifact: Artifact, path: Path) -> dict[str, Path]:
    if artifact.kind == "model" and path.is_file():
        return _weights_of_file(artifact, path, f"source path {artifact.source.path} ({path})")
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
        refuse_pointers_in(folder)
        names = names_below(folder) if artifact.kind == "model" else []
        raise _lacking(artifact, str(folder), missing, names, folder_content(folder))
    for name in choice.names:
        _refuse_stand_in(folder / name)
    return {name: folder / name for name in choice.names}


def _lacking(
    artifact: Artifact, where: str, missing: Sequence[str], names: Sequence[str], content: str
) -> DataError:
    return DataError(
        f"{artifact.name}: {where} lacks {', '.join(missing)} for a {artifact.kind}; it holds {content}"
        f"{others_in(names) if artifact.kind == 'model' else ''}; add the files or correct the source"
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
