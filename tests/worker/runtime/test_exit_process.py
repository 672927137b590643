"""The end of a worker's process: at once under a launcher, in order without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cosmos_worker.runtime.outcome import OUTCOMES_VARIABLE

PROGRAM = """
import atexit, sys
from cosmos_worker.runtime.stage_process import exit_process
atexit.register(lambda: print("unloaded"))
sys.stdout.write("said")
exit_process(int(sys.argv[1]))
"""


@pytest.mark.parametrize("code", [0, 74])
@pytest.mark.parametrize("is_launched", [False, True])
def test_process_of_a_launcher_unloads_nothing(
    tmp_path: Path, is_launched: bool, code: int
) -> None:
    """Unloading PyTorch beside the threads of its collectives sometimes aborts, after all has been done."""
    environment = {name: one for name, one in os.environ.items() if name != OUTCOMES_VARIABLE}
    if is_launched:
        environment[OUTCOMES_VARIABLE] = str(tmp_path)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(code)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == code
    assert done.stdout == ("said" if is_launched else "saidunloaded\n")
