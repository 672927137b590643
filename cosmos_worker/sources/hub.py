"""Repositories of the Hugging Face Hub, or of a mirror (HF_ENDPOINT), or of the local cache (HF_HUB_OFFLINE)."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cosmos_worker.config.stages import HuggingFaceSource
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.progress import shows_bars
from cosmos_worker.sources.hub_errors import (
    Repository,
    find_repository,
    hub_answers,
    readable_errors,
)
from cosmos_worker.sources.download_progress import watching_folder
from cosmos_worker.storage.stand_ins import refuse_page

logger = logging.getLogger(__name__)

Choose = Callable[[Sequence[str]], list[str]]
"""Picks the wanted files from the names of all files of a repository."""


def download_repository(
    source: HuggingFaceSource, folder: Path, repo_type: Literal["model", "dataset"], choose: Choose
) -> Path:
    """Download the wanted files of a repository; what an earlier attempt has got is not fetched again.

    Args:
        source: repository and revision.
        folder: receives a folder named by the commit; after a failure it stays, for the next attempt.
        repo_type: model or dataset.
        choose: picks the wanted files.

    Returns:
        The folder with the files: ``folder/<commit>``, or with HF_HUB_OFFLINE the snapshot in the Hub's cache.

    Raises:
        DataError: no such repository or revision, no access, or offline without a cached copy.
        RetryableError: the network fails.
    """
    from huggingface_hub import constants

    repository = find_repository(source, repo_type)
    with readable_errors(repository):
        if constants.HF_HUB_OFFLINE:
            return _cached(source, repo_type)
        return _download(repository, folder, choose)


def _download(repository: Repository, folder: Path, choose: Choose) -> Path:
    import huggingface_hub
    from huggingface_hub.hf_api import RepoFile

    source, repo_type = repository.source, repository.repo_type
    api = huggingface_hub.HfApi()
    with hub_answers(repository):
        commit = api.repo_info(source.repo, repo_type=repo_type, revision=source.revision).sha
        if commit is None:
            raise RetryableError(f"{repository.where}: no commit; run again")
        tree = api.list_repo_tree(source.repo, repo_type=repo_type, revision=commit, recursive=True)
        sizes = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
    snapshot = folder / commit
    wanted = choose(list(sizes))
    total = sum(sizes[name] for name in wanted)
    logger.info(
        "fetching repo=%s commit=%s files=%d mib=%d", source.repo, commit, len(wanted), total >> 20
    )
    if wanted:
        with _bars_on_terminals_only(), watching_folder(snapshot, total, f"repo={source.repo}"):
            huggingface_hub.snapshot_download(
                source.repo,
                repo_type=repo_type,
                revision=commit,
                local_dir=snapshot,
                allow_patterns=_patterns(wanted, sizes),
            )
    absent = [name for name in wanted if not (snapshot / name).is_file()]
    if absent:
        raise RetryableError(
            f"{repository.where}: {len(absent)} files did not arrive, such as {absent[0]}; run again"
        )
    for name in wanted:
        _check_file(repository, snapshot, name, sizes[name])
    return snapshot


def _check_file(repository: Repository, snapshot: Path, name: str, size_bytes: int) -> None:
    """Refuse a file that a proxy or a mirror has replaced or cut; the next attempt fetches it again.

    Raises:
        DataError: it is a web page; with the file's address and the page's title.
        RetryableError: it has another size than the repository lists.
    """
    path = snapshot / name
    address = f"{repository.page}/resolve/{snapshot.name}/{name}"
    try:
        refuse_page(path, address, name)
        found = path.stat().st_size
        if found != size_bytes:
            raise RetryableError(
                f"{address}: {found} bytes arrived, the repository lists {size_bytes}; run again, and look whether a "
                "proxy or a mirror stands between"
            )
    except (DataError, RetryableError):
        path.unlink()
        raise


def _patterns(wanted: Sequence[str], names: Collection[str]) -> list[str] | None:
    """What the library is to take. It tries each pattern on each file, which takes hours for 50,000 of both."""
    return None if set(wanted) == set(names) else [glob.escape(name) for name in wanted]


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """The library draws its bars into log files too, a line for every step."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    change = not shows_bars() and not are_progress_bars_disabled()
    if change:
        disable_progress_bars()
    try:
        yield
    finally:
        if change:
            enable_progress_bars()


def _cached(source: HuggingFaceSource, repo_type: Literal["model", "dataset"]) -> Path:
    """The cached snapshot. A model may be cached in part: its files are checked by the caller."""
    import huggingface_hub

    return Path(
        huggingface_hub.snapshot_download(
            source.repo,
            repo_type=repo_type,
            revision=source.revision,
            local_files_only=True,
            allow_patterns="config.json" if repo_type == "model" else None,
        )
    )
