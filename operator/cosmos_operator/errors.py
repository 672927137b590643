"""Errors of the operator and of ``cosmos``, one class for each thing that the caller should do.

OperatorError
├── InvalidSpec         never retry: a job or a setting is wrong, one line a problem   exit code 2
├── WorkspaceBusy       another run uses the workspace: wait for it or end it          exit code 74
├── ClusterUnavailable  the API server cannot be reached or is busy: try again later
└── Refused             the API server rejects a request, and says why
"""

from __future__ import annotations

from collections.abc import Iterable

from cosmos_worker.errors import EXIT_BUG, EXIT_RETRY, EXIT_USER_ERROR


class OperatorError(Exception):
    """Base of all errors that are expected and reported in one line."""

    exit_code = EXIT_BUG


class InvalidSpec(OperatorError):  # noqa: N818 - it says what is wrong, not that something is
    """A job, or the settings, cannot be accepted; ``problems`` holds one line for each problem."""

    exit_code = EXIT_USER_ERROR

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class WorkspaceBusy(OperatorError):  # noqa: N818 - it is a state, not a mistake
    """Another run, or a worker that it left behind, uses the workspace."""

    exit_code = EXIT_RETRY


class ClusterUnavailable(OperatorError):  # noqa: N818 - it is a state, not a mistake
    """The API server cannot be reached, is overloaded, or has a newer object: the same pass may succeed later."""

    exit_code = EXIT_RETRY


class Conflict(ClusterUnavailable):
    """The API server has a newer version of the object than the one that was read: read it again."""


class Refused(OperatorError):  # noqa: N818 - it is an answer, not a mistake
    """The API server rejected a request; ``status`` is the HTTP status, ``message`` the reason."""

    def __init__(self, status: int, message: str) -> None:
        self.status, self.message = status, message
        super().__init__(f"the API server refused ({status}): {message}")
