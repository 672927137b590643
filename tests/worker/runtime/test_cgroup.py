"""Counters of control groups as a container sees them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cosmos_worker.runtime.cgroup import (
    available_cpus,
    available_memory,
    count_oom_kills,
)

EVENTS = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"


def write_files(mount: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = mount / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"memory.events": EVENTS}, 2),
        ("0::/user.slice/a:b\n", {"user.slice/a:b/memory.events": EVENTS}, 2),
        ("0::/kubepods/pod1/c1\n", {"memory.events": EVENTS}, 2),
        ("5:cpu,memory:/\n0::/\n", {"memory/memory.oom_control": CONTROL}, 3),
        ("5:memory:/pod/c\n", {"memory/pod/c/memory.oom_control": CONTROL}, 3),
        ("5:memory:/pod/c\n", {"memory/memory.oom_control": "oom_kill_disable 0\n"}, 0),
        ("4:pids:/x\n", {}, 0),
    ],
)
def test_kills_are_counted(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int
) -> None:
    (tmp_path / "membership").write_text(membership)
    write_files(tmp_path / "mount", files)

    assert count_oom_kills(tmp_path / "mount", tmp_path / "membership") == expected


def test_system_without_control_groups_counts_none(tmp_path: Path) -> None:
    assert count_oom_kills(tmp_path, tmp_path / "absent") == 0


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 8),
        ("0::/\n", {"cpu.max": "250000 100000\n"}, 3),
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "6400000 100000\n"}, 8),
        ("0::/kubepods/pod1/c1\n", {"cpu.max": "200000 100000\n"}, 2),
        (
            "5:cpu,cpuacct:/pod/c\n0::/\n",
            {"cpu/pod/c/cpu.cfs_quota_us": "400000\n", "cpu/pod/c/cpu.cfs_period_us": "100000\n"},
            4,
        ),
        (
            "5:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            8,
        ),
        ("4:pids:/x\n", {}, 8),
    ],
)
def test_cpus_are_those_that_the_container_may_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    membership: str,
    files: dict[str, str],
    expected: int,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    (tmp_path / "membership").write_text(membership)
    write_files(tmp_path / "mount", files)

    assert available_cpus(tmp_path / "mount", tmp_path / "membership") == expected


def test_system_without_control_groups_has_the_cpus_of_the_process(tmp_path: Path) -> None:
    assert available_cpus(tmp_path, tmp_path / "absent") == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"memory.max": "4096000\n"}, 4096000),
        ("0::/kubepods/pod1/c1\n", {"memory.max": "4096000\n"}, 4096000),
        ("5:memory:/pod/c\n", {"memory/pod/c/memory.limit_in_bytes": "8192\n"}, 8192),
        ("0::/\n", {"memory.max": "max\n"}, None),
        ("5:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("4:pids:/x\n", {}, None),
    ],
)
def test_memory_is_that_of_the_container_or_of_the_machine(
    tmp_path: Path, membership: str, files: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "membership").write_text(membership)
    write_files(tmp_path / "mount", files)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    found = available_memory(tmp_path / "mount", tmp_path / "membership")

    assert found == (machine if expected is None else expected)
