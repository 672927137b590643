"""The generate stage in a process that a signal ends: ``killed_generate.py CONFIG SIGNAL RANK PASSES``.

The signal comes from outside of Python, right after this many passes of a batch are kept by the process of this rank.
"""

from __future__ import annotations

import os
import signal
import sys

from cosmos_worker import cli
from cosmos_worker.sample.kept_passes import KeptPasses

config, name, rank, passes = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
add = KeptPasses.add


def add_and_end(self: KeptPasses, *arguments: object) -> None:
    add(self, *arguments)  # type: ignore[arg-type]
    if int(os.environ.get("RANK", "0")) == rank and self.count == passes:
        os.kill(os.getpid(), getattr(signal, name))


if __name__ == "__main__":
    KeptPasses.add = add_and_end  # type: ignore[method-assign]
    cli._leave(cli.main(["generate", "--config", config]))
