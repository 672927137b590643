"""The project's images: built from docker/, pushed to the cluster's registry, pulled by the node.

An image's tag comes from what it is made of, so an edit gives a new tag and an unchanged tree builds nothing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness import base_image, buildah, registry, runtime
from harness.constants import REGISTRY_OF_PODS
from harness.errors import HarnessError
from harness.paths import REPOSITORY, digest, lock

logger = logging.getLogger(__name__)

OUR_TAG = "[0-9a-f]{12}"
IDENTITY = "sha256:"


@dataclass(frozen=True)
class Recipe:
    """A Dockerfile and what it copies from the repository."""

    dockerfile: str
    copies: tuple[str, ...]
    options: tuple[str, ...] = ()
    """Further options of the build."""

    def files(self) -> Iterator[Path]:
        """Every file that decides the image."""
        own = (f"docker/{self.dockerfile}", f"docker/{self.dockerfile}.dockerignore")
        for name in (*own, *self.copies):
            path = REPOSITORY / name
            found = sorted(path.rglob("*")) if path.is_dir() else [path]
            yield from (f for f in found if f.is_file() and "__pycache__" not in f.parts)


COPIED_BY_ALL = (
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "NOTICE",
    "docker/constraints.txt",
    "docker/requirements.py",
    "operator",
    "cosmos_worker",
)
RECIPES = {
    "cosmos-operator": Recipe("operator.Dockerfile", COPIED_BY_ALL),
    "cosmos-worker-cpu": Recipe(
        "worker.Dockerfile", (*COPIED_BY_ALL, "examples/pushing"), ("--target=cpu",)
    ),
}
"""Images that pods use. The worker has all packages of the image for GPUs, which are then built, imported and used here
as well: its users' image for CPUs has some of them only."""
GPU_IMAGE = "cosmos-worker"
GPU_RECIPE = Recipe("worker.Dockerfile", COPIED_BY_ALL, ("--target=cuda",))
"""The image for GPUs itself. That it can be built is all that is asked of it: its layers are those of the one above."""


def tag(name: str) -> str:
    """The tag of one of our images, from what it is made of now."""
    if name not in RECIPES:
        raise HarnessError(f"{name}: no such image; there are {', '.join(RECIPES)}")
    ingredients: list[str | Path] = [base_image.tag(), *RECIPES[name].options]
    for path in RECIPES[name].files():
        ingredients += [str(path.relative_to(REPOSITORY)), path]
    return digest(ingredients)


def reference(name: str) -> str:
    """Name by which pods refer to one of our images."""
    return f"{REGISTRY_OF_PODS}/{name}:{tag(name)}"


def build_and_push(name: str, *, suffix: str = "") -> str:
    """Build an image unless the registry has it; returns its name for pods.

    ``suffix`` gives the same image another tag, for tests that update one.
    """
    wanted = tag(name)
    named = f"{wanted}-{suffix}" if suffix else wanted
    with lock("images"):
        if not registry.has(name, wanted):
            options = RECIPES[name].options
            logger.info("image %s:%s is built", name, wanted)
            buildah.build(
                f"{name}:{wanted}", RECIPES[name].dockerfile, base_image.in_storage(), options
            )
            logger.info("image %s:%s is pushed", name, wanted)
            buildah.push(name, wanted)
        if named != wanted:
            registry.copy_tag(name, wanted, named)
    return f"{REGISTRY_OF_PODS}/{name}:{named}"


def build_gpu_image() -> str:
    """Build the image for GPUs; returns its name in buildah's storage."""
    with lock("images"):
        name = f"{GPU_IMAGE}:latest"
        logger.info("image %s is built", name)
        buildah.build(name, GPU_RECIPE.dockerfile, base_image.in_storage(), GPU_RECIPE.options)
    return f"localhost/{name}"


def preload(image: str) -> None:
    """Let the node pull an image now, so that a test's time limit does not count it."""
    if image not in runtime.images():
        logger.info("image %s is pulled", image)
        runtime.pull(image)
        _forget_older(image)


def _forget_older(image: str) -> None:
    """Remove images of earlier trees from the node.

    The kubelet's plugin gives each image a second name, its identity, which would keep the layers.
    """
    name, _, now = image.rpartition(":")
    content = now.partition("-")[0]
    if not re.fullmatch(OUR_TAG, content):
        return
    older = re.compile(f"{re.escape(name)}:(?!{content}){OUR_TAG}(-.*)?")
    listed = runtime.images()
    gone = {reference for reference in listed if older.fullmatch(reference)}
    named = {listed[r] for r in listed.keys() - gone if not r.startswith(IDENTITY)}
    gone |= {r for r in listed if r.startswith(IDENTITY) and listed[r] not in named}
    if gone:
        runtime.ctr("images", "remove", *sorted(gone))
