"""Kernel settings that the kubelet changes for the whole machine: remembered before it starts, put back at the end."""

from __future__ import annotations

import json
from pathlib import Path

from harness.paths import state

SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
KEYS_LIMITS = ("kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes")


def _path(name: str) -> Path:
    return Path("/proc/sys") / name


def _saved_values() -> Path:
    return state() / "kernel-settings.json"


def remember() -> None:
    """Write the present values to a file, unless that was done before."""
    if not _saved_values().exists():
        names = [name for name in (*SETTINGS, *KEYS_LIMITS) if _path(name).exists()]
        _saved_values().write_text(
            json.dumps({name: _path(name).read_text().strip() for name in names})
        )


def restore() -> None:
    """Restore the values of that file."""
    if not _saved_values().exists():
        return
    for name, value in json.loads(_saved_values().read_text()).items():
        if _path(name).read_text().strip() != value:
            _path(name).write_text(value)
    _saved_values().unlink()
