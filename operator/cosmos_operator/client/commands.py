"""The commands of ``cosmos`` for jobs on a cluster: what they print, and their exit codes.

0: done; of wait: the job has succeeded. 1: of wait: the job has failed. 2: the request is wrong, or there is no such
job. 74: the API server or a connection failed; the same command may succeed later. 124: wait gave up. 130: interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import monotonic

from cosmos_operator.api.crd import RESOURCE_KINDS
from cosmos_operator.client.jobs import Progress
from cosmos_operator.client.results import PARTS
from cosmos_operator.client.session import Cosmos, connect
from cosmos_operator.client.table import table
from cosmos_worker.errors import EXIT_BUG, EXIT_OK, EXIT_SIGNAL

EXIT_TIMEOUT = 124
"""Exit code of a wait that gave up, as that of timeout(1)."""
EXIT_INTERRUPTED = EXIT_SIGNAL + signal.SIGINT
REPORT_S = 5.0
"""Seconds between two lines on the progress of a file where the output is no terminal."""
MIB = 1 << 20


def run(options: argparse.Namespace) -> int:
    """Carry out one command; returns the exit code."""
    with _ending_in_order(), _connected(options) as cosmos:
        try:
            return COMMANDS[options.command](cosmos, options)
        except KeyboardInterrupt:
            _note("interrupted")
            return EXIT_INTERRUPTED


def _connected(options: argparse.Namespace) -> Cosmos:
    return connect(options.kubeconfig, context=options.context, namespace=options.namespace)


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that what it has created is deleted."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _submit(cosmos: Cosmos, options: argparse.Namespace) -> int:
    names = cosmos.submit_all(options.file)
    for name in names:
        _print(f"{name} created in namespace {cosmos.namespace}")
    if not options.wait:
        return EXIT_OK
    return max(_wait_for(cosmos, name, options.timeout, len(names) > 1) for name in names)


def _wait(cosmos: Cosmos, options: argparse.Namespace) -> int:
    return _wait_for(cosmos, options.job, options.timeout, False)


def _wait_for(cosmos: Cosmos, name: str, timeout_s: float | None, with_name: bool) -> int:
    """Print a job's states until it ends; returns the exit code."""

    def report(progress: Progress) -> None:
        _print(f"{name}: {progress.line}" if with_name else progress.line)

    try:
        outcome = cosmos.wait(name, timeout_s, report)
    except TimeoutError:
        _note(f"{name}: not finished after {timeout_s:g} s; it goes on")
        return EXIT_TIMEOUT
    return EXIT_OK if outcome == "Succeeded" else EXIT_BUG


def _logs(cosmos: Cosmos, options: argparse.Namespace) -> int:
    lines = cosmos.logs(options.job, follow=options.follow, stage=options.stage, tail=options.tail)
    for line in lines:
        if line.is_note:
            _note(line.text)
        else:
            _print(line.text)
    return EXIT_OK


def _stop(cosmos: Cosmos, options: argparse.Namespace) -> int:
    changed = cosmos.stop(options.job)
    ending = (
        "is being stopped; its training saves a checkpoint" if changed else "is stopped already"
    )
    _print(f"{options.job} {ending}; to go on: cosmos resume {options.job}")
    return EXIT_OK


def _resume(cosmos: Cosmos, options: argparse.Namespace) -> int:
    changed = cosmos.resume(options.job)
    _print(f"{options.job} {'goes on' if changed else 'was not stopped'}")
    return EXIT_OK


def _ls(cosmos: Cosmos, options: argparse.Namespace) -> int:
    everywhere, wide = options.all_namespaces, options.output == "wide"
    kinds = [one for one in RESOURCE_KINDS if options.kind in (None, one.short_name)]
    found = {one.kind: cosmos.list(one.kind, everywhere=everywhere) for one in kinds}
    shown = [one for one in kinds if found[one.kind]]
    if not shown:
        _note("no jobs" if everywhere else f"no jobs in namespace {cosmos.namespace}")
    now = datetime.now(UTC)
    for number, resource in enumerate(shown):
        lines = table(
            resource,
            found[resource.kind],
            now,
            wide=wide,
            with_namespace=everywhere,
            with_kind=len(shown) > 1,
        )
        for line in [*([""] if number else []), *lines]:
            _print(line)
    return EXIT_OK


def _pull(cosmos: Cosmos, options: argparse.Namespace) -> int:
    files = cosmos.pull(
        options.job,
        options.to,
        parts=options.only or PARTS,
        image=options.image,
        report=_Progress(),
    )
    for file in files:
        mark = "unchanged" if file.was_there else "copied"
        _print(f"{mark}  {file.path}  {file.size} bytes  sha256 {file.sha256}")
    return EXIT_OK


class _Progress:
    """Lines on the progress of files, one each few seconds."""

    def __init__(self) -> None:
        self._last = monotonic()

    def __call__(self, path: str, done: int, size: int) -> None:
        if monotonic() - self._last >= REPORT_S:
            self._last = monotonic()
            share = 100 * done // max(1, size)
            _note(f"{path}: {done / MIB:.0f} of {size / MIB:.0f} MiB ({share} %)")


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _note(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


COMMANDS = {
    "submit": _submit,
    "wait": _wait,
    "logs": _logs,
    "stop": _stop,
    "resume": _resume,
    "ls": _ls,
    "pull": _pull,
}
