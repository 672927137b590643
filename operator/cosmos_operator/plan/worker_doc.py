"""Job → the document of each stage, which the worker reads from its ConfigMap; complete, without defaults. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from cosmos_operator.api.check import DATASET_SCHEME
from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.plan.inputs import Inputs, guardrails_kind
from cosmos_operator.plan.keys import run_key, stage_key
from cosmos_operator.plan.training_run import run_address, starting_point
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import (
    CacheLatentsConfig,
    CheckInputsConfig,
    DatasetLayout,
    EmbedTextConfig,
    FetchModelConfig,
    Fit,
    FrameRate,
    GenerateConfig,
    GenerateInput,
    GuardrailsConfig,
    ItemConfig,
    PrepareDatasetConfig,
    PublishConfig,
    ReportConfig,
    StageConfig,
    TrainConfig,
)
from cosmos_worker.storage.volumes import MODEL_FILE

SAMPLERS: dict[str, Literal["edm_euler", "res_2ab", "res_2mid", "res_1euler"]] = {
    "EdmEuler": "edm_euler",
    "Res2Ab": "res_2ab",
    "Res2Mid": "res_2mid",
    "Res1Euler": "res_1euler",
}
WEIGHTS: dict[str, Literal["ema", "reg"]] = {"Ema": "ema", "Regular": "reg"}
OFFLOAD: dict[str, Literal["tokenizer", "network"]] = {
    "Tokenizer": "tokenizer",
    "Network": "network",
}
METRICS: dict[str, Literal["psnr", "push"]] = {"Psnr": "psnr", "Push": "push"}
INPUT_FRAMES: dict[str, Literal["first", "last"]] = {"First": "first", "Last": "last"}
LAYOUTS: dict[str, DatasetLayout] = {
    "Bridge": "bridge",
    "Videos": "videos",
    "LeRobot": "lerobot",
    "Jsonl": "jsonl",
}
FRAME_RATES: dict[str, FrameRate] = {"Constant": "constant", "Resample": "resample"}
FITS: dict[str, Fit] = {"Stretch": "stretch", "Crop": "crop", "Pad": "pad"}

C = TypeVar("C", bound=StageConfig)


def _keyed(kind: str, document: C, target: str, needs: tuple[str, ...] = ()) -> C:
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


def fetch_model(inputs: Inputs) -> FetchModelConfig:
    """Weights, tokenizer, text encoder, prompt upsampler and guardrails, each into a folder named by its source."""
    artifacts = (
        inputs.model,
        inputs.tokenizer,
        inputs.encoder,
        *inputs.auxiliary_models.values(),
    )
    document = FetchModelConfig(key="", target_uri="", artifacts=artifacts)
    return _keyed("fetch-model", document, "models://fetched-{key}")


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
    return _keyed("prepare-dataset", document, f"{inputs.dataset_folder}/index-{{key}}")


def embed_text(inputs: Inputs, dataset: PrepareDatasetConfig) -> EmbedTextConfig:
    """Embeddings of the dataset's captions and of the prompts in the job."""
    items = inputs.job.spec.inference
    prompts = [entry.prompt for item in items for entry in item.inputs or ()]
    negatives = [item.parameters.negative_prompt for item in items]
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
    return _keyed("embed-text", document, inputs.text_store)


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
    )
    return _keyed("cache-latents", document, "embeddings://latents-{key}")


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
        job=inputs.job.name,
        published_uri=inputs.published_uri,
    )
    key = run_key(document)
    started = document.model_copy(update={"start_from": starting_point(inputs.job, document, key)})
    return _keyed("train", started, f"checkpoints://{inputs.job.name}-{key}")


def publish(inputs: Inputs, run: TrainConfig) -> PublishConfig:
    """The checkpoint under the name that the job gives it."""
    outputs, steps = inputs.job.spec.outputs, inputs.experiment.trainer.max_steps
    is_best = outputs.checkpoint == "Best"
    document = PublishConfig(
        key="",
        target_uri="",
        run_uri=run_address(run),
        job=inputs.job.name,
        name=inputs.job.published_name,
        net=inputs.experiment.net,
        weights=WEIGHTS[outputs.weights],
        # by its number: a longer run in the same folder has later checkpoints
        step="best" if is_best else outputs.step or steps,
        last_step=steps if is_best else None,
        adapter_of=inputs.repository_of_model if outputs.adapter else None,
    )
    return _keyed("publish", document, inputs.published_uri)


def generate(
    inputs: Inputs, item: InferenceItem, run: TrainConfig, published: PublishConfig, gpus: int
) -> GenerateConfig:
    """The videos of one inference item, on a GPU if the pod has one."""
    experiment = inputs.experiment
    base = item.checkpoint == "Base"
    document = GenerateConfig(
        key="",
        target_uri="",
        name=item.name,
        checkpoint_uri=inputs.model.target_uri if base else f"{published.target_uri}/{MODEL_FILE}",
        checkpoint_lora_scale=inputs.job.spec.model.lora_scale if base else None,
        net=experiment.net,
        text=experiment.text,
        text_padding=experiment.text_padding,
        sigma_data=experiment.diffusion.sigma_data,
        tokenizer_uri=inputs.tokenizer.target_uri,
        tokenizer=experiment.tokenizer,
        encoder_uri=inputs.encoder.target_uri,
        inputs=tuple(
            GenerateInput(
                prompt=entry.prompt,
                visual_input_uri=_resolve(inputs, entry.conditioning),
                ground_truth_uri=None
                if entry.ground_truth is None
                else _resolve(inputs, entry.ground_truth),
            )
            for entry in item.inputs or ()
        ),
        inputs_file_uri=None if item.inputs_file is None else _resolve(inputs, item.inputs_file),
        sampling=_sampling(item, experiment),
        fit=FITS[inputs.job.spec.dataset.fit],
        # it was trained with the rate of each clip, so a video is sampled at the rate of the clip that it continues
        fps_of_inputs=item.parameters.fps is None and experiment.video.fps is None,
        metrics=tuple(METRICS[metric] for metric in item.metrics),
        context_parallel=item.context_parallel,
        offload=tuple(OFFLOAD[model] for model in item.offload),
        device="cuda" if gpus else "cpu",
        compute_dtype=experiment.diffusion.compute_dtype,
        prompt_upsampler_uri=(
            inputs.auxiliary_models["prompt_upsampler"].target_uri
            if item.prompt_upsampler
            else None
        ),
        guardrails=_guardrails(inputs) if item.guardrails else None,
    )
    needs = (*(() if base else (published.key,)), *_file_keys(inputs, item))
    target = f"{run.target_uri}/generated/{item.name}-{{key}}"
    return _keyed("generate", document, target, needs)


def check_inputs(
    inputs: Inputs, run: TrainConfig, generated: Sequence[GenerateConfig]
) -> CheckInputsConfig:
    """The check that the inputs of all inference items can be read; it needs no network."""
    items = inputs.job.spec.inference
    document = CheckInputsConfig(
        key="",
        target_uri="",
        net=inputs.experiment.net,
        tokenizer=inputs.experiment.tokenizer,
        encoder_uri=inputs.encoder.target_uri,
        items=tuple(_without_models(one) for one in generated),
        job=inputs.job.name,
        published_uri=inputs.published_uri,
    )
    needs = tuple(dict.fromkeys(key for item in items for key in _file_keys(inputs, item)))
    return _keyed("check-inputs", document, f"{run.target_uri}/inputs-{{key}}", needs)


def _without_models(document: GenerateConfig) -> ItemConfig:
    """The part of an item that can be checked without models; batch size and seed play no part in it."""
    values = {name: getattr(document, name) for name in ItemConfig.model_fields}
    sampling = document.sampling.model_copy(update={"batch_size": 1, "seed": 0})
    return ItemConfig(**{**values, "sampling": sampling})


def report(
    inputs: Inputs,
    dataset: PrepareDatasetConfig,
    run: TrainConfig,
    generated: tuple[GenerateConfig, ...],
) -> ReportConfig:
    """The report on the run and the videos."""
    document = ReportConfig(
        key="",
        target_uri="",
        job_name=inputs.job.name,
        run_uri=run_address(run),
        steps=run.experiment.trainer.max_steps,
        dataset_uri=dataset.target_uri,
        generated=tuple((item.name, item.target_uri) for item in generated),
    )
    return _keyed("report", document, f"{run.target_uri}/report-{{key}}")


# --- parts -----------------------------------------------------------------------------------


def uses_dataset(item: InferenceItem) -> bool:
    """True if an inference item reads files of the job's dataset."""
    return any(address.startswith(DATASET_SCHEME) for address in addresses(item))


def addresses(item: InferenceItem) -> tuple[str, ...]:
    """Every file that an inference item names."""
    found = [item.inputs_file]
    for entry in item.inputs or ():
        found += [entry.conditioning, entry.ground_truth]
    return tuple(address for address in found if address is not None)


def _guardrails(inputs: Inputs) -> GuardrailsConfig:
    folders = inputs.auxiliary_models
    return GuardrailsConfig(
        folder_uri=folders[guardrails_kind(inputs.job)].target_uri,
        text_classifier_uri=folders["text_classifier"].target_uri,
        image_encoder_uri=folders["image_encoder"].target_uri,
        face_blur=inputs.job.spec.guardrails.face_blur,
    )


def _resolve(inputs: Inputs, address: str) -> str:
    if not address.startswith(DATASET_SCHEME):
        return address
    return f"{inputs.dataset_root}/{address.removeprefix(DATASET_SCHEME).lstrip('/')}"


def _file_keys(inputs: Inputs, item: InferenceItem) -> tuple[str, ...]:
    """Content keys of the files that an item reads, where their addresses do not contain one."""
    keys = [inputs.fingerprints[a] for a in addresses(item) if a in inputs.fingerprints]
    return (*([inputs.dataset_key] if uses_dataset(item) else []), *keys)


def _sampling(item: InferenceItem, experiment: Experiment) -> SamplingConfig:
    given, video = item.parameters, experiment.video
    return SamplingConfig(
        num_steps=given.steps,
        guidance=given.guidance,
        seed=given.seed,
        num_pixel_frames=given.num_pixel_frames or video.num_pixel_frames,
        height=given.height or video.height,
        width=given.width or video.width,
        fps=given.fps or video.fps or 24.0,
        num_input_frames=given.num_input_frames,
        num_passes=given.passes,
        input_frames=INPUT_FRAMES[given.input_frames],
        negative_prompt=given.negative_prompt,
        sampler=SAMPLERS[given.sampler],
        sigma_max=given.sigma_max,
        sigma_min=given.sigma_min,
        batch_size=given.batch_size,
    )
