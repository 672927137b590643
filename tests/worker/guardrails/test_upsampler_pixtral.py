"""The upsampler with Pixtral's processor, which writes one token for every patch and every end of a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.generation import moving_square

from cosmos_worker.guardrails.upsampler import (
    PromptUpsampler,
    check_folder,
)

pytest.importorskip("torchvision", reason="Pixtral's processor needs torchvision")

from support.pixtral import EARLIER_CHAT, PATCH, PICTURE_END, ROW_END, write_pixtral
from transformers import PixtralProcessor

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PromptUpsampler:
    """An upsampler with random weights, whose words depend on picture and prompt."""
    folder = write_pixtral(tmp_path_factory.mktemp("pixtral") / "p")
    return PromptUpsampler(folder, CPU, torch.float32)


def see_inputs(writer: PromptUpsampler, frame: np.ndarray) -> dict[str, Any]:
    """The inputs of the model for a frame."""
    given: dict[str, Any] = {}
    generate = writer._model.generate

    def note(**inputs: Any) -> Any:
        given.update(inputs)
        return generate(**inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer._model, "generate", note)
        writer.write("push the cube", frame)
    return given


def test_processor_is_pixtrals(tmp_path: Path) -> None:
    assert isinstance(check_folder(write_pixtral(tmp_path / "p")), PixtralProcessor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixtral_writes_one_line(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_pixtral(tmp_path / "p", " A cube \n moves. ")

    writer = PromptUpsampler(folder, CPU, dtype)

    assert writer.write("push the cube", moving_square()[0]) == "A cube moves."
    assert see_inputs(writer, moving_square()[0])["pixel_values"].dtype == dtype


def test_pixtral_sees_prompt_and_picture_and_repeats_itself(drawn: PromptUpsampler) -> None:
    first, other = moving_square()[0], np.zeros((32, 64, 3), np.uint8)

    text = drawn.write("push the cube", first)

    assert drawn.write("push the cube", first) == text
    assert drawn.write("lift the {lid}", first) != text
    assert drawn.write("push the cube", other) != text


@pytest.mark.parametrize(
    ("frame", "picture"), [((32, 64), (32, 64)), ((64, 32), (64, 32)), ((90, 160), (40, 64))]
)
def test_every_patch_of_a_picture_has_its_sign(
    drawn: PromptUpsampler, frame: tuple[int, int], picture: tuple[int, int]
) -> None:
    given = see_inputs(drawn, np.zeros((*frame, 3), np.uint8))

    rows, columns = picture[0] // PATCH, picture[1] // PATCH
    processor = drawn._processor
    row_end, picture_end = processor.tokenizer.convert_tokens_to_ids([ROW_END, PICTURE_END])
    signs = [*([processor.image_token_id] * columns + [row_end]) * rows]
    signs[-1] = picture_end
    tokens = given["input_ids"][0].tolist()
    begin = tokens.index(processor.image_token_id)
    assert tokens[begin : begin + len(signs)] == signs
    assert processor.image_token_id not in tokens[begin + len(signs) :]
    assert given["image_sizes"].tolist() == [list(picture)]
    assert tokens.count(processor.tokenizer.bos_token_id) == 1


def test_earlier_chat_templates_are_given_the_prompt_too(tmp_path: Path) -> None:
    folder = write_pixtral(tmp_path / "p", "A cube moves.", EARLIER_CHAT)

    writer = PromptUpsampler(folder, CPU, torch.float32)

    assert writer.write("push the cube", moving_square()[0]) == "A cube moves."
