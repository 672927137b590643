"""Counters of control groups as a container sees them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosmos_worker.cgroup import count_oom_kills

EVENTS = "low 0\nhigh 0\nmax 31\noom 2\noom_kill 2\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"


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
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    assert count_oom_kills(tmp_path / "mount", tmp_path / "membership") == expected


def test_system_without_control_groups_counts_none(tmp_path: Path) -> None:
    assert count_oom_kills(tmp_path, tmp_path / "absent") == 0
