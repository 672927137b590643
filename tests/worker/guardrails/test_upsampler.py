from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.auxiliary_models import write_classifier, write_upsampler
from support.generation import moving_square

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.guardrails.upsampler import (
    PromptUpsampler,
    check_folder,
    shrink,
)


def load(folder: Path) -> PromptUpsampler:
    return PromptUpsampler(folder, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> PromptUpsampler:
    """An upsampler with random weights, whose words depend on picture and prompt."""
    return load(write_upsampler(tmp_path_factory.mktemp("upsampler") / "u"))


def test_upsampler_writes_one_line(tmp_path: Path) -> None:
    writer = load(write_upsampler(tmp_path / "u", {}, " A cube \n moves. "))

    assert writer.write("push the cube", moving_square()[0]) == "A cube moves."


def test_upsampler_sees_prompt_and_picture_and_repeats_itself(drawn: PromptUpsampler) -> None:
    first, other = moving_square()[0], np.zeros((32, 64, 3), np.uint8)

    text = drawn.write("push the cube", first)

    assert drawn.write("push the cube", first) == text
    assert drawn.write("lift the {lid}", first) != text
    assert drawn.write("push the cube", other) != text


def test_upsampler_refuses_an_empty_answer(tmp_path: Path) -> None:
    writer = load(write_upsampler(tmp_path / "u", {}, "  "))

    with pytest.raises(DataError, match="the prompt upsampler answers nothing to 'push'"):
        writer.write("push", moving_square()[0])


def test_upsampler_refuses_a_template_that_leaves_the_prompt_out(tmp_path: Path) -> None:
    folder = write_upsampler(tmp_path / "u", {})
    (folder / "chat_template.jinja").write_text("<s>[IMG]What is this?")

    with pytest.raises(CheckpointError, match="the chat template leaves out what the user says"):
        load(folder).write("push", moving_square()[0])


@pytest.mark.parametrize(
    ("shape", "size"),
    [((720, 2048), (1024, 360)), ((2000, 500), (256, 1024)), ((32, 64), (64, 32))],
)
def test_pictures_have_at_most_1024_pixels_a_side(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    assert shrink(np.zeros((*shape, 3), np.uint8)).size == size


WITHOUT_TORCHVISION = """
import sys
from pathlib import Path
sys.modules["torchvision"] = None
from cosmos_worker.guardrails.upsampler import check_folder
check_folder(Path(sys.argv[1]))
"""


def test_upsampler_names_the_package_that_pixtral_needs(tmp_path: Path) -> None:
    folder = write_upsampler(tmp_path / "u", {})
    path = folder / "processor_config.json"
    path.write_text(path.read_text().replace("LlavaProcessor", "PixtralProcessor"))

    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCHVISION, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode != 0
    assert re.search(
        r"(?i)CheckpointError: .*needs a package .*torchvision.* install the extra 'guardrails'",
        ended.stderr,
    )


def test_upsampler_refuses_other_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone/config\.json: no such file"):
        check_folder(tmp_path / "gone")
    with pytest.raises(
        CheckpointError, match=r"no processor of pictures|cannot load the prompt ups"
    ):
        check_folder(write_classifier(tmp_path / "c"))
