"""``cosmos render``: the manifests of all objects of a job, as the operator would create them."""

from __future__ import annotations

from pathlib import Path

from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.parse import load_job
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.inference_stages import plan_inference_stages
from cosmos_operator.plan.render import build_manifests, to_yaml
from cosmos_operator.plan.sampling_job import complete_job
from cosmos_operator.plan.stages import plan_stages


def render_job(path: Path, model_job: Path | None = None) -> str:
    """The manifests of a job as YAML.

    Args:
        path: its file.
        model_job: file of the PostTrainingJob that an InferenceJob names.

    Raises:
        InvalidSpec: a wrong job, or an InferenceJob whose PostTrainingJob is not given.
    """
    job = load_job(path)
    trained_by = None if model_job is None else load_job(model_job)
    if not isinstance(job, InferenceJob):
        return to_yaml(build_manifests(job, plan_stages(job)))
    name = job.spec.model.job
    if isinstance(trained_by, InferenceJob) or (trained_by and trained_by.name) != name:
        raise InvalidSpec(
            [
                f"spec.model.job: {name or 'none'}; give the file of that PostTrainingJob with --model-job"
            ]
        )
    complete = complete_job(job, trained_by)
    return to_yaml(build_manifests(complete, plan_inference_stages(complete)))
