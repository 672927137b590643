"""A YAML document → a job, or all of its problems: the field, the value, what is allowed, what to do."""

from __future__ import annotations

import difflib
import json
import re
import types
import typing
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cosmos_operator.api.base import GROUP, INFERENCE_KIND, KIND
from cosmos_operator.api.bounds import check_bounds
from cosmos_operator.api.check import check_job, check_training
from cosmos_operator.api.check_inference_job import check_inference_job
from cosmos_operator.api.check_pods import FileJob
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.metadata import metadata_problems, name_for
from cosmos_operator.api.pod_template import POD_FIELDS
from cosmos_operator.api.training import TrainingSpec
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.api.wording import PATTERNS_IN_WORDS, advice_on, causes, kind_of
from cosmos_operator.errors import InvalidSpec
from cosmos_worker.config.addresses import without_secrets
from cosmos_worker.config.documents import read_small_text
from cosmos_worker.config.values import shortened, shown_value
from cosmos_worker.config.yaml_reader import Document, WrongYaml, read_documents
from cosmos_worker.errors import ConfigError

MAX_FILE_BYTES = 1 << 20
FIELD_OF_PROBLEM = re.compile(r"(metadata|spec|kind|apiVersion)[^:\s]*")
MOVED_FIELDS: dict[str, str] = {
    "spec.compute.preparation.resources": (
        "spec.stages.*.podTemplate.spec, in the resources of the container worker of each stage that needs them"
    ),
}
"""Path of a field that has moved → its path now, both such as ``spec.dataset.fit`` and without indices of lists."""


@dataclass(frozen=True)
class JobFile:
    """The content of a file."""

    jobs: tuple[FileJob, ...]
    """Its jobs."""
    others: tuple[str, ...]
    """Its other objects, which are not checked, in words."""
    documents: tuple[Mapping[str, Any], ...] = ()
    """Its jobs as they stand in the file."""


def load_job(path: Path) -> FileJob:
    """Read and validate the one job of a YAML file, of any kind; objects of other kinds beside it are left out.

    Raises:
        InvalidSpec: no such file, not YAML, not exactly one job, or a wrong one.
    """
    jobs = load_file(path).jobs
    if len(jobs) != 1:
        names = ", ".join(job.name for job in jobs)
        raise InvalidSpec([f"{path}: got {len(jobs)} jobs ({names}); give a file with exactly one"])
    return jobs[0]


def load_file(path: Path) -> JobFile:
    """Read and validate all jobs of a YAML file, of any kind.

    Raises:
        InvalidSpec: no such file, not YAML, no job, or wrong ones: with all problems and their lines.
    """
    try:
        documents = [one for found in read_documents(_read(path)) for one in _items(found)]
    except WrongYaml as error:
        raise InvalidSpec([f"{path}: {error}"]) from None
    mine = [one for one in documents if _is_ours(one.value)]
    others = tuple(_foreign(one) for one in documents if not _is_ours(one.value))
    if not mine:
        found = f" (there: {'; '.join(others)})" if others else ""
        raise InvalidSpec([f"{path}: got no {KIND} or {INFERENCE_KIND}{found}; give at least one"])
    jobs, problems = [], []
    for document in mine:
        try:
            jobs.append(_parse_new(document.value))
        except InvalidSpec as error:
            problems += [f"{one} (line {_line(document, one)})" for one in error.problems]
    names = Counter((job.kind, job.metadata.namespace, job.name) for job in jobs)
    problems += [
        f"{path}: {number} {kind}s are called {name!r}; give each its own metadata.name"
        for (kind, _, name), number in names.items()
        if number > 1
    ]
    if problems:
        raise InvalidSpec(problems)
    return JobFile(tuple(jobs), others, tuple(document.value for document in mine))


def _read(path: Path) -> str:
    """The text of a file.

    Raises:
        InvalidSpec: no such file, or not a text of a sensible size (1 MiB).
    """
    try:
        return read_small_text(path, MAX_FILE_BYTES)
    except ConfigError as error:
        raise InvalidSpec([f"{error}; give the YAML file of a job"]) from None


def _items(document: Document) -> list[Document]:
    """The objects of a document: those of a List, otherwise itself."""
    value = document.value
    if not isinstance(value, Mapping) or value.get("kind") != "List":
        return [document]
    return [
        Document(
            item,
            document.line_of(("items", number)),
            {
                at[2:]: line
                for at, line in document.lines.items()
                if at[:2] == ("items", number) and len(at) > 2
            },
        )
        for number, item in enumerate(value.get("items") or ())
    ]


def _is_ours(value: Any) -> bool:  # noqa: ANN401 - any YAML value
    """False for an object that is another program's for certain."""
    if not isinstance(value, Mapping):
        return True
    group = str(value.get("apiVersion") or GROUP).rpartition("/")[0]
    kind = value.get("kind")
    return kind in (KIND, INFERENCE_KIND, None) or group == GROUP or not value.get("apiVersion")


def _foreign(document: Document) -> str:
    value = document.value
    metadata = value.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return f"{value['kind']} {name!r} on line {document.line}"


def _line(document: Document, problem: str) -> int:
    """Line of the field with which a problem begins."""
    where = FIELD_OF_PROBLEM.match(problem)
    parts = re.findall(r"[^.\[\]]+", where[0]) if where else []
    return document.line_of(tuple(int(part) if part.isdigit() else part for part in parts))


def _parse_new(value: Any) -> FileJob:  # noqa: ANN401 - any YAML value
    """The job in a file, which the API server would get as a new one.

    Raises:
        InvalidSpec: with all problems, one line each.
    """
    if not isinstance(value, Mapping):
        return parse_job(value)
    parse = parse_inference_job if value.get("kind") == INFERENCE_KIND else parse_job
    if not isinstance(value.get("metadata"), Mapping):
        return parse(value)
    metadata = value["metadata"]
    problems = list(metadata_problems(metadata))
    if name := name_for(metadata):
        metadata = {**metadata, "name": name}
    # a status in a file is nobody's: the API server leaves it out
    value = {**value, "metadata": metadata, "status": None}
    try:
        job = parse(value)
    except InvalidSpec as error:
        places = {one.partition(":")[0] for one in problems}
        more = [one for one in error.problems if one.partition(":")[0] not in places]
        raise InvalidSpec([*problems, *more]) from None
    if problems:
        raise InvalidSpec(problems)
    return job


def parse_inference_job(document: Mapping[str, Any]) -> InferenceJob:
    """Validate the document of an InferenceJob, as far as that is possible without the job that trained its model.

    Raises:
        InvalidSpec: with all problems, one line each.
    """
    check_bounds(document)
    document = without_nulls(document, InferenceJob)
    try:
        request = InferenceJob.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise InvalidSpec(_problems(error, InferenceJob)) from None
    if problems := check_inference_job(request):
        raise InvalidSpec(problems)
    return request


def parse_job(document: Any) -> PostTrainingJob:  # noqa: ANN401 - any YAML value
    """Validate a document: with the types of JSON, and with null for what is omitted, as the API server does.

    Raises:
        InvalidSpec: with all problems, one line each.
    """
    if not isinstance(document, Mapping):
        raise InvalidSpec(
            [
                f"job: got {type(document).__name__}; expected a mapping with kind {KIND} or {INFERENCE_KIND}"
            ]
        )
    check_bounds(document)
    document = without_nulls(document, PostTrainingJob)
    try:
        job = PostTrainingJob.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        problems = _problems(error, PostTrainingJob)
        raise InvalidSpec(problems + _training_problems(document)) from None
    if problems := check_job(job):
        raise InvalidSpec(problems)
    return job


def without_nulls(value: Any, model: type[BaseModel] | None) -> Any:  # noqa: ANN401 - any JSON value
    """A copy of a value without the fields that are null, which the API server drops; null in a list is a value."""
    if isinstance(value, list | tuple):
        return [without_nulls(one, model) for one in value]
    if not isinstance(value, Mapping):
        return value
    known = {} if model is None else _values_of(model)
    kept = {}
    for name, one in value.items():
        is_free, nested = known.get(name, (False, None))
        if one is not None or (model is not None and name not in known):
            kept[name] = one if is_free else without_nulls(one, nested)
    return kept


@cache
def _values_of(model: type[BaseModel]) -> dict[str, tuple[bool, type[BaseModel] | None]]:
    """Name of each field of a model in documents → whether it takes any JSON, and the model of its value."""
    return {
        field.alias or name: (_is_free(field.annotation), _nested(field.annotation))
        for name, field in model.model_fields.items()
    }


def _is_free(annotation: Any) -> bool:  # noqa: ANN401 - any annotation
    """True for a field of any JSON, in which the API server keeps null."""
    return annotation is Any or any(map(_is_free, typing.get_args(annotation)))


def _training_problems(document: Mapping[str, Any]) -> list[str]:
    """Problems of spec.training, which are reported even if other parts of the job are wrong."""
    spec = document.get("spec")
    if not isinstance(spec, Mapping):
        return []
    try:
        training = TrainingSpec.model_validate_json(json.dumps(spec.get("training")), strict=True)
    except ValidationError:
        return []
    return check_training(training)


# --- one line per problem --------------------------------------------------------------------


def _problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """The problems of a document of this model, one line each."""
    return [line for one in causes(error) for line in _describe(one, root)]


def _describe(problem: ErrorDetails, root: type[BaseModel]) -> list[str]:
    """A problem of a document of this model, mostly in one line."""
    location, got = problem["loc"], problem["input"]
    where = path_of(location)
    if problem["type"] == "extra_forbidden":
        if moved := moved_to(location):
            return [f"{where}: this field is now {moved}; give that instead"]
        unknown = f"unknown field {location[-1]!r}{_nearest(location, root)}"
        return [f"{path_of(location[:-1])}: {unknown}"]
    if problem["type"] == "missing":
        return [f"{where}: missing; this field is required"]
    message = problem["msg"].removeprefix("Value error, ")
    pattern = str(problem.get("ctx", {}).get("pattern"))
    message = PATTERNS_IN_WORDS.get(pattern, message)
    got = without_secrets(shortened(got)) if isinstance(got, str) else got
    if isinstance(got, str | int | float | bool) or got is None:
        return [f"{where}: {message} (got {shown_value(got)}){advice_on(problem['type'], got)}"]
    if problem["type"] == "value_error":
        return [f"{where}: {line}" for line in message.splitlines()]
    return [f"{where}: {message} (got a {kind_of(got)}){advice_on(problem['type'], got)}"]


def path_of(location: tuple[int | str, ...]) -> str:
    """A location in a job for people, such as ``spec.inference[0].fps``."""
    if location[-1:] == ("[key]",):  # of a map: the key itself is wrong
        location = location[:-2]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.lstrip(".") or "job"


def moved_to(location: tuple[int | str, ...]) -> str | None:
    """Path of the field that an earlier version of the resource had at this location; None if it had none."""
    return MOVED_FIELDS.get(path_of(tuple(part for part in location if not isinstance(part, int))))


def _nearest(location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    """The end of a message on an unknown field: the field with the nearest name, and all fields of the object."""
    model = _model_at(location[:-1], root)
    if model is None:
        return ""
    allowed = [field.alias or name for name, field in model.model_fields.items()]
    name = str(location[-1])
    if (
        name in POD_FIELDS and location[0] == "spec"
    ):  # of Kubernetes, written where we have no field for it
        return f"; give it as spec.podTemplate.spec.{name}; allowed here: {', '.join(allowed)}"
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.0)
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
