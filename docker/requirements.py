"""Write what an image installs from pyproject.toml and constraints.txt: ``python3 requirements.py EXTRA ...``.

It leaves two files beside it: packages.txt, what we and the extras depend on, and uv.txt, the installer, pinned with
its hashes. Their dates are fixed, so that a layer made from them stays as it is while they do, whatever else changes
in pyproject.toml. Every version and hash comes from constraints.txt, which uv checks downloads against.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path


def pinned(name: str, constraints: str) -> str:
    """The lines of one package in constraints.txt: its version, then one hash a line."""
    found = re.search(rf"^{name}==.*?(?=^\S|\Z)", constraints, re.MULTILINE | re.DOTALL)
    if found is None:
        sys.exit(f"constraints.txt pins no {name}: run make constraints")
    return found[0]


def main() -> None:
    """Write both files."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras, wanted = project["optional-dependencies"], sys.argv[1:]
    for extra in wanted:
        if extra not in extras:
            sys.exit(
                f"{extra}: no such extra in pyproject.toml; it has {', '.join(sorted(extras))}"
            )
    packages = [package for extra in wanted for package in extras[extra]]
    needed = "\n".join([*project["dependencies"], *packages, ""])
    constraints = Path("constraints.txt").read_text(encoding="utf-8")
    for name, content in {"packages.txt": needed, "uv.txt": pinned("uv", constraints)}.items():
        Path(name).write_text(content, encoding="utf-8")
    for name in ("packages.txt", "uv.txt", "constraints.txt"):
        os.utime(name, (0, 0))


if __name__ == "__main__":
    main()
