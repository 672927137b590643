"""Checks of an InferenceJob that depend on its experiment or several fields. Pure; returns problems, one line each."""

from __future__ import annotations

from cosmos_operator.api.check import FIELDS_OF_OPTIONS, check_training, resolve_experiment
from cosmos_operator.api.check_items import ItemContext, check_items, check_sampling
from cosmos_operator.api.check_pods import check_pods
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.training import TrainingSpec
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.errors import ConfigError

OWN_FIELDS = {
    "text.max_length": "use spec.embeddings.maxLength instead",
    "name": "use spec.experiment instead",
    "trainer.device": "use spec.compute.gpus instead",
}
"""Option of the experiment → what to do instead of an override."""


def resolve_sampling_experiment(
    request: InferenceJob, trained_by: PostTrainingJob | None
) -> Experiment:
    """The experiment of an InferenceJob: its own, or that of the PostTrainingJob that trained its model.

    Raises:
        ConfigError: unknown experiment or override, or numbers that contradict each other.
    """
    if trained_by is not None:
        return resolve_experiment(trained_by)
    spec = request.spec
    max_length = spec.embeddings and spec.embeddings.max_length
    device = "cuda" if gpus_of_items(request, None) else "cpu"
    given = [] if max_length is None else [f"text.max_length={max_length}"]
    overrides = [*(spec.overrides or ()), f"trainer.device={device}", *given]
    return get_experiment(spec.experiment or "", overrides)


def gpus_of_items(request: InferenceJob, trained_by: PostTrainingJob | None) -> int:
    """GPUs by which items that give no number are sized."""
    if request.spec.compute is not None:
        return request.spec.compute.gpus
    return 0 if trained_by is None else trained_by.spec.compute.gpus_per_node


def check_inference_job(
    request: InferenceJob, trained_by: PostTrainingJob | None = None
) -> list[str]:
    """All problems of an InferenceJob whose fields are valid one by one, one line each.

    Args:
        request: the InferenceJob.
        trained_by: the PostTrainingJob of spec.model.job; None if it is not known yet, and what depends on it cannot be
            checked.
    """
    spec = request.spec
    is_open = spec.model.job is not None and trained_by is None
    given = None if trained_by is None else trained_by.spec
    upsampler = spec.prompt_upsampler or (None if given is None else given.prompt_upsampler)
    guardrails = spec.guardrails or (None if given is None else given.guardrails)
    context = ItemContext(
        "spec.items",
        is_open or (upsampler is not None and upsampler.source is not None),
        is_open or (guardrails is not None and guardrails.source is not None),
        gpus_of_items(request, trained_by),
        has_dataset=spec.model.job is not None,
    )
    problems = check_items(request.items, context) + check_pods(request)
    if is_open:
        return problems
    if trained_by is None and (wrong := _check_experiment(request)):
        return wrong + problems
    try:
        experiment = resolve_sampling_experiment(request, trained_by)
    except ConfigError as error:
        return [f"spec.{line}" for line in str(error).splitlines()] + problems
    return problems + check_sampling(request.items, context, experiment)


def _check_experiment(request: InferenceJob) -> list[str]:
    """Problems of the experiment's name and of the overrides."""
    spec, problems = request.spec, []
    overrides = spec.overrides or ()
    for number, override in enumerate(overrides):
        option = override.partition("=")[0].strip()
        if option in FIELDS_OF_OPTIONS:
            advice = OWN_FIELDS.get(option, "remove it: it plays no part in sampling")
            problems.append(f"spec.overrides[{number}]: got {override!r}; {advice}")
    if problems:
        return problems
    training = TrainingSpec(experiment=spec.experiment or "", overrides=overrides)
    return [line.replace("spec.training.", "spec.") for line in check_training(training)]
