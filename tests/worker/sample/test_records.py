from __future__ import annotations

from pathlib import Path

import pytest
from support.generation import generate_config

from cosmos_worker.sample.inputs import SampleInput
from cosmos_worker.sample.records import describe_request


@pytest.mark.parametrize("padding", ["pad", "trim"])
def test_request_says_how_the_text_is_padded(tmp_path: Path, padding: str) -> None:
    image = tmp_path / "first.png"
    image.write_bytes(b"any content")
    one = SampleInput("0", "push the red cube left", image, None, "inputs")

    request = describe_request(one, generate_config(tmp_path, tmp_path, text_padding=padding), {})

    assert request["text"]["padding"] == padding
