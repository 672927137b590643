"""The inputs of all stage documents of a job: its experiment, and the sources and folders of its files. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosmos_operator.api.check import resolve_experiment
from cosmos_operator.api.prompts_and_guards import GuardrailsSpec, PromptUpsamplerSpec
from cosmos_operator.api.source import Source as ApiSource
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.plan.keys import source_key
from cosmos_operator.plan.names import folder_name
from cosmos_operator.plan.volumes import claim_address
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import TokenizerRuntime
from cosmos_worker.config.source import (
    Artifact,
    ArtifactKind,
    HuggingFaceSource,
    S3Source,
    Source,
    UrlSource,
)
from cosmos_worker.storage.volumes import content_key

RUNTIMES: dict[str, TokenizerRuntime] = {"Native": "native", "TorchScript": "torchscript"}


@dataclass(frozen=True)
class Inputs:
    """The inputs of all stage documents of a job."""

    job: PostTrainingJob
    experiment: Experiment
    model: Artifact
    tokenizer: Artifact
    encoder: Artifact
    auxiliary_models: Mapping[str, Artifact]
    """Kind of artifact → the prompt upsampler and the guardrails that the job names."""
    dataset_source: Source
    dataset_key: str
    dataset_folder: str
    """Volume address of the dataset's folder, which holds its files and its indexes."""
    text_store: str
    """Volume address of the text embeddings, shared by all jobs with this encoder and length."""
    fingerprints: Mapping[str, str]

    @property
    def dataset_root(self) -> str:
        """Address of the dataset's own files, the root of dataset:// addresses."""
        return self.dataset_source.path or f"{self.dataset_folder}/data"

    @property
    def tokenizer_runtime(self) -> TokenizerRuntime:
        """The runtime of the tokenizer, in the words of the stage documents."""
        return RUNTIMES[self.job.spec.tokenizer.runtime]

    @property
    def published_uri(self) -> str:
        """Volume address of the published model's folder."""
        return f"checkpoints://{self.job.published_name}"

    @property
    def repository_of_model(self) -> str:
        """Name of the model that the training starts from, as people know it: its repository, otherwise its name."""
        repository = self.model.source.hugging_face
        return self.model.name if repository is None else repository.repo


def read_inputs(job: PostTrainingJob, fingerprints: Mapping[str, str]) -> Inputs:
    """Resolve the experiment and the sources of a job."""
    spec = job.spec
    experiment = resolve_experiment(job)
    model = artifact("model", spec.model.name, spec.model.source, fingerprints)
    tokenizer = artifact("tokenizer", spec.tokenizer.name, spec.tokenizer.source, fingerprints)
    encoder = artifact(
        "text_encoder", spec.embeddings.encoder, spec.embeddings.source, fingerprints
    )
    source = _source(spec.dataset.source, "datasets")
    dataset_key = source_key("dataset", source, fingerprints)
    name = spec.dataset.name or _source_name(source)
    return Inputs(
        job=job,
        experiment=experiment,
        model=model,
        tokenizer=tokenizer,
        encoder=encoder,
        auxiliary_models=auxiliary_artifacts(spec.prompt_upsampler, spec.guardrails, fingerprints),
        dataset_source=source,
        dataset_key=dataset_key,
        dataset_folder=f"datasets://{folder_name(name, dataset_key)}",
        text_store=text_store_of(encoder, experiment),
        fingerprints=fingerprints,
    )


def text_store_of(encoder: Artifact, experiment: Experiment) -> str:
    """Volume address of the text embeddings of an encoder, at the length of the experiment."""
    key = content_key([encoder.target_uri, experiment.text.max_length])
    return f"embeddings://{folder_name(f'text-{encoder.name}', key)}"


def auxiliary_artifacts(
    upsampler: PromptUpsamplerSpec, guardrails: GuardrailsSpec, fingerprints: Mapping[str, str]
) -> dict[str, Artifact]:
    """Kind of artifact → the prompt upsampler and the guardrails that a job names.

    They are fetched whenever the job names them, so that items that use them may be appended at any time.
    """
    found = {}
    given: dict[ArtifactKind, ApiSource | None] = {
        "prompt_upsampler": upsampler.source,
        guardrails_kind(guardrails): guardrails.source,
        "text_classifier": guardrails.text_classifier,
        "image_encoder": guardrails.image_encoder,
    }
    for kind, source in given.items():
        if source is not None:
            name = _source_name(_source(source, "models"))
            found[str(kind)] = artifact(kind, name, source, fingerprints)
    return found


def guardrails_kind(guardrails: GuardrailsSpec) -> ArtifactKind:
    """Kind of artifact that is fetched for guardrails: with the network that finds faces, if they are blurred."""
    return "guardrails_with_face_blur" if guardrails.face_blur else "guardrails"


def _source(source: ApiSource, volume: str) -> Source:
    if source.claim is not None:
        return Source(path=claim_address(source.claim, volume))
    if source.url is not None:
        return Source(url=UrlSource(url=source.url.url, sha256=source.url.sha256))
    if source.hugging_face is not None:
        repository = source.hugging_face
        return Source(
            hugging_face=HuggingFaceSource(repo=repository.repo, revision=repository.revision)
        )
    if source.s3 is not None:
        stored = source.s3
        return Source(s3=S3Source(uri=stored.uri, endpoint=stored.endpoint, region=stored.region))
    return Source(path=source.path)


def _source_name(source: Source) -> str:
    """The last part of a source's address, without the ending of an archive."""
    text = source.path or ""
    if source.url is not None:
        text = source.url.url.partition("?")[0]
    elif source.hugging_face is not None:
        text = source.hugging_face.repo
    elif source.s3 is not None:
        text = source.s3.uri
    name = text.rstrip("/").rpartition("/")[2]
    return name.partition(".tar")[0].removesuffix(".tgz") or "dataset"


def artifact(
    kind: ArtifactKind,
    name: str,
    given: ApiSource | None,
    fingerprints: Mapping[str, str],
) -> Artifact:
    """A model to fetch.

    Args:
        kind: its kind.
        name: its name; without a source also that of the repository on the Hub.
        given: its source.
        fingerprints: path → digest of its content, for local paths.
    """
    if given is None:
        repo = name if "/" in name else f"nvidia/{name}"
        source = Source(hugging_face=HuggingFaceSource(repo=repo))
    else:
        source = _source(given, "models")
    folder = folder_name(name, source_key(kind, source, fingerprints))
    pin = None if given is None else given.digest_of_files
    target = f"models://{folder}"
    return Artifact(kind=kind, name=name, source=source, target_uri=target, sha256=pin)
