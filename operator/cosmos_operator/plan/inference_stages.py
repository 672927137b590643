"""InferenceJob → its stages: the same documents and keys as those of an inference list with the same inputs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cosmos_operator.api.check import check_single_objects, check_storage
from cosmos_operator.api.check_inference_job import (
    check_inference_job,
    gpus_of_items,
    resolve_sampling_experiment,
)
from cosmos_operator.api.models import BASE_MODEL, TextEncoderSpec, TokenizerSpec
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan import sampling_doc, worker_doc
from cosmos_operator.plan.inputs import (
    RUNTIMES,
    artifact,
    auxiliary_artifacts,
    read_inputs,
    text_store_of,
)
from cosmos_operator.plan.sampling_inputs import SamplingInputs, Weights, sampling_of_training
from cosmos_operator.plan.sampling_job import SamplingJob
from cosmos_operator.plan.stages import (
    Stage,
    plan_report,
    plan_samples,
    plan_training,
    with_verification,
)
from cosmos_worker.config.source import Artifact
from cosmos_worker.storage.volumes import MODEL_FILE

FOLDER = "generated-with-"
"""Beginning of the folder, below checkpoints/, of videos of a model that no known job has trained."""


@dataclass(frozen=True)
class _Sources:
    """The inputs of the documents, and what fetch-model fetches."""

    sampling: SamplingInputs
    artifacts: tuple[Artifact, ...]


def plan_inference_stages(
    job: SamplingJob, fingerprints: Mapping[str, str] | None = None, identity: str = ""
) -> tuple[Stage, ...]:
    """All stages of an InferenceJob.

    Args:
        job: the job; if it names a PostTrainingJob, with that.
        fingerprints: path → digest of its content, for each local path whose content the caller knows.
        identity: stands for the content of a published model, whose address does not: it may be published anew. Empty:
            its name alone.

    Raises:
        InvalidSpec: the job does not go with its model; every problem is one line.
    """
    problems = check_inference_job(job.request, job.trained_by)
    if problems := problems + check_storage(job) + check_single_objects(job):
        raise InvalidSpec(problems)
    found = _read_sources(job, fingerprints or {}, identity)
    sampling, checked = found.sampling, "check-inputs"
    samples = plan_samples(sampling, ("fetch-model", checked), ("fetch-model", checked))
    check = sampling_doc.check_inputs(sampling, [document for _, document in samples])
    stages = [
        Stage("fetch-model", "fetch-model", worker_doc.fetch_model(found.artifacts), ()),
        Stage(checked, checked, check, ("fetch-model",)),
        *(stage for stage, _ in samples),
    ]
    if job.request.spec.outputs.report:
        stages.append(plan_report(sampling, samples))
    return with_verification(stages, job)


def _read_sources(job: SamplingJob, fingerprints: Mapping[str, str], identity: str) -> _Sources:
    auxiliary = auxiliary_artifacts(job.prompt_upsampler, job.guardrails, fingerprints)
    if job.trained_by is None:
        return _of_model(job, fingerprints, identity, auxiliary)
    inputs = read_inputs(job.trained_by, fingerprints)
    sampling = replace(
        sampling_of_training(inputs, plan_training(inputs)),
        job_name=job.name,
        items=job.spec.inference,
        auxiliary_models=auxiliary,
        guardrails=job.guardrails,
        gpus_per_node=job.spec.compute.gpus_per_node,
    )
    models = (inputs.model, inputs.tokenizer, inputs.encoder)
    return _Sources(sampling, (*models, *auxiliary.values()))


def _of_model(
    job: SamplingJob,
    fingerprints: Mapping[str, str],
    identity: str,
    auxiliary: Mapping[str, Artifact],
) -> _Sources:
    """The inputs of a job whose model was published under a name, or is fetched."""
    request = job.request.spec
    tokens, texts = request.tokenizer or TokenizerSpec(), request.embeddings or TextEncoderSpec()
    tokenizer = artifact("tokenizer", tokens.name, tokens.source, fingerprints)
    encoder = artifact("text_encoder", texts.encoder, texts.source, fingerprints)
    artifacts = (tokenizer, encoder, *auxiliary.values())
    if request.model.published is not None:
        address = f"checkpoints://{request.model.published}"
        weights = Weights(f"{address}/{MODEL_FILE}", needs=(identity,) if identity else ())
    else:
        model = request.model
        fetched = artifact("model", model.name or BASE_MODEL, model.source, fingerprints)
        address, artifacts = fetched.target_uri, (fetched, *artifacts)
        weights = Weights(address, model.lora_scale)
    experiment = resolve_sampling_experiment(job.request, None)
    sampling = SamplingInputs(
        job_name=job.name,
        items=job.spec.inference,
        experiment=experiment,
        base=weights,
        published=weights,
        tokenizer=tokenizer,
        tokenizer_runtime=RUNTIMES[tokens.runtime],
        encoder=encoder,
        text_store=text_store_of(encoder, experiment),
        auxiliary_models=auxiliary,
        guardrails=job.guardrails,
        fit=request.fit or "Stretch",
        folder=f"checkpoints://{FOLDER}{address.partition('://')[2]}",
        gpus_per_node=gpus_of_items(job.request, None),
        fingerprints=fingerprints,
    )
    return _Sources(sampling, artifacts)
