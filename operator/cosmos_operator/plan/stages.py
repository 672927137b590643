"""Job → its stages, in an order in which they can run. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosmos_operator.api.status import ConditionType
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.plan import worker_doc
from cosmos_operator.plan.inputs import Inputs, read_inputs
from cosmos_operator.plan.volumes import used_volumes
from cosmos_worker.config.stages import GenerateConfig, PublishConfig, StageConfig, TrainConfig

SHARED_KINDS = ("fetch-model", "prepare-dataset", "embed-text", "cache-latents")
"""Stages whose results do not depend on the job's name: two jobs with the same inputs share them."""

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

    @property
    def volumes(self) -> dict[str, bool]:
        """Volumes that the stage uses → True if it writes there."""
        return used_volumes(self.document)


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
    fetch = worker_doc.fetch_model(inputs)
    dataset = worker_doc.prepare_dataset(inputs)
    latents = worker_doc.cache_latents(inputs, dataset)
    run = worker_doc.train(inputs, dataset, latents)
    published = worker_doc.publish(inputs, run)
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
    samples = _plan_samples(inputs, run, published)
    documents = tuple(document for _, document in samples)
    if documents:
        uses_dataset = any(map(worker_doc.uses_dataset, job.spec.inference))
        needs = ready if uses_dataset else ready[:1]
        checked = worker_doc.check_inputs(inputs, run, documents)
        preparation.append(Stage("check-inputs", "check-inputs", checked, needs))
    training = Stage(
        "train",
        "train",
        run,
        # all of them: results of shared stages may be there long before the model of this job
        tuple(stage.name for stage in preparation if stage.name != "prepare-dataset"),
        compute.gpus_per_node,
        compute.nodes,
        compute.num_processes_per_node,
    )
    publish = Stage("publish", "publish", published, ("train",))
    stages = [*preparation, training, publish, *(stage for stage, _ in samples)]
    if job.spec.outputs.report and documents:
        report = worker_doc.report(inputs, dataset, run, documents)
        names = tuple(stage.name for stage, _ in samples)
        stages.append(Stage("report", "report", report, ("publish", *names)))
    return tuple(stages)


def _plan_samples(
    inputs: Inputs, run: TrainConfig, published: PublishConfig
) -> list[tuple[Stage, GenerateConfig]]:
    """The stages of the inference items, with their documents."""
    found = []
    gpus_per_node = inputs.job.spec.compute.gpus_per_node
    for item in inputs.job.spec.inference:
        gpus = item.num_gpus(gpus_per_node)
        document = worker_doc.generate(inputs, item, run, published, gpus)
        needs = ["fetch-model"] if item.checkpoint == "Base" else ["publish"]
        needs += ["prepare-dataset"] if worker_doc.uses_dataset(item) else []
        name, processes = f"generate-{item.name}", item.num_processes(gpus_per_node)
        stage = Stage(name, "generate", document, tuple(needs), gpus, processes_per_node=processes)
        found.append((stage, document))
    return found
