"""The metadata of a PostTrainingJob that the operator reads."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cosmos_operator.api.base import JOB_NAME_PATTERN, MAX_JOB_NAME

Texts = Annotated[dict[str, str], BeforeValidator(lambda value: {} if value is None else value)]


class Metadata(BaseModel):
    """The part of the object's metadata that the plan of a job needs; the rest is ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(max_length=MAX_JOB_NAME, pattern=JOB_NAME_PATTERN)]
    """Name of the job, at most 40 characters, a DNS-1035 label."""
    namespace: Annotated[str, Field(max_length=63)] | None = None
    """Namespace of the job and of all its objects."""
    labels: Texts = Field(default_factory=dict)
    """Labels of the job, which its pods get too."""
    annotations: Texts = Field(default_factory=dict)
    """Annotations of the job."""
