"""Programs of Go: Kubernetes and etcd from their modules, and a pause program."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from harness.commands import run
from harness.constants import ETCD_VERSION, GO_VERSION, KUBERNETES_VERSION
from harness.errors import HarnessError
from harness.paths import HARNESS, artifact, artifact_path, cache, lock

logger = logging.getLogger(__name__)

KUBERNETES_MODULE = HARNESS / "kubernetes"
VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
ETCD_MODULE = HARNESS / "etcd"
PAUSE_SOURCE = HARNESS / "pause" / "main.go"

_objects_are_shared: ContextVar[bool] = ContextVar("objects are shared", default=False)


def go() -> str:
    """The go command, if its version is the one that we need."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if not found:
        raise HarnessError(
            f"go is not installed; the cluster's programs are built with {GO_VERSION}"
        )
    version = run([found, "env", "GOVERSION"], environment={"GOTOOLCHAIN": "local"}).strip()
    if version.split(".")[:2] != GO_VERSION.split("."):
        raise HarnessError(
            f"{found} is {version}; Kubernetes {KUBERNETES_VERSION} is built with {GO_VERSION} "
            "(1.27 makes an API server whose OpenAPI kubectl refuses): put that version first on PATH"
        )
    return found


def version_flags() -> str:
    """Linker flags without which the server calls itself v0.0.0-master."""
    major, minor, _ = KUBERNETES_VERSION.split(".")
    values = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": major, "gitMinor": minor}
    flags = [f"-X {p}.{key}={value}" for p in VERSION_PACKAGES for key, value in values.items()]
    return " ".join(["-s", "-w", *flags])


def _kubernetes_ingredients() -> list[str | bytes | Path]:
    module = [KUBERNETES_MODULE / "go.mod", KUBERNETES_MODULE / "go.sum"]
    return [*module, version_flags(), GO_VERSION]


def kubernetes() -> Path:
    """The folder with kube-apiserver, kube-controller-manager, kube-scheduler, kube-proxy and kubelet."""

    def make(folder: Path) -> None:
        logger.info("Kubernetes %s is built from its modules: about 8 minutes", KUBERNETES_VERSION)
        arguments = ["-mod=readonly", "-trimpath", "-ldflags", version_flags(), "tool"]
        install(arguments, folder / "bin", KUBERNETES_MODULE)

    return artifact("kubernetes", _kubernetes_ingredients(), make) / "bin"


def kubernetes_is_built() -> bool:
    """True if the cache has Kubernetes' programs, so that no compiler is needed."""
    return artifact_path("kubernetes", _kubernetes_ingredients()).is_dir()


def etcd() -> Path:
    """The folder with etcd."""

    def make(folder: Path) -> None:
        logger.info("etcd %s is built from its module: a minute", ETCD_VERSION)
        arguments = ["-mod=readonly", "-trimpath", "-ldflags", "-s -w", "tool"]
        install(arguments, folder / "bin", ETCD_MODULE)
        (folder / "bin" / "server").rename(folder / "bin" / "etcd")

    return artifact("etcd", _etcd_ingredients(), make) / "bin"


def etcd_is_built() -> bool:
    """True if the cache has etcd, so that no compiler is needed."""
    return artifact_path("etcd", _etcd_ingredients()).is_dir()


def _etcd_ingredients() -> list[str | bytes | Path]:
    return [ETCD_MODULE / "go.mod", ETCD_MODULE / "go.sum", GO_VERSION]


def pause() -> Path:
    """A static program that sleeps until it is told to stop."""

    def make(folder: Path) -> None:
        environment = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-buildvcs=false"}
        flags = ["-trimpath", "-ldflags", "-s -w", "-o", str(folder / "pause")]
        run([go(), "build", *flags, PAUSE_SOURCE], environment=environment, folder=folder)

    return artifact("pause", [PAUSE_SOURCE, GO_VERSION], make) / "pause"


def install(arguments: Sequence[str], binaries: Path, folder: Path) -> None:
    """``go install`` with a build cache of its own, removed afterwards: Kubernetes leaves 6 GB in it."""
    objects = _objects()
    environment = {
        "CGO_ENABLED": "0",
        "GOBIN": str(binaries),
        "GOCACHE": os.environ.get("COSMOS_CLUSTER_GOCACHE", str(objects)),
        "GOFLAGS": "-buildvcs=false",
        "GOTOOLCHAIN": "local",
    }
    try:
        run([go(), "install", *arguments], environment=environment, folder=folder)
    finally:
        if not _objects_are_shared.get():
            shutil.rmtree(objects, ignore_errors=True)


@contextmanager
def shared_objects() -> Iterator[None]:
    """Let builds take over what those before them compiled; it is removed after the last.

    One process at a time: another would remove what this one is about to read.
    """
    with lock("build"):
        token = _objects_are_shared.set(True)
        try:
            yield
        finally:
            _objects_are_shared.reset(token)
            shutil.rmtree(_objects(), ignore_errors=True)


def _objects() -> Path:
    return cache() / "go-build"
