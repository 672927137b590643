"""A YAML document → a job, or all of its problems: the field, the value, what is allowed, what to do."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cosmos_operator.api.base import INFERENCE_KIND, KIND
from cosmos_operator.api.check import check_job, check_training
from cosmos_operator.api.check_inference_job import check_inference_job
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.v1alpha1 import PostTrainingJob, TrainingSpec
from cosmos_operator.errors import InvalidSpec
from cosmos_worker.config.addresses import without_secrets

MAX_FILE_BYTES = 1 << 20
MOVED_FIELDS: dict[str, str] = {}
"""Path of a field that has moved → its path now, both such as ``spec.dataset.fit`` and without indices of lists.

``v1alpha1`` has moved none so far; a field that is renamed or moved gets a line here."""


def load_job(path: Path) -> PostTrainingJob | InferenceJob:
    """Read and validate the job of a YAML file, of any kind.

    Raises:
        InvalidSpec: no such file, not YAML, not exactly one document, or a wrong job.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidSpec([f"{path}: {path.stat().st_size} bytes; a job has at most 1 MiB"])
        documents = [
            d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None
        ]
    except FileNotFoundError:
        raise InvalidSpec([f"{path}: no such file; give the YAML file of a job"]) from None
    except IsADirectoryError:
        raise InvalidSpec([f"{path}: is a folder; give the YAML file of a job"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidSpec([f"{path}: not YAML: {' '.join(str(error).split())}"]) from None
    if len(documents) != 1:
        raise InvalidSpec([f"{path}: got {len(documents)} documents; give exactly one job"])
    document = documents[0]
    if isinstance(document, Mapping) and document.get("kind") == INFERENCE_KIND:
        return parse_inference_job(document)
    return parse_job(document)


def parse_inference_job(document: Mapping[str, Any]) -> InferenceJob:
    """Validate the document of an InferenceJob, as far as that is possible without the job that trained its model.

    Raises:
        InvalidSpec: with all problems, one line each.
    """
    try:
        request = InferenceJob.model_validate(document)
    except ValidationError as error:
        raise InvalidSpec(_describe(problem, InferenceJob) for problem in error.errors()) from None
    if problems := check_inference_job(request):
        raise InvalidSpec(problems)
    return request


def parse_job(document: Any) -> PostTrainingJob:  # noqa: ANN401 - any YAML value
    """Validate a document.

    Raises:
        InvalidSpec: with all problems, one line each.
    """
    if not isinstance(document, Mapping):
        raise InvalidSpec(
            [
                f"job: got {type(document).__name__}; expected a mapping with kind {KIND} or {INFERENCE_KIND}"
            ]
        )
    try:
        job = PostTrainingJob.model_validate(document)
    except ValidationError as error:
        problems = [_describe(problem, PostTrainingJob) for problem in error.errors()]
        raise InvalidSpec(problems + _training_problems(document)) from None
    if problems := check_job(job):
        raise InvalidSpec(problems)
    return job


def _training_problems(document: Mapping[str, Any]) -> list[str]:
    """Problems of spec.training, which are reported even if other parts of the job are wrong."""
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        return []
    try:
        training = TrainingSpec.model_validate(spec.get("training"))
    except ValidationError:
        return []
    return check_training(training)


# --- one line per problem --------------------------------------------------------------------


def _describe(problem: ErrorDetails, root: type[BaseModel]) -> str:
    """A problem of a document of this model, in one line."""
    location, got = problem["loc"], problem["input"]
    where = _path(location)
    if problem["type"] == "extra_forbidden":
        if moved := _moved_to(location):
            return f"{where}: this field is now {moved}; give that instead"
        return f"{_path(location[:-1])}: unknown field {location[-1]!r}{_nearest(location, root)}"
    if problem["type"] == "missing":
        return f"{where}: missing; this field is required"
    message = problem["msg"].removeprefix("Value error, ")
    got = without_secrets(got) if isinstance(got, str) else got
    if isinstance(got, str | int | float | bool) or got is None:
        return f"{where}: {message} (got {got!r})"
    if problem["type"] == "value_error":
        return f"{where}: {message}"
    return f"{where}: {message} (got a {type(got).__name__})"


def _path(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "job"


def _moved_to(location: tuple[int | str, ...]) -> str | None:
    """Path of the field that an earlier version of the resource had at this location; None if it had none."""
    return MOVED_FIELDS.get(_path(tuple(part for part in location if not isinstance(part, int))))


def _nearest(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    """The end of a message on an unknown field: the field with the nearest name, and all fields of the object."""
    model = _model_at(location[:-1], root)
    if model is None:
        return ""
    allowed = [field.alias or name for name, field in model.model_fields.items()]
    near = difflib.get_close_matches(str(location[-1]), allowed, n=1, cutoff=0.0)
    return f"; did you mean {near[0]!r}? allowed here: {', '.join(allowed)}"


def _model_at(location: tuple[int | str, ...], root: type[BaseModel]) -> type[BaseModel] | None:
    """The model class of the object at a location of the job; None if there is none."""
    model: type[BaseModel] | None = root
    for part in location:
        if model is None or isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        model = _nested(fields[part].annotation) if part in fields else None
    return model


def _nested(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any annotation
    """The model class inside an annotation: itself, behind ``| None`` or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, tuple, typing.Annotated):
        for inner in typing.get_args(annotation):
            if found := _nested(inner):
                return found
    return None
