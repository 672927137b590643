"""The volumes that a stage mounts, found from the addresses in its document. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cosmos_operator.api.job import Job
from cosmos_operator.api.machines import VolumeSpec
from cosmos_operator.api.source import ClaimFolder
from cosmos_worker.config.stages import StageConfig
from cosmos_worker.storage.volumes import (
    ADDRESS,
    VOLUMES,
)

MOUNT_ROOT = "/mnt/cosmos"
CLAIM_ROOT = f"{MOUNT_ROOT}/claims"
"""Folder below which claims that a source names are mounted read-only."""


@dataclass(frozen=True)
class Mount:
    """A folder of a claim that is mounted in a pod."""

    claim_name: str
    sub_path: str
    mount_path: str
    read_only: bool
    volume: str | None
    """One of the four volumes of spec.storage; None for a claim that a source names."""


def volume_folder(spec: Mapping[str, Any], volume: str) -> tuple[str, str]:
    """Claim and folder of a block of spec.storage, as it stands in a job's document."""
    parsed = VolumeSpec.model_validate(spec)
    return parsed.claim_name, volume if parsed.sub_path is None else parsed.sub_path


def claim_address(claim: ClaimFolder, volume: str) -> str:
    """Address of a folder that a source gives as a claim."""
    if claim.claim_name is None:
        return f"{volume}://{claim.path}"
    return f"{CLAIM_ROOT}/{claim.claim_name}/{claim.path}".rstrip("/")


def mount_path(volume: str) -> str:
    """Path at which one of the four volumes is mounted."""
    return f"{MOUNT_ROOT}/{volume}"


def texts_of(document: StageConfig) -> tuple[str, ...]:
    """All texts in a document, of which some are addresses."""
    return tuple(_texts(document.model_dump()))


def used_volumes(document: StageConfig, texts: tuple[str, ...]) -> dict[str, bool]:
    """Volumes that a document names → True if the stage writes there, which is where its target lies.

    Args:
        document: the document.
        texts: see :func:`texts_of`.
    """
    matches = [ADDRESS.match(text) for text in texts]
    names = {match["volume"] for match in matches if match}
    target = document.target_uri.partition("://")[0]
    return {name: name == target for name in VOLUMES if name in names}


def build_mounts(
    job: Job, document: StageConfig, texts: tuple[str, ...], volumes: Mapping[str, bool]
) -> tuple[Mount, ...]:
    """All mounts of a stage's pod: the volumes and the claims that its document names.

    Args:
        job: the job.
        document: the stage's document.
        texts: see :func:`texts_of`.
        volumes: see :func:`used_volumes`.
    """
    mounts = []
    for volume, writes in volumes.items():
        spec = getattr(job.spec.storage, volume)
        sub_path = volume if spec.sub_path is None else spec.sub_path
        mounts.append(Mount(spec.claim_name, sub_path, mount_path(volume), not writes, volume))
    dataset = job.dataset_claim
    for claim in dict.fromkeys(named_claims(job).values()):
        path = f"{CLAIM_ROOT}/{claim}"
        # the index of a dataset points into the claim that holds its videos
        indexed = (
            dataset is not None and dataset.claim_name == claim and hasattr(document, "dataset_uri")
        )
        if indexed or any(text == path or text.startswith(path + "/") for text in texts):
            mounts.append(Mount(claim, "", path, True, None))
    return tuple(mounts)


def named_claims(job: Job) -> dict[str, str]:
    """Field of a source → the claim that it names."""
    found: dict[str, str] = {}
    for where, source in job.sources:
        if source.claim is not None and source.claim.claim_name is not None:
            found[f"{where}.claim.claimName"] = source.claim.claim_name
    return found


def claim_fields(job: Job) -> dict[str, str]:
    """Claims that a job uses → the first field that names each."""
    found: dict[str, str] = {}
    for volume in VOLUMES:
        spec: VolumeSpec = getattr(job.spec.storage, volume)
        found.setdefault(spec.claim_name, f"spec.storage.{volume}.claimName")
    for field, claim in named_claims(job).items():
        found.setdefault(claim, field)
    return found


def _texts(value: Any) -> Iterator[str]:  # noqa: ANN401 - any value of a document
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)
