"""Debian with Python, made on this machine because no registry of images is reached: it stands for python:3-slim."""

from __future__ import annotations

import logging
from pathlib import Path

from harness import oci, registry
from harness.buildah import buildah, pull_archive, push
from harness.commands import run
from harness.constants import (
    BASE_IMAGE,
    BASE_IMAGE_PACKAGES,
    DEBIAN_RELEASE,
    REGISTRY_OF_PODS,
)
from harness.packages import debian, image_tools
from harness.paths import artifact, digest, lock

logger = logging.getLogger(__name__)


def tag() -> str:
    """The tag of the base image, from what it is made of."""
    return digest([DEBIAN_RELEASE, *BASE_IMAGE_PACKAGES, *_options("ROOT")])


def in_storage() -> str:
    """Make the base image if buildah lacks it; returns its name for a Dockerfile."""
    if _name() not in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        pull_archive(archive())
    return _name()


def archive() -> Path:
    """The base image as an OCI archive in the cache, made if it is missing."""
    return artifact("base-image", [_name()], _make) / "image.tar"


def _name() -> str:
    return f"{BASE_IMAGE}:{tag()}"


def in_registry() -> str:
    """The base image as pods call it: a shell and getent, for init containers."""
    name = BASE_IMAGE.rpartition("/")[2]
    with lock("images"):
        if not registry.has(name, tag()):
            in_storage()
            push(name, tag())
    return name_in_registry()


def name_in_registry() -> str:
    """Name by which pods refer to the base image; it may not be in the registry yet."""
    return f"{REGISTRY_OF_PODS}/{BASE_IMAGE.rpartition('/')[2]}:{tag()}"


def _options(root: Path | str) -> list[str]:
    paths = ("man", "locale", "doc")
    return [
        "--variant=minbase",
        f"--hook-dir={root}/usr/share/mmdebstrap/hooks/merged-usr",
        f"--include={','.join(('usr-is-merged', *BASE_IMAGE_PACKAGES))}",  # usr-is-merged spares perl
        *(f"--dpkgopt=path-exclude=/usr/share/{path}/*" for path in paths),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    ]


def _make(folder: Path) -> None:
    logger.info("the base image is made: about a minute")
    sources, layer = folder / "sources.list", folder / "layer.tar"
    sources.write_text(_package_sources())
    command: list[str | Path] = ["mmdebstrap", *_options(debian()), DEBIAN_RELEASE, layer, sources]
    run(command, environment=image_tools())
    oci.write_image(_name(), layer, folder / "image.tar")
    layer.unlink()
    sources.unlink()


def _package_sources() -> str:
    """The Debian archives that this machine uses, security updates included."""
    line = "deb $(REPO_URI) $(RELEASE) $(COMPONENT)"
    command = ["apt-get", "indextargets", "--format", line, "Created-By: Packages"]
    return "".join(run([*command, f"Label: {label}"]) for label in ("Debian", "Debian-Security"))
