"""Models around the sampling: the prompt upsampler and the guardrails of a PostTrainingJob."""

from __future__ import annotations

from typing import Self

from pydantic import ConfigDict, model_validator

from cosmos_operator.api.base import ApiModel, rules
from cosmos_operator.api.source import Source


class PromptUpsamplerSpec(ApiModel):
    """The model that rewrites the prompts of inference items with promptUpsampler into longer ones."""

    source: Source | None = None
    """Source of the model: a folder of a vision-language chat model for the library transformers, such as
    Pixtral-12B. Omitted: there is none, and no inference item may use it."""


class GuardrailsSpec(ApiModel):
    """The models that check prompts and videos of inference items with guardrails. Give all three sources or none."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.source) == has(self.textClassifier) && has(self.source) == has(self.imageEncoder)",
                "give all of source, textClassifier and imageEncoder, or none",
            ),
            (
                "!has(self.faceBlur) || !self.faceBlur || has(self.source)",
                "faceBlur: there are no guardrails; give source, textClassifier and imageEncoder, or remove it",
            ),
        )
    )

    source: Source | None = None
    """Source of the blocklist and the video filter: a folder with blocklist/ and
    video_content_safety_filter/safety_filter.pt. Omitted: there are no guardrails, and no inference item may use
    them."""
    text_classifier: Source | None = None
    """Source of the classifier of prompts: a folder of a model of the Llama Guard family for the library
    transformers, such as Llama-Guard-3-8B."""
    image_encoder: Source | None = None
    """Source of the image encoder of the video filter: a folder of siglip-so400m-patch14-384 for the library
    transformers."""
    face_blur: bool = False
    """True blurs faces in the videos of inference items with guardrails, for which source must hold
    face_blur_filter/Resnet50_Final.pth."""

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = {"source": self.source, "textClassifier": self.text_classifier}
        given["imageEncoder"] = self.image_encoder
        missing = [name for name, source in given.items() if source is None]
        if 0 < len(missing) < len(given):
            raise ValueError(
                f"{' and '.join(missing)} missing; give all of {', '.join(given)}, or none"
            )
        if self.face_blur and missing:
            raise ValueError(
                f"faceBlur: there are no guardrails; give {', '.join(given)}, or remove it"
            )
        return self
