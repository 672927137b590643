"""The prompt upsampler: a vision-language model writes a longer prompt from the last known frame and the user's prompt.

Source: cosmos_predict1 inference (Pixtral-12B). Differs: the reference throws the user's prompt away and
describes the picture alone; here the prompt is part of the request. Greedy, where the reference has temperature 0.01.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.guardrails.pretrained import (
    check_weight_files,
    generate_answer,
    greedy_settings,
    load_model,
    loading,
    read_model_type,
    render_request,
)
from cosmos_worker.runtime.imports import importing_transformers

ROLE = "prompt upsampler"
MAX_SIDE = 1024
"""The longer side of the picture that the model is given has at most this many pixels."""
MAX_ANSWER_TOKENS = 400
REQUEST = (
    "A short video goes on from this picture. In it, this happens: {prompt}\n"
    "Describe the video in one paragraph of at most 120 words: the scene, the things in it, how they look, and how "
    "they move from this frame on. Keep to what the picture shows and to what is said to happen. "
    "Answer with the paragraph alone."
)


def check_folder(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    """Check the folder and load the processor, whose chat template takes a picture and a text.

    Raises:
        CheckpointError: not the folder of a vision-language chat model, one that is not complete, or a package that
            it needs is absent.
    """
    read_model_type(folder, ROLE)
    check_weight_files(folder, ROLE)
    with loading(folder, ROLE):
        from transformers import AutoProcessor

        processor = AutoProcessor.from_pretrained(folder, local_files_only=True)
    if not hasattr(processor, "image_processor") or not getattr(processor, "chat_template", None):
        raise CheckpointError(
            f"{folder}: no processor of pictures with a chat template, which asks the {ROLE}; "
            "give a vision-language chat model in the form of transformers, such as Pixtral-12B"
        )
    return processor


def shrink(frame_HWC: NDArray[np.uint8]) -> Image.Image:
    """A frame as a picture whose longer side has at most `MAX_SIDE` pixels."""
    picture = Image.fromarray(frame_HWC)
    picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BICUBIC)
    return picture


class PromptUpsampler:
    """The upsampler with its model loaded; it writes one prompt at a time, by greedy generation.

    Args:
        folder: folder of a model that transformers can load, with its processor.
        device: where to compute.
        dtype: of the weights.

    Raises:
        CheckpointError: the folder is absent, incomplete, or of another kind of model.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        with importing_transformers():
            from transformers import AutoModelForImageTextToText

        self._folder = folder
        self._processor = check_folder(folder)
        self._model = load_model(
            AutoModelForImageTextToText.from_pretrained, folder, ROLE, device, dtype
        )
        self._device, self._dtype = device, dtype
        self._settings = greedy_settings(self._model, self._processor.tokenizer, MAX_ANSWER_TOKENS)

    @torch.inference_mode()
    def write(self, prompt: str, frame_HWC: NDArray[np.uint8]) -> str:
        """Write a longer prompt, on one line.

        Args:
            prompt: the user's.
            frame_HWC: the last known frame, RGB.

        Raises:
            DataError: the model answers nothing.
            CheckpointError: the chat template leaves the prompt out.
        """
        question = REQUEST.format(prompt=prompt)
        # earlier chat templates of Pixtral read "content"
        parts = [{"type": "image"}, {"type": "text", "text": question, "content": question}]
        request = render_request(self._processor, parts, question, self._folder, ROLE)
        inputs = self._processor(
            text=[request],
            images=[[shrink(frame_HWC)]],
            return_tensors="pt",
            add_special_tokens=False,  # the chat template has them
        ).to(self._device, dtype=self._dtype)
        answer = generate_answer(self._model, inputs, self._settings, self._processor)
        text = " ".join(answer.split())
        if not text:
            raise DataError(
                f"{self._folder}: the {ROLE} answers nothing to {prompt!r}; use another model or no upsampler"
            )
        return text
