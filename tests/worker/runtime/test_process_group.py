"""Ranks from the environment, and the one module that reads them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import cosmos_worker
from cosmos_worker.runtime import process_group
from cosmos_worker.runtime.process_group import (
    ProcessGroup,
    is_started_by_torchrun,
    read_rank,
)

PACKAGE = Path(cosmos_worker.__file__).parent
VARIABLES = re.compile(r"\b(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)\b")
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"}


def test_only_the_process_group_names_the_variables_of_torchrun() -> None:
    naming = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if VARIABLES.search(path.read_text(encoding="utf-8"))
    }

    assert naming == {"runtime/process_group.py"}


def test_ranks_are_known_without_torch() -> None:
    program = (
        "import sys\n"
        "from cosmos_worker.runtime.process_group import ProcessGroup\n"
        f"group = ProcessGroup.from_environment({TORCHRUN!r})\n"
        "assert group.rank == 5 and not group.is_main\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_ranks_are_those_of_torchrun() -> None:
    group = ProcessGroup.from_environment(TORCHRUN, "cuda")

    assert group == ProcessGroup(5, 8, 1, 4, "cuda")
    assert group.device == torch.device("cuda", 1)
    assert is_started_by_torchrun(TORCHRUN)
    assert tuple(TORCHRUN) == process_group.RANK_VARIABLES


def test_process_is_alone_where_torchrun_says_nothing() -> None:
    group = ProcessGroup.from_environment({})

    assert group == ProcessGroup()
    assert group.is_main
    assert group.device == torch.device("cpu")
    assert not is_started_by_torchrun({})
    assert read_rank({}) == read_rank({"RANK": ""}) == "0"


def test_single_process_has_what_it_would_exchange() -> None:
    alone = ProcessGroup()
    tensor = torch.ones(2)

    assert alone.gather(3) == [3]
    assert alone.from_main(3) == 3
    assert alone.tensor_from_main(tensor) is tensor
    assert alone.mean(tensor) is tensor
    assert alone.new_cpu_group() is alone.with_context_parallel(1) is alone
    assert alone.context == alone
    alone.barrier()


@pytest.mark.parametrize("rank", range(6))
def test_samples_are_dealt_to_groups_that_share_frames(rank: int) -> None:
    group = ProcessGroup(rank, 6, context_group=ProcessGroup(rank % 2, 2))

    assert (group.data_rank, group.data_size) == (rank // 2, 3)
    assert group.own_batches(range(7)) == list(range(7))[rank // 2 :: 3]
    assert group.context.is_main == (rank % 2 == 0)
