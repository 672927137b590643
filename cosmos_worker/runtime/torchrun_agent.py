"""Runs torchrun and records the exit code or signal of each process of this node; the launcher starts it.

torchrun itself ends with 1 after every failure. Its error file (``TORCHELASTIC_ERROR_FILE``) exists only when a
process raised through ``@record``; after SIGKILL, a segmentation fault, an exit code or a plain exception it does not.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import parse_args, run

from cosmos_worker.errors import EXIT_BUG, EXIT_OK
from cosmos_worker.runtime import outcome as outcomes
from cosmos_worker.runtime.failures import classify

logger = logging.getLogger("cosmos_worker.runtime.torchrun_agent")  # it runs as __main__


def describe_exits(failures: Mapping[int, ProcessFailure]) -> list[outcomes.Exit]:
    """The exit code or signal of each failed rank, and its seconds after the first failure."""
    first = min(failure.timestamp for failure in failures.values())
    return [
        outcomes.Exit(rank, failure.exitcode, float(failure.timestamp - first))
        for rank, failure in sorted(failures.items())
    ]


def main(arguments: Sequence[str]) -> int:
    """Run torchrun with these arguments; returns the exit code."""
    folder = outcomes.folder_of(os.environ)
    assert folder is not None, "the launcher sets it"
    try:
        run(parse_args(list(arguments)))
    except ChildFailedError as error:
        outcomes.write_exits(folder, describe_exits(error.failures))
        return EXIT_BUG
    except SignalException:
        raise
    except Exception as error:  # the launcher reports it
        logger.exception("torchrun failed")
        outcome = classify(error)
        outcomes.write_agent_outcome(folder, outcome)
        return outcome.exit_code
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
