"""A classifier of prompts of the Llama Guard kind: a chat model that answers ``safe``, or ``unsafe`` and categories.

Source: cosmos_predict1/auxiliary/guardrail (Aegis, later Llama Guard 3). Differs: the model's own chat template asks;
the answer is parsed strictly, and what cannot be parsed or raises never counts as safe.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails.pretrained import (
    check_weight_files,
    generate_answer,
    greedy_settings,
    load_model,
    loading,
    read_model_type,
    render_request,
)
from cosmos_worker.guardrails.verdict import (
    TEXT_CLASSIFIER,
    Blocked,
)
from cosmos_worker.runtime.imports import importing_transformers

WHAT = "text classifier"
MAX_ANSWER_TOKENS = 100
CATEGORIES = re.compile(r"[A-Z]\d{1,2}(\s*,\s*[A-Z]\d{1,2})*")


def check_folder(folder: Path) -> Any:  # noqa: ANN401 - a class of transformers
    """The classifier's tokenizer, whose chat template asks for the verdict.

    Raises:
        CheckpointError: not the folder of a chat model, or one that is not complete.
    """
    read_model_type(folder, WHAT)
    check_weight_files(folder, WHAT)
    with loading(folder, WHAT):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not tokenizer.chat_template:
        raise CheckpointError(
            f"{folder}: the tokenizer has no chat template, which asks the {WHAT} for its verdict; "
            "give a model of the Llama Guard kind with its tokenizer_config.json or chat_template.jinja"
        )
    return tokenizer


def parse_answer(answer: str) -> Blocked | None:
    """The verdict of an answer: None for exactly ``safe``, everything else blocks."""
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if lines == ["safe"]:
        return None
    if lines and lines[0] == "unsafe":
        named = len(lines) == 2 and CATEGORIES.fullmatch(lines[1])
        return Blocked(TEXT_CLASSIFIER, f"unsafe: {lines[1]}" if named else "unsafe")
    return Blocked(
        TEXT_CLASSIFIER, f"answered {answer.strip()[:80]!r}, which is neither 'safe' nor 'unsafe'"
    )


class TextClassifier:
    """A classifier that judges one prompt at a time.

    Args:
        folder: folder of a chat model that transformers can load.
        device: where to compute.
        dtype: of the weights.

    Raises:
        CheckpointError: not such a folder.
    """

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        with importing_transformers():
            from transformers import AutoModelForCausalLM

        self._folder = folder
        self._tokenizer = check_folder(folder)
        self._model = load_model(AutoModelForCausalLM.from_pretrained, folder, WHAT, device, dtype)
        self._device = device
        self._settings = greedy_settings(self._model, self._tokenizer, MAX_ANSWER_TOKENS)

    def check(self, prompt: str) -> Blocked | None:
        """What is wrong with a prompt, if anything is."""
        signs = [
            token.content
            for token in self._tokenizer.added_tokens_decoder.values()
            if token.special
        ]
        if found := next((sign for sign in signs if sign in prompt), None):
            return Blocked(TEXT_CLASSIFIER, f"{found!r} is a sign of the classifier's own language")
        return parse_answer(self.ask(prompt))

    @torch.inference_mode()
    def ask(self, prompt: str) -> str:
        """The model's answer, word for word.

        Raises:
            CheckpointError: the chat template leaves the prompt out, so that nothing would be judged.
        """
        request = render_request(self._tokenizer, prompt, prompt.strip(), self._folder, WHAT)
        tokens = self._tokenizer(request, add_special_tokens=False, return_tensors="pt").to(
            self._device
        )
        return generate_answer(self._model, tokens, self._settings, self._tokenizer)
