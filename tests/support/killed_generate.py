"""The generate stage in a process that a signal ends: ``killed_generate.py CONFIG SIGNAL RANK PASSES``.

The signal comes from outside of Python, right after this many passes of a batch are kept by the process of this rank.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from cosmos_worker import cli
from cosmos_worker.runtime.stage_process import exit_process
from cosmos_worker.sample.kept_passes import KeptPasses


def end_after(number: int, rank: int, passes: int) -> None:
    """Let the signal end this process when so many passes are kept."""
    add = KeptPasses.add

    def add_and_end(self: KeptPasses, *arguments: Any) -> None:
        add(self, *arguments)
        if int(os.environ.get("RANK", "0")) == rank and self.count == passes:
            os.kill(os.getpid(), number)

    KeptPasses.add = add_and_end  # type: ignore[method-assign]


if __name__ == "__main__":
    end_after(getattr(signal, sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    exit_process(cli.main(["generate", "--config", sys.argv[1]]))
