"""Fields that the API server has admitted and this version does not know, because its CRD is of a newer version."""

from __future__ import annotations

import copy
import json
from typing import Any

from pydantic import ValidationError

from cosmos_operator.api.base import INFERENCE_KIND
from cosmos_operator.api.bounds import check_bounds
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.parse import moved_to, path_of
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec

Location = tuple[int | str, ...]


def without_unknown_fields(document: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A job as the API server has it, without the fields that this version does not know.

    The API server drops what its CRD lacks, so a field that is still there is one of a newer version. Fields of earlier
    versions that have moved are left, and so is what stands in a pod template, which the CRD leaves to the operator:
    those are mistakes of people, which the validation tells.

    Args:
        document: the job.

    Returns:
        The document, and the paths of the fields that were left out, such as ``spec.training.colour``.
    """
    unknown = _unknown_fields(document)
    if not unknown:
        return document, ()
    result = copy.deepcopy(document)
    for location in unknown:
        _remove(result, location)
    return result, tuple(map(path_of, unknown))


def _model_of(document: dict[str, Any]) -> type[PostTrainingJob | InferenceJob]:
    return InferenceJob if document.get("kind") == INFERENCE_KIND else PostTrainingJob


def _unknown_fields(document: dict[str, Any]) -> list[Location]:
    try:
        check_bounds(document)
        _model_of(document).model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        return [
            problem["loc"]
            for problem in error.errors()
            if problem["type"] == "extra_forbidden"
            and moved_to(problem["loc"]) is None
            and "podTemplate" not in problem["loc"]
        ]
    except InvalidSpec:  # the validation tells
        return []
    return []


def _remove(document: dict[str, Any], location: Location) -> None:
    *parents, last = location
    block: Any = document
    for part in parents:
        block = block[part]
    del block[last]
