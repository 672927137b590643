"""Job → the document of each stage, which the worker reads from its ConfigMap; complete, without defaults. Pure."""

from __future__ import annotations

from typing import Literal, TypeVar

from cosmos_operator.api.inference import SamplingParameters
from cosmos_operator.plan.inputs import Inputs
from cosmos_operator.plan.keys import run_key, stage_key
from cosmos_operator.plan.training_run import run_address, starting_point
from cosmos_worker.config.choices import DatasetLayout, Fit, FrameRate
from cosmos_worker.config.sampling import DEFAULT_NEGATIVE_PROMPT
from cosmos_worker.config.source import Artifact
from cosmos_worker.config.stages import (
    CacheLatentsConfig,
    EmbedTextConfig,
    FetchModelConfig,
    PrepareDatasetConfig,
    PublishConfig,
    StageConfig,
    TrainConfig,
)

WEIGHTS: dict[str, Literal["ema", "reg"]] = {"Ema": "ema", "Regular": "reg"}
LAYOUTS: dict[str, DatasetLayout] = {
    "Bridge": "bridge",
    "Videos": "videos",
    "LeRobot": "lerobot",
    "Jsonl": "jsonl",
}
FRAME_RATES: dict[str, FrameRate] = {"Constant": "constant", "Resample": "resample"}
FITS: dict[str, Fit] = {"Stretch": "stretch", "Crop": "crop", "Pad": "pad"}

C = TypeVar("C", bound=StageConfig)


def keyed(kind: str, document: C, target: str, needs: tuple[str, ...] = ()) -> C:
    """The document with its key and its target.

    Args:
        kind: the worker's command.
        document: the document without both.
        target: volume address, in which ``{key}`` stands for the key.
        needs: see :func:`stage_key`.
    """
    key = stage_key(kind, document, needs)
    return document.model_copy(update={"key": key, "target_uri": target.replace("{key}", key)})


# --- one function a stage --------------------------------------------------------------------


def fetch_model(artifacts: tuple[Artifact, ...]) -> FetchModelConfig:
    """Weights, tokenizer, text encoder, prompt upsampler and guardrails, each into a folder named by its source."""
    document = FetchModelConfig(key="", target_uri="", artifacts=artifacts)
    return keyed("fetch-model", document, "models://fetched-{key}")


def prepare_dataset(inputs: Inputs) -> PrepareDatasetConfig:
    """The dataset's files, and the index of its windows."""
    dataset, experiment = inputs.job.spec.dataset, inputs.experiment
    document = PrepareDatasetConfig(
        key="",
        target_uri="",
        source=inputs.dataset_source,
        data_uri=f"{inputs.dataset_folder}/data",
        layout=LAYOUTS[dataset.layout],
        video=experiment.video,
        buckets=experiment.buckets,
        max_bad_fraction=dataset.max_bad_fraction,
        min_clips=experiment.trainer.global_batch_size,
        camera=dataset.camera,
        camera_name=dataset.camera_name,
        frame_rate=FRAME_RATES[dataset.frame_rate],
        fit=FITS[dataset.fit],
        validation_fraction=dataset.validation_fraction,
        validation_seed=dataset.validation_seed,
    )
    return keyed("prepare-dataset", document, f"{inputs.dataset_folder}/index-{{key}}")


def embed_text(inputs: Inputs, dataset: PrepareDatasetConfig) -> EmbedTextConfig:
    """Embeddings of the dataset's captions and of the prompts in the job."""
    items = inputs.job.spec.inference
    prompts = [entry.prompt for item in items for entry in item.inputs or ()]
    negatives = [negative_prompt(item.parameters) for item in items]
    texts = dict.fromkeys([*prompts, *(text for text in negatives if text is not None)])
    document = EmbedTextConfig(
        key="",
        target_uri="",
        dataset_uri=dataset.target_uri,
        encoder_uri=inputs.encoder.target_uri,
        max_length=inputs.experiment.text.max_length,
        max_unknown_fraction=inputs.job.spec.embeddings.max_unknown_fraction,
        extra_captions=tuple(texts),
    )
    return keyed("embed-text", document, inputs.text_store)


def negative_prompt(parameters: SamplingParameters) -> str | None:
    """The text that guidance moves away from; None without guidance."""
    if parameters.guidance == 0:
        return None
    given = parameters.negative_prompt
    return DEFAULT_NEGATIVE_PROMPT if given is None else given


def cache_latents(inputs: Inputs, dataset: PrepareDatasetConfig) -> CacheLatentsConfig:
    """Latents of every window."""
    document = CacheLatentsConfig(
        key="",
        target_uri="",
        dataset_uri=dataset.target_uri,
        tokenizer_uri=inputs.tokenizer.target_uri,
        video=inputs.experiment.video,
        buckets=inputs.experiment.buckets,
        fit=FITS[inputs.job.spec.dataset.fit],
        tokenizer=inputs.experiment.tokenizer,
        tokenizer_runtime=inputs.tokenizer_runtime,
    )
    return keyed("cache-latents", document, "embeddings://latents-{key}")


def train(
    inputs: Inputs, dataset: PrepareDatasetConfig, latents: CacheLatentsConfig
) -> TrainConfig:
    """The training run."""
    experiment = inputs.experiment
    fresh = experiment.trainer.init == "random"
    document = TrainConfig(
        key="",
        target_uri="",
        experiment=experiment,
        run_name=experiment.name,
        model_uri=None if fresh else inputs.model.target_uri,
        model_lora_scale=None if fresh else inputs.job.spec.model.lora_scale,
        dataset_uri=dataset.target_uri,
        embeddings_uri=inputs.text_store,
        latents_uri=latents.target_uri,
        tokenizer_uri=inputs.tokenizer.target_uri
        if experiment.trainer.sample_every_steps
        else None,
        tokenizer_runtime=inputs.tokenizer_runtime,
        job=inputs.job.name,
        job_namespace=inputs.job.metadata.namespace,
        published_uri=inputs.published_uri,
    )
    key = run_key(document)
    started = document.model_copy(update={"start_from": starting_point(inputs.job, document, key)})
    return keyed("train", started, f"checkpoints://{inputs.job.name}-{key}")


def publish(inputs: Inputs, run: TrainConfig) -> PublishConfig:
    """The checkpoint under the name that the job gives it."""
    outputs, steps = inputs.job.spec.outputs, inputs.experiment.trainer.max_steps
    is_best = outputs.checkpoint == "Best"
    document = PublishConfig(
        key="",
        target_uri="",
        run_uri=run_address(run),
        job=inputs.job.name,
        job_namespace=inputs.job.metadata.namespace,
        job_uid=inputs.job.metadata.uid,
        name=inputs.job.published_name,
        net=inputs.experiment.net,
        weights=WEIGHTS[outputs.weights],
        # by its number: a longer run in the same folder has later checkpoints
        step="best" if is_best else outputs.step or steps,
        last_step=steps if is_best else None,
        adapter_of=inputs.repository_of_model if outputs.adapter else None,
    )
    return keyed("publish", document, inputs.published_uri)


# --- parts -----------------------------------------------------------------------------------
