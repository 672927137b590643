"""The process of one stage: its log, the signals that stop it, and the record and exit code that it leaves.

Importing this file imports no torch.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import NoReturn

from cosmos_worker.config.log_lines import LineFormatter
from cosmos_worker.errors import EXIT_CONTINUE, EXIT_OK
from cosmos_worker.runtime import last_lines
from cosmos_worker.runtime.failures import classify
from cosmos_worker.runtime.outcome import (
    Outcome,
    folder_of,
    write_outcome,
    write_termination_message,
)
from cosmos_worker.runtime.process_group import read_rank
from cosmos_worker.runtime.progress import shows_bars
from cosmos_worker.runtime.signals import prompt_stop

logger = logging.getLogger(__name__)


def configure_logging(is_launcher: bool = False) -> None:
    """Log to standard error, one line a record, times in UTC.

    Args:
        is_launcher: it starts the processes of a node; the rank in its environment, if any, is that of the node.
    """
    logging.Formatter.converter = time.gmtime
    rank = read_rank(os.environ)
    who = "launcher" if is_launcher else f"rank={rank}"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        LineFormatter(f"%(asctime)s %(levelname)s {who} %(name)s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
    )
    logging.basicConfig(
        level=logging.INFO if is_launcher or rank == "0" else logging.WARNING,
        handlers=[handler],
        force=True,
    )
    last_lines.install()


def disable_library_bars() -> None:
    """Keep progress bars of libraries out of a log that shows none; call this before the libraries are imported."""
    if not shows_bars():
        os.environ.setdefault("TQDM_DISABLE", "1")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def is_launched() -> bool:
    """True if a launcher on this node has started this process and reads its outcome."""
    return folder_of(os.environ) is not None


def stopping_at_once(stage: str) -> AbstractContextManager[None]:
    """A block in which SIGTERM and SIGINT raise ``StopNow``.

    Nothing is changed for the training, which handles both and saves first, nor under a launcher, where SIGTERM is
    torchrun's answer to another process that failed: an outcome of this one could hide the cause.

    Args:
        stage: named in the outcome, if the process must be ended although the block does not return.
    """
    if stage == "train" or is_launched():
        return nullcontext()

    def end_late() -> NoReturn:
        report_end(stopped(stage, "a signal"))
        os._exit(EXIT_CONTINUE)

    return prompt_stop(end_late)


def stopped(stage: str, signal_name: str) -> Outcome:
    """The outcome of a stage that a signal has ended."""
    message = f"{stage} was stopped by {signal_name}; the same command continues with what is there"
    return Outcome(EXIT_CONTINUE, "Stopped", message)


def failed(error: Exception) -> Outcome:
    """The outcome of a failure; one that is not raised on purpose is logged with its traceback."""
    outcome = classify(error)
    if outcome.reason == "Bug":
        logger.error("bug in cosmos_worker, please report it", exc_info=error)
    elif outcome.reason in ("PeerLost", "GpuFault", "OutOfMemory"):
        logger.error("%s", outcome.reason, exc_info=error)
    return outcome


def report_end(outcome: Outcome) -> int:
    """Record the outcome for the launcher, or log it and write the termination message that Kubernetes reads.

    Returns:
        The exit code. Under a launcher an orderly stop counts as success, so that torchrun does not end the others.
    """
    folder = folder_of(os.environ)
    if folder is not None:
        try:
            write_outcome(folder, outcome, int(read_rank(os.environ)))
        except OSError as error:  # the exit code still says something
            logger.warning("%s: this process's outcome cannot be written: %s", folder, error)
        return EXIT_OK if outcome.exit_code == EXIT_CONTINUE else outcome.exit_code
    if outcome.exit_code == EXIT_CONTINUE:
        logger.info("%s: %s", outcome.reason, outcome.message)
    elif outcome.exit_code != EXIT_OK:
        logger.error("%s: %s", outcome.reason, outcome.message)
    result = {} if outcome.result is None else {"result": outcome.result}
    write_termination_message(outcome.reason, outcome.message, **result)
    return outcome.exit_code


def exit_process(exit_code: int) -> NoReturn:
    """Exit; a process of a launcher does so at once: its libraries may wait for peers, or abort, as they unload."""
    if is_launched():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(exit_code)
    sys.exit(exit_code)
