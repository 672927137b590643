"""Errors of the Hugging Face Hub, or of what stands in its place, as errors of ours: the server's words, what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, cast

from cosmos_worker.config.addresses import shown_address
from cosmos_worker.config.stages import HuggingFaceSource
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.failures import one_line
from cosmos_worker.storage.stand_ins import describe_page

REFUSALS = (400, 401, 403, 404, 410, 451)
"""Answers that will be the same next time."""
HUB = "https://huggingface.co"
GIVE_TOKEN = "HF_TOKEN, on a cluster the Secret of spec.credentials.huggingFace"  # noqa: S105 - where it is given
STATUS_LINE = re.compile(r"\d{3} Client Error\.")
"""Line of the library before the one that says something."""
MAX_SAID = 300
"""Characters of the server's own words that a message keeps."""


@dataclass(frozen=True)
class Repository:
    """A repository and the server that is asked for it; for messages."""

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
        """How the requests were made."""
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
        DataError: it cannot.
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
    """The error for what went wrong on the way: final where the server refuses, else worth another try."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if type(error).__name__ == "TooManyRedirects":
        return _no_hub(repository, "a loop of redirects")
    if status not in REFUSALS:
        return RetryableError(
            f"{repository.where}: {_first_line(error)}; check the network and run again"
        )
    return DataError(
        f"{repository.where}: the server answers {status}: {_said(error)} ({repository.sent}{_address(error)}); "
        f"{_advice(repository, error, status)}"
    )


def _address(error: BaseException) -> str:
    """`` for ADDRESS`` that was asked, without a signature."""
    url = getattr(getattr(error, "response", None), "url", None)
    return f" for {shown_address(str(url))}" if url else ""


def _advice(repository: Repository, error: BaseException, status: int) -> str:
    """What to do about a refusal."""
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


def _said(error: BaseException) -> str:
    """The server's own sentence; else its page's title, else the library's words."""
    message = one_line(getattr(error, "server_message", None) or "")
    if message:
        return message[:MAX_SAID]
    response = getattr(error, "response", None)
    page = describe_page(response.content) if response is not None and _is_read(response) else None
    return page or _first_line(error)


def _is_read(response: object) -> bool:
    """Whether the body of a response is there; the library leaves those of files unread."""
    return bool(getattr(response, "is_stream_consumed", True))


def _first_line(error: BaseException) -> str:
    """What happened, without the library's advice on the following lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not STATUS_LINE.fullmatch(line)] or lines
    return f"{type(error).__name__}: {lines[0] if lines else 'no details'}"
