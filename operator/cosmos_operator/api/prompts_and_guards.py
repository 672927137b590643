"""Models beside the network: what writes prompts, and what judges prompts and videos."""

from __future__ import annotations

from pydantic import ConfigDict, model_validator
from typing_extensions import Self

from cosmos_operator.api.base import ApiModel, rules
from cosmos_operator.api.source import Source


class PromptUpsamplerSpec(ApiModel):
    """The model that writes longer prompts for inference items with promptUpsampler."""

    source: Source | None = None
    """Folder of a vision-language chat model for transformers, such as Pixtral-12B; omitted = there is none."""


class GuardrailsSpec(ApiModel):
    """What judges the prompts and videos of inference items with guardrails; all three sources or none."""

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
    """Folder with blocklist/ and video_content_safety_filter/safety_filter.pt; omitted = there are no guardrails."""
    text_classifier: Source | None = None
    """Folder of a chat model of the Llama Guard kind for transformers, such as Llama-Guard-3-8B."""
    image_encoder: Source | None = None
    """Folder of the SigLIP model of the video filter for transformers, siglip-so400m-patch14-384."""
    face_blur: bool = False
    """Blur faces in the videos of these items, which needs face_blur_filter/Resnet50_Final.pth in source."""

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
