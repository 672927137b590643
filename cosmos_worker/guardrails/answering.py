"""How chat models are asked and answer, the same way each time: their own template, greedy, a bounded answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from cosmos_worker.errors import CheckpointError
from cosmos_worker.runtime.imports import importing_transformers


def greedy_settings(model: Any, tokenizer: Any, max_tokens: int) -> Any:  # noqa: ANN401 - classes of transformers
    """Settings of generation that always give the same answer.

    Args:
        model: a chat model; what ends its answers is taken from it, else from the tokenizer.
        tokenizer: the model's.
        max_tokens: the longest answer.
    """
    with importing_transformers():
        from transformers import GenerationConfig

    end = model.generation_config.eos_token_id
    return GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        eos_token_id=end if end is not None else tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id or tokenizer.eos_token_id,
    )


def render_request(
    template: Any,  # noqa: ANN401 - a class of transformers
    content: str | list[dict[str, str]],
    said: str,
    folder: Path,
    what: str,
) -> str:
    """What a user says, as the model's chat template puts it.

    Args:
        template: tokenizer or processor that has the template.
        content: what the user says, whole or in parts.
        said: the text of it that the request must hold.
        folder: the model's, for messages.
        what: the model's role, for messages.

    Raises:
        CheckpointError: the template leaves out what is said, so that the answer would be about nothing.
    """
    request: str = template.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    if said not in request:
        raise CheckpointError(
            f"{folder}: the chat template leaves out what the user says; give the {what} its own template"
        )
    return request


def generate_answer(
    model: Any,  # noqa: ANN401 - classes of transformers
    inputs: Mapping[str, Tensor],
    settings: Any,  # noqa: ANN401
    decoder: Any,  # noqa: ANN401
) -> str:
    """The model's answer to one request, word for word.

    Args:
        model: a chat model.
        inputs: of one request; ``input_ids`` is (1, tokens).
        settings: of :func:`greedy_settings`.
        decoder: tokenizer or processor that makes text of tokens.
    """
    output = model.generate(**inputs, generation_config=settings)
    answer: str = decoder.decode(
        output[0][inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return answer
