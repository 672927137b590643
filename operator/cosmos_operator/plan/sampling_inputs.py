"""The inputs of the stages that generate videos and report on them, for jobs of both kinds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.api.prompts_and_guards import GuardrailsSpec
from cosmos_operator.plan.inputs import Inputs
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import TokenizerRuntime
from cosmos_worker.config.source import Artifact
from cosmos_worker.config.stages import PublishConfig, TrainConfig
from cosmos_worker.storage.volumes import MODEL_FILE


@dataclass(frozen=True)
class Weights:
    """Weights of the network, for one inference item."""

    address: str
    """Volume address of a file, or of a folder with any form that can be loaded."""
    lora_scale: float | None = None
    needs: tuple[str, ...] = ()
    """Keys that stand for the content of the weights, where their address does not."""


@dataclass(frozen=True)
class Dataset:
    """The dataset whose files items may name as dataset://FILE."""

    root: str
    """Address of its own files."""
    key: str
    """Content key of its files."""


@dataclass(frozen=True)
class Trained:
    """A training, and the model that it publishes."""

    run: TrainConfig
    published: PublishConfig


@dataclass(frozen=True)
class SamplingInputs:
    """All that the documents of the inference items of one job are made of."""

    job_name: str
    """Name of the job, for the report."""
    items: tuple[InferenceItem, ...]
    experiment: Experiment
    base: Weights
    """Weights of items with checkpoint Base."""
    published: Weights
    """Weights of all other items."""
    tokenizer: Artifact
    tokenizer_runtime: TokenizerRuntime
    encoder: Artifact
    text_store: str
    """Volume address of the text embeddings of this encoder, which may be empty."""
    auxiliary_models: Mapping[str, Artifact]
    """Kind of artifact → the prompt upsampler and the guardrails."""
    guardrails: GuardrailsSpec
    fit: str
    """Treatment of other aspect ratios, in the words of the API."""
    folder: str
    """Volume address of the folder that receives videos, checks and reports."""
    gpus_per_node: int
    """GPUs by which items that give no number are sized."""
    fingerprints: Mapping[str, str]
    dataset: Dataset | None = None
    trained: Trained | None = None
    """The training of the model; None if it was not trained by a job that is known."""

    def weights_of(self, item: InferenceItem) -> Weights:
        """The weights that an item is generated with."""
        return self.base if item.checkpoint == "Base" else self.published


def sampling_of_training(inputs: Inputs, trained: Trained) -> SamplingInputs:
    """The inputs of the inference list of a PostTrainingJob."""
    spec, published = inputs.job.spec, trained.published
    return SamplingInputs(
        job_name=inputs.job.name,
        items=spec.inference,
        experiment=inputs.experiment,
        base=Weights(inputs.model.target_uri, spec.model.lora_scale),
        published=Weights(f"{published.target_uri}/{MODEL_FILE}", needs=(published.key,)),
        tokenizer=inputs.tokenizer,
        tokenizer_runtime=inputs.tokenizer_runtime,
        encoder=inputs.encoder,
        text_store=inputs.text_store,
        auxiliary_models=inputs.auxiliary_models,
        guardrails=spec.guardrails,
        fit=spec.dataset.fit,
        folder=trained.run.target_uri,
        gpus_per_node=spec.compute.gpus_per_node,
        fingerprints=inputs.fingerprints,
        dataset=Dataset(inputs.dataset_root, inputs.dataset_key),
        trained=trained,
    )
