"""Checkpoints of several processes of which one cannot write; real processes, gloo."""

from __future__ import annotations

from pathlib import Path

import pytest
from programs import run_program

from cosmos_worker.layout import export_name

SAVES = """
import sys, time
from pathlib import Path
import torch
from cosmos_worker.errors import RetryableError
from cosmos_worker.train.distributed import join_processes
from cosmos_worker.train.saver import Exports, Saver

with join_processes("cpu", 1) as processes:
    saver = Saver(Path(sys.argv[1]), processes, 9, 9)
    weights = {f"net.{n}": torch.full((4,), float(n)) for n in range(4)}
    for step in (1, 2):
        saver.begin(step, {"model": weights}, Exports(weights, None), {})
        while not saver.has_written:
            time.sleep(0.01)
        try:
            print("saved", saver.finish())
        except RetryableError as error:
            print("failed", error)
            break
"""


@pytest.mark.multiproc
def test_export_that_fails_in_the_main_process_is_told_by_all(tmp_path: Path) -> None:
    in_the_way = tmp_path / "checkpoints" / export_name(2, "reg")
    (in_the_way / "file").mkdir(parents=True)

    ended = run_program(SAVES, 2, str(tmp_path), timeout=60)

    assert [process.code for process in ended] == [0, 0], "".join(one.errors for one in ended)
    for process in ended:
        first, second = process.output.splitlines()
        assert first == "saved 1"
        assert second.startswith(f"failed {tmp_path}/checkpoints: cannot write a checkpoint")
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["iter_000000001"]
