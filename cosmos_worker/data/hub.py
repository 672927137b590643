"""Repositories of the Hugging Face Hub, or of a mirror (HF_ENDPOINT), or of the local cache (HF_HUB_OFFLINE)."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from cosmos_worker.config import HuggingFaceSource
from cosmos_worker.data.pace import watching_folder
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.progress import shows_bars

logger = logging.getLogger(__name__)

REFUSALS = (400, 401, 403, 404, 410, 451)
"""Answers that will be the same next time."""
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
    from huggingface_hub import constants, errors

    where = f"hugging_face {source.repo}@{source.revision}"
    # HfHubHTTPError derives from the error of whichever HTTP client this version of the library has.
    transport = cast(tuple[type[Exception], ...], (OSError, *errors.HfHubHTTPError.__bases__))
    try:
        if constants.HF_HUB_OFFLINE:
            return _cached(source, repo_type)
        return _download(source, folder, repo_type, choose)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise DataError(
            f"{where}: {_first_line(error)}; check repo, revision and the access of HF_TOKEN"
        ) from None
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if constants.HF_HUB_OFFLINE:
            raise DataError(
                f"{where}: HF_HUB_OFFLINE is set and the cache {constants.HF_HUB_CACHE} "
                "has no complete copy; download it first, unset HF_HUB_OFFLINE or set HF_ENDPOINT to a mirror"
            ) from None
        raise _server_error(where, error.__cause__ or error) from None
    except errors.HFValidationError as error:
        raise DataError(f"{where}: {_first_line(error)}; repo is owner/name") from None
    except transport as error:
        raise _server_error(where, error) from None


def _server_error(where: str, error: BaseException) -> DataError | RetryableError:
    """The error for what went wrong on the way: final where the server refuses, else worth another try."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in REFUSALS:
        return DataError(
            f"{where}: the server answers {status}: {_first_line(error)}; check the access of HF_TOKEN"
        )
    return RetryableError(f"{where}: {_first_line(error)}; check the network and run again")


def _download(
    source: HuggingFaceSource, folder: Path, repo_type: Literal["model", "dataset"], choose: Choose
) -> Path:
    import huggingface_hub
    from huggingface_hub.hf_api import RepoFile

    api = huggingface_hub.HfApi()
    commit = api.repo_info(source.repo, repo_type=repo_type, revision=source.revision).sha
    if commit is None:
        raise RetryableError(f"hugging_face {source.repo}@{source.revision}: no commit; run again")
    snapshot = folder / commit
    tree = api.list_repo_tree(source.repo, repo_type=repo_type, revision=commit, recursive=True)
    sizes = {entry.path: entry.size for entry in tree if isinstance(entry, RepoFile)}
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
            f"hugging_face {source.repo}@{commit}: {len(absent)} files did not arrive, such as {absent[0]}; run again"
        )
    return snapshot


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


def _first_line(error: BaseException) -> str:
    """What happened, without the library's advice on the following lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no details'}"
