"""Paths: the repository, the cache of everything that is slow to make, the state of the running cluster."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

HARNESS = Path(__file__).resolve().parent
REPOSITORY = HARNESS.parents[2]
CACHE_VARIABLE = "COSMOS_CLUSTER_CACHE"


def cache() -> Path:
    """The folder of the cache, outside the repository; $COSMOS_CLUSTER_CACHE moves it."""
    chosen = os.environ.get(CACHE_VARIABLE)
    folder = Path(chosen) if chosen else Path.home() / ".cache" / "cosmos-post-training" / "cluster"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def state() -> Path:
    """The folder of the running cluster: etcd, kubelet, containerd, logs."""
    return cache() / "run"


def logs() -> Path:
    """The folder of the daemons' logs."""
    return state() / "logs"


def kubeconfig() -> Path:
    """The administrator's kubeconfig."""
    return state() / "kubeconfig"


def digest(ingredients: Iterable[str | bytes | Path]) -> str:
    """12 hexadecimal digits of the ingredients; a path stands for the file's content."""
    total = hashlib.sha256()
    for item in ingredients:
        content = item.read_bytes() if isinstance(item, Path) else item
        data = content.encode() if isinstance(content, str) else content
        total.update(hashlib.sha256(data).digest())
    return total.hexdigest()[:12]


@contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold a lock file for the block: one process at a time."""
    with (cache() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def artifact_path(what: str, ingredients: Iterable[str | bytes | Path]) -> Path:
    """Path in the cache of an artifact made from these ingredients."""
    return cache() / f"{what}-{digest(ingredients)}"


def artifact(
    what: str, ingredients: Iterable[str | bytes | Path], make: Callable[[Path], None]
) -> Path:
    """The folder ``<what>-<digest of the ingredients>`` of the cache, made by ``make`` when it is missing."""
    folder = artifact_path(what, ingredients)
    if folder.is_dir():
        return folder
    with lock(what):
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder
