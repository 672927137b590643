"""What all options are made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cosmos_worker.config.captions import normalise_caption


class Model(BaseModel):
    """Base of all documents: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Caption = Annotated[str, AfterValidator(normalise_caption)]
"""A caption or prompt in its one form; may be empty."""
