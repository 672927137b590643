"""buildah, on a storage of our own, and pushes to the cluster's registry."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from harness.commands import run
from harness.constants import REGISTRY_OF_HOST
from harness.packages import debian, image_tools
from harness.paths import REPOSITORY, cache

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
POLICY = {"default": [{"type": "insecureAcceptAnything"}]}
COMPRESSION = ("--format=oci", "--compression-format=zstd", "--compression-level=1")
"""Compression that takes 0.6 of gzip's time to push, and less to unpack: one layer has 5 GB."""


def buildah(*arguments: str | Path) -> str:
    """Run buildah; returns what it printed."""
    folder = cache() / "buildah"
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    storage, policy = folder / "storage.conf", folder / "policy.json"
    graph, scratch = folder / "graph", folder / "run"
    storage.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{graph}"\nrunroot = "{scratch}"\n'
    )
    policy.write_text(json.dumps(POLICY))
    settings = {"CONTAINERS_STORAGE_CONF": str(storage), "TMPDIR": str(folder / "tmp")}
    command, *rest = arguments
    signed = command in ("bud", "pull", "push")
    signatures: list[str | Path] = ["--signature-policy", policy] if signed else []
    return run(["buildah", command, *signatures, *rest], environment={**image_tools(), **settings})


def pull_archive(archive: Path) -> None:
    """Take an image from an OCI archive."""
    buildah("pull", f"oci-archive:{archive}")


def build(name: str, dockerfile: str, base_image: str, options: Sequence[str] = ()) -> None:
    """Build ``docker/<dockerfile>`` as ``localhost/<name>``. Unchanged layers are taken from earlier builds."""
    secrets = ["--secret", f"id=ca-bundle,src={CERTIFICATES}"] if CERTIFICATES.exists() else []
    path = REPOSITORY / "docker" / dockerfile
    buildah(
        "bud",
        "--layers",
        "--pull-never",
        "--isolation=oci",
        f"--runtime={debian() / 'usr/sbin/runc'}",  # crun, Debian's default, refuses these cgroups
        "--network=host",
        f"--build-arg=BASE_IMAGE={base_image}",
        *options,
        f"--ignorefile={path}.dockerignore",
        *secrets,
        f"--tag=localhost/{name}",
        f"--file={path}",
        REPOSITORY,
    )


def push(name: str, tag: str) -> None:
    """Push ``localhost/<name>:<tag>`` to the cluster's registry."""
    target = f"docker://{REGISTRY_OF_HOST}/{name}:{tag}"
    buildah("push", "--tls-verify=false", *COMPRESSION, f"localhost/{name}:{tag}", target)
