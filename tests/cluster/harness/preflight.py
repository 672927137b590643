"""Check of the machine: requirements of the cluster that it does not meet."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness import build
from harness.cgroups import ROOT
from harness.constants import DEBIAN_RELEASE
from harness.errors import HarnessError
from harness.packages import release
from harness.paths import cache

FREE_BYTES = 14_000_000_000
PROGRAMS = ("ip", "unshare", "nsenter", "openssl", "apt-get", "dpkg-deb", "curl")


def problem() -> str | None:
    """Reason for which the cluster cannot run here; None if none is known."""
    if os.geteuid() != 0:
        return "the local cluster makes namespaces and cgroups: run as root"
    name, codename = release()
    if codename != DEBIAN_RELEASE:
        return f"this machine runs {name}; the local cluster runs on Debian {DEBIAN_RELEASE}"
    if not (ROOT / "pids").is_dir():
        return f"{ROOT}/pids is missing: the local cluster needs version 1 cgroup controllers"
    missing = [program for program in PROGRAMS if not shutil.which(program)]
    if missing:
        return f"these programs are missing: {', '.join(missing)}"
    if not Path("/proc/sys/net/ipv4/ip_forward").exists():
        return "the kernel has no IPv4 forwarding"
    free = shutil.disk_usage(cache()).free
    if free < FREE_BYTES:
        return (
            f"{cache()} has {free / 1e9:.1f} GB of free disk, and the images need about {FREE_BYTES / 1e9:.0f}: "
            "remove older ones with `python -m harness clean`"
        )
    try:
        if not (build.kubernetes_is_built() and build.etcd_is_built()):
            build.go()
    except HarnessError as error:
        return str(error)
    return None
