"""Checkpoints of several processes of which one cannot write; real processes, gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.programs import EndedProcess, run_program

from cosmos_worker.runtime.process_group import COLLECTIVE_TIMEOUT, UNLIMITED_WAIT
from cosmos_worker.storage.volumes import export_name

SAVES = """
import sys, time
from pathlib import Path
import torch
import torch.distributed as dist
from cosmos_worker.errors import RetryableError
from cosmos_worker.runtime.process_group import join_processes
from cosmos_worker.train.change_meter import Exports
from cosmos_worker.train.saver import Saver

with join_processes("cpu", 1) as processes:
    saver = Saver(Path(sys.argv[1]), processes, 9, 9)
    for group in dist.group.WORLD, saver._group.handle:
        print(group._get_backend(processes.device).options._timeout)
    weights = {f"net.{n}": torch.full((4,), float(n)) for n in range(4)}
    for step in (1, 2):
        saver.begin(step, {"model": weights}, lambda shards: Exports(weights, None), {})
        while not saver.has_written:
            time.sleep(0.01)
        try:
            print("saved", saver.finish())
        except RetryableError as error:
            print("failed", error)
            break
"""
"""Prints how long processes wait in the training's and in the saver's group, then how two checkpoints went."""

pytestmark = pytest.mark.multiproc


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def ended(run: Path) -> list[EndedProcess]:
    """Two processes; there is a folder where the main one wants to export step 2."""
    in_the_way = run / "checkpoints" / export_name(2, "reg")
    (in_the_way / "file").mkdir(parents=True)
    return run_program(SAVES, 2, str(run), timeout=60)


def test_export_that_fails_in_the_main_process_is_told_by_all(
    run: Path, ended: list[EndedProcess]
) -> None:
    assert [process.code for process in ended] == [0, 0], "".join(one.errors for one in ended)
    for process in ended:
        first, second = process.output.splitlines()[2:]
        assert first == "saved 1"
        assert second.startswith(f"failed {run}/checkpoints: cannot write a checkpoint")
    assert [path.name for path in (run / "state").iterdir()] == ["iter_000000001"]


def test_processes_wait_for_files_as_long_as_it_takes(ended: list[EndedProcess]) -> None:
    for process in ended:
        assert process.output.splitlines()[:2] == [str(COLLECTIVE_TIMEOUT), str(UNLIMITED_WAIT)]
