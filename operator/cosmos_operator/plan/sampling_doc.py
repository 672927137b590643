"""Sampling inputs → the documents of the stages that generate videos and report on them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cosmos_operator.api.check_items import DATASET_SCHEME, addresses, uses_dataset
from cosmos_operator.api.inference import InferenceItem
from cosmos_operator.plan.inputs import guardrails_kind
from cosmos_operator.plan.sampling_inputs import SamplingInputs
from cosmos_operator.plan.training_run import run_address
from cosmos_operator.plan.worker_doc import FITS, keyed
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import (
    CheckInputsConfig,
    GenerateConfig,
    GenerateInput,
    GuardrailsConfig,
    ItemConfig,
    ReportConfig,
)

SAMPLERS: dict[str, Literal["edm_euler", "res_2ab", "res_2mid", "res_1euler"]] = {
    "EdmEuler": "edm_euler",
    "Res2Ab": "res_2ab",
    "Res2Mid": "res_2mid",
    "Res1Euler": "res_1euler",
}
OFFLOAD: dict[str, Literal["tokenizer", "network"]] = {
    "Tokenizer": "tokenizer",
    "Network": "network",
}
METRICS: dict[str, Literal["psnr", "push"]] = {"Psnr": "psnr", "Push": "push"}
INPUT_FRAMES: dict[str, Literal["first", "last"]] = {"First": "first", "Last": "last"}


def generate(inputs: SamplingInputs, item: InferenceItem) -> GenerateConfig:
    """The videos of one inference item, on a GPU if the pod has one."""
    experiment, weights = inputs.experiment, inputs.weights_of(item)
    document = GenerateConfig(
        key="",
        target_uri="",
        name=item.name,
        checkpoint_uri=weights.address,
        checkpoint_lora_scale=weights.lora_scale,
        net=experiment.net,
        text=experiment.text,
        text_padding=experiment.text_padding,
        sigma_data=experiment.diffusion.sigma_data,
        tokenizer_uri=inputs.tokenizer.target_uri,
        tokenizer=experiment.tokenizer,
        tokenizer_runtime=inputs.tokenizer_runtime,
        encoder_uri=inputs.encoder.target_uri,
        embeddings_uri=inputs.text_store,
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
        fit=FITS[inputs.fit],
        # it was trained with the rate of each clip, so a video is sampled at the rate of the clip that it continues
        fps_of_inputs=item.parameters.fps is None and experiment.video.fps is None,
        metrics=tuple(METRICS[metric] for metric in item.metrics),
        context_parallel=item.context_parallel,
        offload=tuple(OFFLOAD[model] for model in item.offload),
        device="cuda" if item.num_gpus(inputs.gpus_per_node) else "cpu",
        compute_dtype=experiment.diffusion.compute_dtype,
        compile=experiment.acceleration.compile,
        prompt_upsampler_uri=(
            inputs.auxiliary_models["prompt_upsampler"].target_uri
            if item.prompt_upsampler
            else None
        ),
        guardrails=_guardrails(inputs) if item.guardrails else None,
    )
    needs = (*weights.needs, *_file_keys(inputs, item))
    target = f"{inputs.folder}/generated/{item.name}-{{key}}"
    return keyed("generate", document, target, needs)


def check_inputs(inputs: SamplingInputs, generated: Sequence[GenerateConfig]) -> CheckInputsConfig:
    """The check that the inputs of all inference items can be read; it needs no network."""
    trained = inputs.trained
    # only the job that publishes asks whether the name is taken
    is_own = trained is not None and trained.published.job == inputs.job_name
    published = trained.published if trained is not None and is_own else None
    document = CheckInputsConfig(
        key="",
        target_uri="",
        net=inputs.experiment.net,
        tokenizer=inputs.experiment.tokenizer,
        encoder_uri=inputs.encoder.target_uri,
        items=tuple(_without_models(one) for one in generated),
        job=None if published is None else published.job,
        job_namespace=None if published is None else published.job_namespace,
        published_uri=None if published is None else published.target_uri,
    )
    needs = tuple(dict.fromkeys(key for item in inputs.items for key in _file_keys(inputs, item)))
    return keyed("check-inputs", document, f"{inputs.folder}/inputs-{{key}}", needs)


def _without_models(document: GenerateConfig) -> ItemConfig:
    """The part of an item that can be checked without models; batch size and seed play no part in it."""
    values = {name: getattr(document, name) for name in ItemConfig.model_fields}
    sampling = document.sampling.model_copy(update={"batch_size": 1, "seed": 0})
    return ItemConfig(**{**values, "sampling": sampling})


def report(inputs: SamplingInputs, generated: Sequence[GenerateConfig]) -> ReportConfig:
    """The report on the videos, and on the training of the model if it is known."""
    trained = inputs.trained
    document = ReportConfig(
        key="",
        target_uri="",
        job_name=inputs.job_name,
        run_uri=None if trained is None else run_address(trained.run),
        steps=None if trained is None else trained.run.experiment.trainer.max_steps,
        dataset_uri=None if trained is None else trained.run.dataset_uri,
        generated=tuple((item.name, item.target_uri) for item in generated),
    )
    return keyed("report", document, f"{inputs.folder}/report-{{key}}")


# --- parts -----------------------------------------------------------------------------------


def _guardrails(inputs: SamplingInputs) -> GuardrailsConfig:
    folders = inputs.auxiliary_models
    return GuardrailsConfig(
        folder_uri=folders[guardrails_kind(inputs.guardrails)].target_uri,
        text_classifier_uri=folders["text_classifier"].target_uri,
        image_encoder_uri=folders["image_encoder"].target_uri,
        face_blur=inputs.guardrails.face_blur,
    )


def _resolve(inputs: SamplingInputs, address: str) -> str:
    if not address.startswith(DATASET_SCHEME):
        return address
    assert inputs.dataset is not None  # checked with the job
    return f"{inputs.dataset.root}/{address.removeprefix(DATASET_SCHEME).lstrip('/')}"


def _file_keys(inputs: SamplingInputs, item: InferenceItem) -> tuple[str, ...]:
    """Content keys of the files that an item reads, where their addresses do not contain one."""
    keys = [inputs.fingerprints[a] for a in addresses(item) if a in inputs.fingerprints]
    dataset = [] if inputs.dataset is None or not uses_dataset(item) else [inputs.dataset.key]
    return (*dataset, *keys)


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
