"""The models that training and sampling start from: network, video tokenizer, text encoder."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from cosmos_operator.api.base import ApiModel, ArtifactName, rules
from cosmos_operator.api.source import Source

BASE_MODEL = "Cosmos-Predict1-7B-Video2World"
"""Name of the model of jobs that name none."""


class BaseModelSpec(ApiModel):
    """The model that the training starts from."""

    name: ArtifactName = BASE_MODEL
    """Name of the model. The experiment must be made for it (7B or 14B). Without a source it is also the name of the
    repository on the Hugging Face Hub: NAME with a slash, otherwise nvidia/NAME."""
    source: Source | None = None
    """Source of the weights: a folder with model.pt, safetensors files, a diffusers model, a checkpoint of
    torch.distributed.checkpoint, or iter_*_model.pt of a training. Omitted: the repository of that name on the Hugging
    Face Hub."""
    lora_scale: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Scale with which LoRA weights in the source are merged into the network's, above 0; NVIDIA's LoRA experiments
    use 1. Omitted: the scale that the source states; a PEFT adapter in the folder always states its own."""


_PINNED = (
    "has(self.source) && (has(self.source.path) || "
    + " || ".join(
        f"(has(self.source.{one}) && has(self.source.{one}.sha256))"
        for one in ("claim", "url", "huggingFace", "s3")
    )
    + ")"
)
TORCHSCRIPT_NEEDS = (
    "TorchScript runs the programs in the files, so it needs their digest in the job: give source.claim, huggingFace, "
    "s3 or url with sha256, or source.path"
)


class TokenizerSpec(ApiModel):
    """The video tokenizer, which turns frames into latents and back."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                f"!has(self.runtime) || self.runtime != 'TorchScript' || ({_PINNED})",
                TORCHSCRIPT_NEEDS,
            )
        )
    )

    name: ArtifactName = "Cosmos-Tokenize1-CV8x8x8-720p"
    """Name of the tokenizer. Without a source it is also the name of the repository on the Hugging Face Hub: NAME
    with a slash, otherwise nvidia/NAME."""
    source: Source | None = None
    """Source of the tokenizer: a folder with encoder.jit, decoder.jit and mean_std.pt. Omitted: the repository of
    that name on the Hugging Face Hub."""
    runtime: Literal["Native", "TorchScript"] = "Native"
    """What encodes and decodes. Native: our own network with the weights out of encoder.jit and decoder.jit, of which
    nothing is run; it must be the network of Cosmos-Tokenize1-CV8x8x8. TorchScript: the programs in these files are
    run, of any network; a program can do whatever the worker can, so use it for files that you trust, and give their
    sha256 with the source. For the same network both give the same numbers within rounding, and the same latents are
    used."""

    @model_validator(mode="after")
    def _programs_are_pinned(self) -> Self:
        is_pinned = self.source is not None and self.source.is_pinned
        if self.runtime == "TorchScript" and not is_pinned:
            raise ValueError(f"runtime: {TORCHSCRIPT_NEEDS}")
        return self


class TextEncoderSpec(ApiModel):
    """The text encoder, whose embeddings of prompts condition the network."""

    encoder: ArtifactName = "google-t5/t5-11b"
    """Name of a T5 encoder. Its width must be net.text_channels of the experiment, 1024 for T5-11B. Without a
    source it is also the name of the repository on the Hugging Face Hub."""
    source: Source | None = None
    """Source of the encoder: a folder that the library transformers can load. Omitted: the repository of that name
    on the Hugging Face Hub."""
    max_length: Annotated[int, Field(ge=1, le=512)] | None = None
    """Number of tokens after which captions are cut. Omitted: that of the experiment."""


class EmbeddingsSpec(TextEncoderSpec):
    """The text encoder, whose embeddings of captions and prompts condition the network."""

    max_unknown_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest fraction of the captions that may be mostly unknown to the encoder, from 0 to 1: captions of which its
    vocabulary lacks more than half of the characters. With more, the job fails; clips that have no other caption are
    left out of the training."""
