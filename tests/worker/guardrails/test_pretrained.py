"""Weight files of a transformers folder: checks that all are present and complete, from their headers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support.auxiliary_models import write_classifier, write_image_encoder, write_upsampler

from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails.pretrained import check_weight_files
from cosmos_worker.guardrails.text_classifier import check_folder as check_classifier
from cosmos_worker.guardrails.upsampler import check_folder as check_upsampler
from cosmos_worker.guardrails.video_filter import check_encoder

ROLE = "text classifier"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
LIST = "model.safetensors.index.json"


def write_parts(folder: Path) -> Path:
    """Two weights in two files and their list, as large models come."""
    folder.mkdir()
    for name, file in (("a", FIRST), ("b", SECOND)):
        save_file({name: np.ones((64, 4), np.float32)}, folder / file)
    (folder / LIST).write_text(json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}))
    return folder


def test_whole_folders_are_accepted(tmp_path: Path) -> None:
    check_weight_files(write_parts(tmp_path / "parts"), ROLE)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    check_weight_files(tmp_path, ROLE)


def test_one_file_is_preferred_to_a_list_as_in_transformers(tmp_path: Path) -> None:
    folder = write_parts(tmp_path / "parts")
    (folder / FIRST).unlink()
    save_file({"a": np.ones(1, np.float32)}, folder / "model.safetensors")

    check_weight_files(folder, ROLE)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def list_another(folder: Path) -> None:
    (folder / LIST).write_text(json.dumps({"weight_map": {"a": FIRST, "c": SECOND}}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / SECOND).unlink(), rf"1 of 2 weight files .* absent, first {SECOND}"),
        (lambda folder: cut(folder / FIRST), rf"{FIRST}: cannot be read \(.*\); fetch the text class"),
        (lambda folder: (folder / FIRST).write_bytes(b""), rf"{FIRST}: cannot be read"),
        (list_another, rf"{SECOND}: lacks 1 weights that the list .* says are in it, first c"),
        (lambda folder: (folder / LIST).write_text("[]"), r"index\.json: no list of weight files"),
        (lambda folder: (folder / LIST).unlink(), r"no weights of the text classifier \(model\.safe"),
    ],
)  # fmt: skip
def test_incomplete_folders_are_refused(
    tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = write_parts(tmp_path / "parts")
    damage(folder)

    with pytest.raises(CheckpointError, match=message):
        check_weight_files(folder, ROLE)


def test_empty_bin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()

    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: cannot be read \(empty\)"):
        check_weight_files(tmp_path, ROLE)


@pytest.mark.parametrize(
    ("write", "check"),
    [
        (write_classifier, check_classifier),
        (write_upsampler, check_upsampler),
        (write_image_encoder, check_encoder),
    ],
)
def test_every_model_beside_the_network_must_have_its_weights(
    tmp_path: Path, write: Callable[[Path], Path], check: Callable[[Path], object]
) -> None:
    folder = write(tmp_path / "m")
    check(folder)
    (folder / "model.safetensors").unlink()

    with pytest.raises(CheckpointError, match="m: no weights of the "):
        check(folder)
