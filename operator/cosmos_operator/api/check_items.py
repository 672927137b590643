"""Checks of inference items, of a job of any kind. Pure; returns problems, one line each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cosmos_operator.api.inference import InferenceItem
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.storage.volumes import ADDRESS, VOLUMES

DATASET_SCHEME = "dataset://"
"""Addresses of an inference item that are relative to the job's dataset."""


@dataclass(frozen=True)
class ItemContext:
    """Facts about a job on which the check of its items depends."""

    field: str
    """Path of the list of items, such as spec.inference."""
    has_upsampler: bool
    has_guardrails: bool
    gpus_per_node: int
    """GPUs by which items that give no number are sized."""
    has_dataset: bool = True


def check_items(items: Sequence[InferenceItem], context: ItemContext) -> list[str]:
    """Problems of names, addresses and models around the sampling, one line each."""
    problems = []
    names = Counter(item.name for item in items)
    for number, item in enumerate(items):
        where = f"{context.field}[{number}]"
        if names[item.name] > 1:
            problems.append(f"{where}.name: {item.name!r} is used twice; names must differ")
        if item.inputs_file is not None:
            problems += _check_file(item.inputs_file, context, f"{where}.inputsFile")
        problems += _check_auxiliary_models(item, context, where)
        for index, entry in enumerate(item.inputs or ()):
            here = f"{where}.inputs[{index}]"
            problems += _check_file(entry.conditioning, context, f"{here}.conditioning")
            if "Psnr" in item.metrics and entry.ground_truth is None:
                problems.append(
                    f"{here}.groundTruth: missing, which the metric Psnr needs; give it or "
                    "remove the metric"
                )
            if entry.ground_truth is not None:
                problems += _check_file(entry.ground_truth, context, f"{here}.groundTruth")
    return problems


def check_sampling(
    items: Sequence[InferenceItem], context: ItemContext, experiment: Experiment
) -> list[str]:
    """Problems of sizes and numbers of frames, with an experiment's model, one line each."""
    problems = []
    for number, item in enumerate(items):
        where = f"{context.field}[{number}]"
        problems += _check_sizes(item, experiment, f"{where}.parameters")
        problems += _check_context_parallel(item, context, experiment, f"{where}.contextParallel")
    return problems


def _check_auxiliary_models(item: InferenceItem, context: ItemContext, where: str) -> list[str]:
    """Prompt upsampler or guardrails that an item uses and the job does not have."""
    return [
        f"{where}.{name}: true, but the job has none; give {needed}, or remove it"
        for name, wanted, is_there, needed in (
            (
                "promptUpsampler",
                item.prompt_upsampler,
                context.has_upsampler,
                "spec.promptUpsampler.source",
            ),
            (
                "guardrails",
                item.guardrails,
                context.has_guardrails,
                "source, textClassifier and imageEncoder in spec.guardrails",
            ),
        )
        if wanted and not is_there
    ]


def _check_file(address: str, context: ItemContext, where: str) -> list[str]:
    match = ADDRESS.match(address)
    if match and match["volume"] == "dataset" and not context.has_dataset:
        return [
            f"{where}: {address!r} is a file of a job's dataset, which needs spec.model.job; give a volume address "
            "such as datasets://FOLDER/FILE, or a path"
        ]
    return check_address(
        address, where, ("dataset", *VOLUMES) if context.has_dataset else tuple(VOLUMES)
    )


def check_address(address: str, where: str, volumes: tuple[str, ...]) -> list[str]:
    """Problems of a volume address, or of a path, of one of these volumes."""
    match = ADDRESS.match(address)
    if match and match["volume"] not in volumes:
        allowed = ", ".join(f"{volume}://" for volume in volumes)
        return [f"{where}: unknown volume in {address!r}; use one of {allowed} or a path"]
    if match and ".." in re.split(r"/+", match["path"]):
        return [f"{where}: {address!r} leaves its volume; remove '..'"]
    return []


def _check_context_parallel(
    item: InferenceItem, context: ItemContext, experiment: Experiment, where: str
) -> list[str]:
    chunk = experiment.tokenizer.chunk_pixel_frames
    frames = item.parameters.num_pixel_frames or experiment.video.num_pixel_frames
    latent = 1 + (frames - 1) // 8
    if frames > chunk:
        latent = frames // chunk * (1 + (chunk - 1) // 8)
    processes = item.num_processes(context.gpus_per_node)
    return [
        f"{where}: {item.context_parallel} does not divide the {number} {what}; use a number that does"
        for number, what in ((processes, "processes of the item"), (latent, "latent frames"))
        if number % item.context_parallel
    ]


def _check_sizes(item: InferenceItem, experiment: Experiment, where: str) -> list[str]:
    net, parameters = experiment.net, item.parameters
    frames = parameters.num_pixel_frames or experiment.video.num_pixel_frames
    problems = []
    if frames <= parameters.num_input_frames:
        problems.append(
            f"{where}.numPixelFrames: {frames} leaves nothing to generate after "
            f"{parameters.num_input_frames} input frames; use more"
        )
    if (
        frames % experiment.tokenizer.chunk_pixel_frames
        and frames > experiment.tokenizer.chunk_pixel_frames
    ):
        problems.append(
            f"{where}.numPixelFrames: {frames} is not a multiple of the tokenizer's "
            f"{experiment.tokenizer.chunk_pixel_frames} frames; use one"
        )
    if 1 + (frames - 1) // 8 > net.max_latent_frames:
        problems.append(
            f"{where}.numPixelFrames: {frames} is more than the model's position tables admit; "
            f"use at most {8 * (net.max_latent_frames - 1) + 1}"
        )
    for name in ("height", "width"):
        size = getattr(parameters, name) or getattr(experiment.video, name)
        if size // 8 > net.max_latent_size:
            problems.append(
                f"{where}.{name}: {size} is more than the model's position tables admit; "
                f"use at most {8 * net.max_latent_size}"
            )
    return problems


# --- files of an item ----------------------------------------------------------------------


def uses_dataset(item: InferenceItem) -> bool:
    """True if an inference item reads files of the job's dataset."""
    return any(address.startswith(DATASET_SCHEME) for address in addresses(item))


def addresses(item: InferenceItem) -> tuple[str, ...]:
    """Every file that an inference item names."""
    found = [item.inputs_file]
    for entry in item.inputs or ():
        found += [entry.conditioning, entry.ground_truth]
    return tuple(address for address in found if address is not None)
