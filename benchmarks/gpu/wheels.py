"""Packages that a bare, offline machine lacks, carried there as wheels: pydantic with its compiled core, and torchao.

Where there is a package index, ``python -m benchmarks.gpu.wheels --python 3.12`` downloads them for that version of
Python, with the versions and digests of docker/constraints.txt; there, the benchmark unpacks them and imports them.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "docker" / "constraints.txt"
DEFAULT_FOLDER = ROOT / "build" / "gpu-wheels"
PACKAGES = (
    "pydantic",
    "pydantic-core",
    "annotated-types",
    "typing-inspection",
    "typing-extensions",
    "torchao",
)
GLIBC_TAGS = ("manylinux_2_17", "manylinux2014", "manylinux_2_24", "manylinux_2_28")


def use_wheels(folder: Path, unpacked: Path) -> list[str]:
    """Make the packages of a folder of wheels importable, before those that are installed.

    Args:
        folder: need not exist.
        unpacked: an empty folder that stays as long as they are used.

    Returns:
        The names of the wheels.
    """
    wheels = sorted(folder.glob("*.whl"))
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    if wheels:
        sys.path.insert(0, str(unpacked))
    return [wheel.name for wheel in wheels]


def pinned(constraints: str) -> str:
    """The requirements of :data:`PACKAGES` out of a constraints file, with their digests.

    Raises:
        LookupError: a package is not there.
    """
    requirements = re.split(r"\n(?=\S)", constraints)
    found = []
    for package in PACKAGES:
        own = [one for one in requirements if one.startswith(f"{package}==")]
        if not own:
            raise LookupError(f"{CONSTRAINTS}: has no {package}; `make constraints` writes it anew")
        found += own
    return "\n".join(found) + "\n"


def download_command(
    folder: Path, requirements: Path, python_version: str, machine: str
) -> list[str]:
    """The command line of pip that downloads the wheels of a Linux machine."""
    tags = [word for tag in GLIBC_TAGS for word in ("--platform", f"{tag}_{machine}")]
    return [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--require-hashes", "--only-binary", ":all:", "--implementation", "cp"),
        *("--python-version", python_version, *tags),
        *("--dest", str(folder), "--requirement", str(requirements)),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Download the wheels; returns pip's exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.wheels", description=__doc__)
    parser.add_argument(
        "--python", required=True, metavar="3.12", help="version of Python of the GPU's machine"
    )
    parser.add_argument(
        "--machine", default=platform.machine(), help="its architecture: x86_64 or aarch64"
    )
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    options = parser.parse_args(arguments)
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        requirements = Path(temporary) / "requirements.txt"
        requirements.write_text(pinned(CONSTRAINTS.read_text(encoding="utf-8")), encoding="utf-8")
        command = download_command(options.folder, requirements, options.python, options.machine)
        code = subprocess.run(command, check=False).returncode
    if code == 0:
        wheels = sorted(options.folder.glob("*.whl"))
        total = sum(wheel.stat().st_size for wheel in wheels)
        print(f"{options.folder}: {len(wheels)} wheels, {total / 2**20:.1f} MiB in all")
    return code


if __name__ == "__main__":
    sys.exit(main())
