"""Shared inputs of the tests of the generate stage. They are read-only; a test that changes them takes a copy."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.generation import write_clips, write_models


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of network, tokenizer and encoder."""
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three of them."""
    return write_clips(tmp_path_factory.mktemp("clips"), 3)
