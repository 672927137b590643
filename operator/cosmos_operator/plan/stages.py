"""Job → its stages, in an order in which they can run. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cosmos_operator.api.check_items import uses_dataset
from cosmos_operator.api.job import Job
from cosmos_operator.api.status import ConditionType
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.plan import sampling_doc, worker_doc
from cosmos_operator.plan.inputs import Inputs, read_inputs
from cosmos_operator.plan.sampling_inputs import SamplingInputs, Trained, sampling_of_training
from cosmos_operator.plan.volumes import Mount, build_mounts, texts_of, used_volumes
from cosmos_worker.config.source import Artifact
from cosmos_worker.config.stages import GenerateConfig, StageConfig

SHARED_KINDS = ("fetch-model", "prepare-dataset", "embed-text", "cache-latents")
"""Stages whose results do not depend on the job's name: two jobs with the same inputs share them."""

GENERATE = "generate-"
"""Beginning of the name of the stage of an inference item; its end is the item's name."""
CONDITIONS: dict[str, ConditionType] = {
    "fetch-model": "ModelReady",
    "prepare-dataset": "DatasetReady",
    "embed-text": "EmbeddingsReady",
    "cache-latents": "LatentsReady",
    "check-inputs": "InputsReady",
    "publish": "Published",
}
"""Kind of a stage → the condition of the job that says whether its result is there."""


@dataclass(frozen=True)
class Stage:
    """A unit of work: one command of the worker with its document."""

    name: str
    """Name of the stage, unique in the job, such as train or generate-before."""
    kind: str
    """Command of the worker that carries it out."""
    document: StageConfig
    depends_on: tuple[str, ...]
    """Names of the stages whose results it reads."""
    gpus: int = 0
    """Number of GPUs of each pod."""
    nodes: int = 1
    """Number of pods, each on a node of its own."""
    processes_per_node: int = 1
    """Number of processes of each pod."""

    @property
    def key(self) -> str:
        """Content key of the stage."""
        return self.document.key

    @property
    def is_shared(self) -> bool:
        """True if other jobs with the same inputs use the same result."""
        return self.kind in SHARED_KINDS

    @cached_property
    def volumes(self) -> dict[str, bool]:
        """Volumes that the stage uses → True if it writes there."""
        return used_volumes(self.document, self._texts)

    def mounts(self, job: Job) -> tuple[Mount, ...]:
        """Folders of claims that are mounted in the pods of the stage as one of a job."""
        return build_mounts(job, self.document, self._texts, self.volumes)

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return texts_of(self.document)


def plan_stages(
    job: PostTrainingJob, fingerprints: Mapping[str, str] | None = None
) -> tuple[Stage, ...]:
    """All stages of a job.

    Args:
        job: a job that passed ``check_job``.
        fingerprints: path → digest of its content, for each local path in the job whose content the caller
            knows; without it a path stands for itself.
    """
    inputs = read_inputs(job, fingerprints or {})
    compute = job.spec.compute
    fetch = worker_doc.fetch_model(artifacts_of(inputs))
    dataset = worker_doc.prepare_dataset(inputs)
    latents = worker_doc.cache_latents(inputs, dataset)
    trained = plan_training(inputs)
    gpus = compute.preparation_gpus
    ready = ("fetch-model", "prepare-dataset")
    preparation = [
        Stage("fetch-model", "fetch-model", fetch, ()),
        Stage("prepare-dataset", "prepare-dataset", dataset, ()),
        Stage("embed-text", "embed-text", worker_doc.embed_text(inputs, dataset), ready, gpus),
        Stage(
            "cache-latents", "cache-latents", latents, ready, gpus, processes_per_node=max(1, gpus)
        ),
    ]
    sampling = sampling_of_training(inputs, trained)
    samples = plan_samples(sampling, ("fetch-model",), ("publish",), ("prepare-dataset",))
    documents = [document for _, document in samples]
    if documents:
        needs = ready if any(map(uses_dataset, job.spec.inference)) else ready[:1]
        checked = sampling_doc.check_inputs(sampling, documents)
        preparation.append(Stage("check-inputs", "check-inputs", checked, needs))
    training = Stage(
        "train",
        "train",
        trained.run,
        # all of them: results of shared stages may be there long before the model of this job
        tuple(stage.name for stage in preparation if stage.name != "prepare-dataset"),
        compute.gpus_per_node,
        compute.nodes,
        compute.num_processes_per_node,
    )
    publish = Stage("publish", "publish", trained.published, ("train",))
    stages = [*preparation, training, publish, *(stage for stage, _ in samples)]
    if job.spec.outputs.report and documents:
        stages.append(plan_report(sampling, samples, ("publish",)))
    return with_verification(stages, job)


def with_verification(stages: Sequence[Stage], job: Job) -> tuple[Stage, ...]:
    """Stages with the way in which the job wants files verified, which decides none of their results."""
    if job.spec.storage.verify == "Sampled":
        return tuple(stages)
    return tuple(
        replace(stage, document=stage.document.model_copy(update={"verify": "full"}))
        for stage in stages
    )


def artifacts_of(inputs: Inputs) -> tuple[Artifact, ...]:
    """Everything that fetch-model fetches for a PostTrainingJob."""
    return (inputs.model, inputs.tokenizer, inputs.encoder, *inputs.auxiliary_models.values())


def plan_training(inputs: Inputs) -> Trained:
    """The documents of a training and of what it publishes."""
    dataset = worker_doc.prepare_dataset(inputs)
    run = worker_doc.train(inputs, dataset, worker_doc.cache_latents(inputs, dataset))
    return Trained(run, worker_doc.publish(inputs, run))


Samples = Sequence[tuple[Stage, GenerateConfig]]


def plan_samples(
    sampling: SamplingInputs,
    base_needs: tuple[str, ...],
    published_needs: tuple[str, ...],
    dataset_needs: tuple[str, ...] = (),
) -> Samples:
    """The stages of the inference items, with their documents.

    Args:
        sampling: their inputs.
        base_needs: stages that items with checkpoint Base wait for.
        published_needs: stages that the other items wait for.
        dataset_needs: stages that items with files of the dataset wait for too.
    """
    found = []
    for item in sampling.items:
        needs = base_needs if item.checkpoint == "Base" else published_needs
        needs += dataset_needs if uses_dataset(item) else ()
        document = sampling_doc.generate(sampling, item)
        gpus = item.num_gpus(sampling.gpus_per_node)
        processes = item.num_processes(sampling.gpus_per_node)
        name = f"{GENERATE}{item.name}"
        stage = Stage(name, "generate", document, needs, gpus, processes_per_node=processes)
        found.append((stage, document))
    return found


def plan_report(
    sampling: SamplingInputs, samples: Samples, further_needs: tuple[str, ...] = ()
) -> Stage:
    """The stage of the report on the videos."""
    document = sampling_doc.report(sampling, [document for _, document in samples])
    names = tuple(stage.name for stage, _ in samples)
    return Stage("report", "report", document, (*further_needs, *names))
