"""The model of an InferenceJob on this machine: the PostTrainingJob that trained it, or the published file.

``cosmos run`` of a PostTrainingJob leaves its specification in the workspace, where an InferenceJob finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.parse import load_job, parse_job
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.local.fingerprints import (
    fingerprint,
    fingerprint_paths,
    missing_paths,
    with_absolute_paths,
)
from cosmos_operator.plan.inference_stages import plan_inference_stages
from cosmos_operator.plan.inputs import read_inputs
from cosmos_operator.plan.render import to_yaml
from cosmos_operator.plan.sampling_job import SamplingJob, complete_job
from cosmos_operator.plan.stages import Stage, plan_training
from cosmos_worker.storage.volumes import MODEL_FILE, atomic_write, read_marker

JOB_FILE = "job.yaml"
"""File in a workspace with the specification of the PostTrainingJob that was run there."""


@dataclass(frozen=True)
class KnownJob:
    """A PostTrainingJob, and digests of its local files as they were when it ran."""

    job: PostTrainingJob
    fingerprints: Mapping[str, str] = field(default_factory=dict)


def keep_job(workspace: Path, job: PostTrainingJob, fingerprints: Mapping[str, str]) -> None:
    """Write the specification of a job that runs in a workspace."""
    document = job.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"status"})
    with atomic_write(workspace / JOB_FILE, "w") as stream:
        stream.write(to_yaml([{"job": document, "fingerprints": dict(fingerprints)}]))


def find_model_job(
    request: InferenceJob, given: Path | None, workspace: Path | None
) -> KnownJob | None:
    """The PostTrainingJob that an InferenceJob names.

    Args:
        request: the InferenceJob.
        given: its YAML file, as ``--model-job`` names it.
        workspace: folder in which it may have run.

    Returns:
        None if the InferenceJob names none, or if neither a file nor the workspace has it.

    Raises:
        InvalidSpec: another job is there, or a wrong one.
    """
    name = request.spec.model.job
    if name is None:
        if given is not None:
            raise InvalidSpec(["--model-job: spec.model.job names no job; remove one of them"])
        return None
    found = _load(given) if given is not None else _recall(workspace)
    if found is not None and found.job.name != name:
        place = given if given is not None else workspace
        raise InvalidSpec(
            [
                f"spec.model.job: {name!r}, but {place} has the job {found.job.name!r}; correct the name, or give "
                "the file of that job with --model-job"
            ]
        )
    return found


def _load(path: Path) -> KnownJob:
    job = load_job(path)
    if isinstance(job, InferenceJob):
        raise InvalidSpec([f"--model-job: {path} is an InferenceJob; give the PostTrainingJob"])
    job = with_absolute_paths(job, path.resolve().parent)
    return KnownJob(job, {} if missing_paths(job) else fingerprint_paths(job))


def _recall(workspace: Path | None) -> KnownJob | None:
    if workspace is None or not (workspace / JOB_FILE).is_file():
        return None
    kept = yaml.safe_load((workspace / JOB_FILE).read_text(encoding="utf-8"))
    return KnownJob(parse_job(kept["job"]), kept["fingerprints"])


def plan_on_this_machine(
    request: InferenceJob, known: KnownJob | None, workspace: Path, paths: Mapping[str, str]
) -> tuple[SamplingJob, tuple[Stage, ...]]:
    """An InferenceJob and its stages, once its model lies in the workspace.

    Args:
        request: the InferenceJob, with absolute paths.
        known: the PostTrainingJob that it names.
        workspace: folder of all files.
        paths: path → digest of its content, of the InferenceJob's own files.

    Raises:
        InvalidSpec: the model is not there.
    """
    name = request.spec.model.job
    if name is not None and known is None:
        raise InvalidSpec(
            [
                f"spec.model.job: no job {name!r} has run in {workspace}; run its file first with `cosmos run`, or "
                "give the --workspace in which it ran"
            ]
        )
    job = complete_job(request, None if known is None else known.job)
    digests = {**(known.fingerprints if known is not None else {}), **paths}
    if known is None:
        return job, plan_inference_stages(job, digests, _published_identity(job, workspace))
    published = plan_training(read_inputs(known.job, digests)).published
    folder = checkpoints_folder(job, workspace) / published.name
    if read_marker(folder, published.key) is None:
        raise InvalidSpec(
            [
                f"spec.model.job: {name!r} has published no model in {folder}; run its file to the end first with "
                f"`cosmos run`"
            ]
        )
    return job, plan_inference_stages(job, digests)


def checkpoints_folder(job: SamplingJob, workspace: Path) -> Path:
    """Folder of the volume of checkpoints in a workspace."""
    volume = job.spec.storage.checkpoints
    below = "checkpoints" if volume.sub_path is None else volume.sub_path
    return workspace / volume.claim_name / below


def _published_identity(job: SamplingJob, workspace: Path) -> str:
    """Digest of the published model; empty if the job uses another one."""
    name = job.request.spec.model.published
    if name is None:
        return ""
    path = checkpoints_folder(job, workspace) / name / MODEL_FILE
    if not path.is_file():
        raise InvalidSpec(
            [
                f"spec.model.published: no file {path}; give the --workspace of the run that published {name!r}"
            ]
        )
    return fingerprint(path)
