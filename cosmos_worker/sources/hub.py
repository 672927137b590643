"""Download repositories of the Hugging Face Hub, a mirror or the local cache; errors quote the server."""

from __future__ import annotations

import glob
import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from cosmos_worker.config.addresses import shown_address
from cosmos_worker.config.source import HuggingFaceSource
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.failures import one_line
from cosmos_worker.runtime.progress import shows_bars
from cosmos_worker.sources.download_progress import logging_growth
from cosmos_worker.storage.files import counted
from cosmos_worker.storage.web_page import (
    describe_page,
    refuse_page,
)

logger = logging.getLogger(__name__)

REFUSALS = (400, 401, 403, 404, 410, 451)
"""Status codes of answers that another attempt does not change."""
HUB = "https://huggingface.co"
GIVE_TOKEN = "HF_TOKEN, on a cluster the Secret of spec.credentials.huggingFace"  # noqa: S105 - where it is given
STATUS_LINE = re.compile(r"\d{3} Client Error\.")
"""A line of the library's errors that precedes the informative one."""
MAX_SAID = 300
"""Characters of the server's own words that a message keeps."""
Choose = Callable[[Sequence[str]], list[str]]
"""Picks the wanted files from the names of all files of a repository."""


@dataclass(frozen=True)
class Repository:
    """A repository and its server, for messages."""

    source: HuggingFaceSource
    repo_type: Literal["model", "dataset"]
    endpoint: str
    has_token: bool

    @property
    def where(self) -> str:
        """``hugging_face owner/name@main``, and the server if it is not the Hub."""
        at = "" if self.endpoint == HUB else f" at {self.endpoint}"
        return f"hugging_face {self.source.repo}@{self.source.revision}{at}"

    @property
    def page(self) -> str:
        """Address of the repository for a browser."""
        folder = "datasets/" if self.repo_type == "dataset" else ""
        return f"{self.endpoint}/{folder}{self.source.repo}"

    @property
    def sent(self) -> str:
        """Words about the requests: with or without a token."""
        return "asked with a token" if self.has_token else "asked without a token"


def find_repository(
    source: HuggingFaceSource, repo_type: Literal["model", "dataset"]
) -> Repository:
    """The repository, as the Hub's library is configured here.

    Raises:
        DataError: a token that cannot be one.
    """
    import huggingface_hub
    from huggingface_hub import constants

    token = huggingface_hub.get_token()
    repository = Repository(source, repo_type, constants.ENDPOINT.rstrip("/"), bool(token))
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise DataError(
            f"{repository.where}: the token has spaces, line breaks or letters that no token has; correct {GIVE_TOKEN}"
        )
    return repository


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
        with _bars_on_terminals_only(), logging_growth(snapshot, total, f"repo={source.repo}"):
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
            f"{repository.where}: {counted(len(absent), 'file')} did not arrive, such as {absent[0]}; run again"
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
    """Patterns of the wanted files; None = all: the library takes hours to match 50,000 patterns with 50,000 names."""
    return None if set(wanted) == set(names) else [glob.escape(name) for name in wanted]


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    """Switch the library's progress bars off where no terminal shows them: it would write them into log files."""
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


# --- errors in the words of the server ---------------------------------------------------------


@contextmanager
def readable_errors(repository: Repository) -> Iterator[None]:
    """Turn what the Hub's library raises into errors of ours.

    Raises:
        DataError: no such repository or revision, no access, no Hub, or offline without a cached copy.
        RetryableError: the network or the server fails for now.
    """
    from huggingface_hub import constants, errors

    where = repository.where
    # HfHubHTTPError derives from the error of whichever HTTP client this version of the library has.
    transport = cast(tuple[type[Exception], ...], (OSError, *errors.HfHubHTTPError.__bases__))
    try:
        yield
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        if constants.HF_HUB_OFFLINE:
            raise DataError(
                f"{where}: HF_HUB_OFFLINE is set and the cache {constants.HF_HUB_CACHE} "
                "has no complete copy; download it first, unset HF_HUB_OFFLINE or set HF_ENDPOINT to a mirror"
            ) from None
        raise _answer(repository, error.__cause__ or error) from None
    except errors.HFValidationError as error:
        raise DataError(f"{where}: {_first_line(error)}; repo is owner/name") from None
    except json.JSONDecodeError as error:
        found = describe_page(error.doc.encode()) or (
            "an answer that is not JSON" if error.doc.strip() else "an empty answer"
        )
        raise _no_hub(repository, found) from None
    except transport as error:
        raise _answer(repository, error) from None


@contextmanager
def hub_answers(repository: Repository) -> Iterator[None]:
    """Refuse JSON of something else than a Hub; for the library's calls that read answers into its own objects.

    Raises:
        DataError: the answer is not that of a Hub.
    """
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise _no_hub(repository, f"JSON of something else ({one_line(str(error))})") from None


def _no_hub(repository: Repository, found: str) -> DataError:
    return DataError(
        f"{repository.where}: what answers is no Hugging Face Hub: got {found} from {repository.endpoint}/api; check "
        "HF_ENDPOINT (hub.endpoint of the chart), and look whether a proxy or a login page stands between"
    )


def _answer(repository: Repository, error: BaseException) -> DataError | RetryableError:
    """The error for a failed request: a DataError where the server refuses, else a RetryableError."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if type(error).__name__ == "TooManyRedirects":
        return _no_hub(repository, "a loop of redirects")
    if status not in REFUSALS:
        return RetryableError(
            f"{repository.where}: {_first_line(error)}; check the network and run again"
        )
    return DataError(
        f"{repository.where}: the server answers {status}: {_words_of(error)} ({repository.sent}{_address(error)}); "
        f"{_advice(repository, error, status)}"
    )


def _address(error: BaseException) -> str:
    """`` for ADDRESS`` of the request, without a signature."""
    url = getattr(getattr(error, "response", None), "url", None)
    return f" for {shown_address(str(url))}" if url else ""


def _advice(repository: Repository, error: BaseException, status: int) -> str:
    """Advice about a refusal."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        first = f"open {repository.page} in a browser and accept its conditions"
        if repository.has_token:
            return f"{first} with the account of the token, or give the token of one that has access: {GIVE_TOKEN}"
        return f"{first}, then give that account's token: {GIVE_TOKEN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"check revision; {repository.page} shows what there is"
    if isinstance(error, errors.EntryNotFoundError):
        return f"a file that it lists is not there; look at {repository.page}, then give a commit as revision"
    if isinstance(error, errors.DisabledRepoError):
        return f"look at {repository.page}, or take the files from elsewhere"
    if (
        repository.has_token
        and status == 401
        and not isinstance(error, errors.RepositoryNotFoundError)
    ):
        return f"renew the token: {GIVE_TOKEN}"
    return f"check repo ({repository.page}); a private one needs a token that may read it: {GIVE_TOKEN}"


def _words_of(error: BaseException) -> str:
    """The server's own sentence; else its page's title, else the library's words."""
    message = one_line(getattr(error, "server_message", None) or "")
    if message:
        return message[:MAX_SAID]
    response = getattr(error, "response", None)
    page = describe_page(response.content) if response is not None and _is_read(response) else None
    return page or _first_line(error)


def _is_read(response: object) -> bool:
    """True if the body of a response was read; the library leaves those of files unread."""
    return bool(getattr(response, "is_stream_consumed", True))


def _first_line(error: BaseException) -> str:
    """Kind and first line of an error, without the library's advice on the following lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not STATUS_LINE.fullmatch(line)] or lines
    return f"{type(error).__name__}: {lines[0] if lines else 'no details'}"
