"""Errors of the worker, split by what the caller should do about them.

WorkerError
├── UserError            never retry: the input is wrong                     exit code 2
│   ├── ConfigError      a job, a stage document, an override, a flag
│   │   └── ImageTooOld  a document for a newer version of this program
│   ├── DataError        a dataset, a clip, a caption, an embedding, a latent
│   └── CheckpointError  a weight file or a training checkpoint
├── RetryableError       the same command may succeed later (disk, network)  exit code 74
│   └── FolderInUseError another process still trains there
└── StopRequested        stopped after SIGTERM, nothing is lost: continue me exit code 75

Failures of the machinery come as exceptions of PyTorch or as signals; ``failures.py`` recognises them:

PeerLost                 another process, or the network between them, is gone   exit code 80
GpuFault                 the GPU or its driver failed: try another node          exit code 81
OutOfMemory              of the GPU: exit code 1; of the container: exit code 137
Killed, Crashed          ended by signal N from outside, or of its own doing: exit code 128 + N

Anything else is a bug of ours and ends with a traceback and exit code 1. A message is one line that says
where, what was got, what is allowed and what to do.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USER_ERROR = 2
EXIT_RETRY = 74  # EX_IOERR of sysexits.h
EXIT_CONTINUE = 75  # EX_TEMPFAIL of sysexits.h
EXIT_PEER_LOST = 80  # as sysexits.h ends at 78, this and the next are ours
EXIT_GPU_FAULT = 81
EXIT_SIGNAL = 128
"""Plus the number of the signal."""


class WorkerError(Exception):
    """Base of all errors that a stage reports on purpose."""

    exit_code = EXIT_BUG


class UserError(WorkerError):
    """The input is wrong; running the same command again cannot help."""

    exit_code = EXIT_USER_ERROR


class ConfigError(UserError):
    """A job, stage document, override or flag is wrong."""


class ImageTooOld(ConfigError):  # noqa: N818 - the word stands in the status of a job
    """A stage document asks for something that only a newer version of this program can do."""


class DataError(UserError):
    """A dataset, clip, caption, embedding or latent is wrong."""


class CheckpointError(UserError):
    """A weight file or a training checkpoint is wrong."""


def plain_kind(error: UserError) -> type[UserError]:
    """The kind of an error that is made from a message alone, to raise several errors as one or one with more words."""
    kinds = (ConfigError, DataError, CheckpointError)
    return next((kind for kind in kinds if isinstance(error, kind)), UserError)


class RetryableError(WorkerError):
    """The environment failed (disk full, network); the same command may succeed later."""

    exit_code = EXIT_RETRY


class FolderInUseError(RetryableError):
    """Another process trains in the folder, perhaps on a node that the cluster has lost sight of."""


class StopRequested(WorkerError):  # noqa: N818 - it is a request, not an error
    """The stage was asked to stop and has saved everything that is needed to continue."""

    exit_code = EXIT_CONTINUE
