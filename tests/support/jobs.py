"""Jobs for tests: small valid documents, with changes by dotted path."""

from __future__ import annotations

import copy
from typing import Any

from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.parse import parse_inference_job, parse_job
from cosmos_operator.api.v1alpha1 import PostTrainingJob

DOCUMENT: dict[str, Any] = {
    "apiVersion": "cosmos.dev/v1alpha1",
    "kind": "PostTrainingJob",
    "metadata": {"name": "push"},
    "spec": {
        "model": {"name": "Tiny", "source": {"path": "/data/model"}},
        "tokenizer": {"name": "Tiny-Tokenizer", "source": {"path": "/data/tokenizer"}},
        "embeddings": {"encoder": "Tiny-T5", "source": {"path": "/data/encoder"}},
        "dataset": {"name": "cubes", "source": {"path": "/data/cubes"}},
        "training": {"experiment": "video2world_instruction_push_tiny", "steps": 40},
        "compute": {"processesPerNode": 2},
        "inference": [
            {"name": "before", "checkpoint": "Base", "inputsFile": "dataset://test.jsonl"},
            {
                "name": "after",
                "inputs": [{"prompt": "push the red cube left", "conditioning": "/data/first.png"}],
                "parameters": {"negativePrompt": "blurry"},
            },
        ],
    },
}

INFERENCE_DOCUMENT: dict[str, Any] = {
    "apiVersion": "cosmos.dev/v1alpha1",
    "kind": "InferenceJob",
    "metadata": {"name": "more"},
    "spec": {
        "model": {"job": "push"},
        "items": [
            {
                "name": "after",
                "inputs": [{"prompt": "push the red cube left", "conditioning": "/data/first.png"}],
                "parameters": {"negativePrompt": "blurry"},
            },
        ],
    },
}


def make_document(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A valid document with values set by path below spec, such as ``{"compute.nodes": 2}``; None removes."""
    return _changed(DOCUMENT, changes)


def make_inference_document(changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A valid document of an InferenceJob, with changes as those of :func:`make_document`."""
    return _changed(INFERENCE_DOCUMENT, changes)


def _changed(example: dict[str, Any], changes: dict[str, Any] | None) -> dict[str, Any]:
    document = copy.deepcopy(example)
    set_fields(document, changes or {})
    return document


def set_fields(document: dict[str, Any], changes: dict[str, Any]) -> None:
    """Set values of a job by path below spec; None removes."""
    for path, value in changes.items():
        *parents, last = path.split(".")
        target: Any = document["spec"]
        for part in parents:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        if isinstance(target, list):
            target[int(last)] = copy.deepcopy(value)
        elif value is None:
            target.pop(last)
        else:
            target[last] = _copied(value)


def _copied(value: Any, levels: int = 3) -> Any:
    """A copy of the outer levels of a value, which edits change; some tests have values too large to copy."""
    if isinstance(value, dict) and levels:
        return {name: _copied(inner, levels - 1) for name, inner in value.items()}
    return value


def make_job(changes: dict[str, Any] | None = None, name: str = "push") -> PostTrainingJob:
    """A valid job with values set by path below spec."""
    document = make_document(changes)
    document["metadata"]["name"] = name
    return parse_job(document)


def make_inference_job(changes: dict[str, Any] | None = None, name: str = "more") -> InferenceJob:
    """A valid InferenceJob with values set by path below spec."""
    document = make_inference_document(changes)
    document["metadata"]["name"] = name
    return parse_inference_job(document)
