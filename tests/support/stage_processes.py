"""Stage processes that run a given Python program instead of the worker, to test how processes are handled."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cosmos_operator.local.process import StageProcess

FINISH = """
import json, os, pathlib
folder = pathlib.Path(os.environ["TARGET"])
folder.mkdir(parents=True, exist_ok=True)
(folder / "complete-0123.json").write_text(json.dumps({"result": {}}))
"""
"""A program that leaves the completion marker."""

WAIT_FOR_STOP = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(os.environ["TARGET"])
folder.mkdir(parents=True, exist_ok=True)
def stop(number, frame):
    (folder / "saved").write_text(signal.Signals(number).name)
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
"""A program that saves and leaves with 75 when it is asked to stop.

It does not wait with signal.pause, which a signal between "ready" and the pause would never end.
"""

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda number, frame: print("asked", flush=True))
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""
"""A program that does not stop."""


def make_process(
    folder: Path, program: str, stage: str = "train", depends_on: tuple[str, ...] = ()
) -> StageProcess:
    """A stage that runs a program, with key 0123 and its target in the variable TARGET."""
    target = folder / "target" / stage
    own = folder / "stages" / stage
    own.mkdir(parents=True, exist_ok=True)
    return StageProcess(
        stage=stage,
        kind=stage,
        key="0123",
        depends_on=depends_on,
        command=(sys.executable, "-c", program),
        environment={
            **os.environ,
            "TARGET": str(target),
            "COSMOS_TERMINATION_LOG": str(own / "termination.json"),
        },
        folder=own,
        target=target,
    )


def main() -> int:
    """Run one program as a stage in a folder: ``python -m stage_processes FOLDER PROGRAM``."""
    from cosmos_operator.local.run import (
        lock,
        print_line,
        run_processes,
    )

    folder = Path(sys.argv[1])
    process = make_process(folder, globals()[sys.argv[2]])
    with lock(folder) as handle:
        return run_processes([process], handle, print_line)


if __name__ == "__main__":
    sys.exit(main())
