"""Files whose content does not fit their names are recognised wherever models are read."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from cosmos_worker.cli import main
from cosmos_worker.config.network import TokenizerConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails.pretrained import read_model_type
from cosmos_worker.storage.file_kinds import (
    recognise_file,
    refuse_pointers_in,
)
from cosmos_worker.text.t5 import encoder_identity
from cosmos_worker.tokenizer.load import FileTokenizer
from cosmos_worker.weights.load import read_weight_file
from cosmos_worker.weights.tensor_files import read_saved

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 14432\n"
MESSAGE = r"{}: a Git LFS pointer, not the file; run 'git lfs pull' in that repository"


def write_tokenizer(folder: Path) -> None:
    torch.save((torch.zeros(256), torch.ones(256)), folder / "mean_std.pt")
    for name in ("encoder.jit", "decoder.jit"):
        (folder / name).write_text(POINTER)
    FileTokenizer(folder, TokenizerConfig(chunk_pixel_frames=9), torch.device("cpu"))


READERS: dict[str, Callable[[Path], object]] = {
    "model.pt": read_weight_file,
    "model.safetensors": read_weight_file,
    "model.safetensors.index.json": read_weight_file,
    "spiece.model": lambda folder: encoder_identity(folder, 512),
    "tokenizer.json": lambda folder: encoder_identity(folder, 512),
    "pytorch_model.bin": lambda folder: encoder_identity(folder, 512),
    "config.json": lambda folder: read_model_type(folder, "text classifier"),
    "safety_filter.pt": lambda folder: read_saved(folder / "safety_filter.pt", "fetch it again"),
    "encoder.jit": write_tokenizer,
}


@pytest.mark.parametrize("name", READERS)
def test_git_lfs_pointer_is_recognised(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)

    with pytest.raises(CheckpointError, match=MESSAGE.format(name)):
        READERS[name](tmp_path)


def test_git_lfs_pointer_is_recognised_by_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.pt").write_text(POINTER)
    arguments = [
        "export",
        "--format",
        "pt",
        "--experiment",
        "video2world_instruction_push_tiny",
        "--from",
    ]

    assert main([*arguments, str(tmp_path), "--to", str(tmp_path / "out")]) == 2
    assert "model.pt: a Git LFS pointer" in capsys.readouterr().err


def test_small_files_and_folders_are_no_pointers(tmp_path: Path) -> None:
    (tmp_path / "merges.txt").write_text("version 0.2")
    (tmp_path / "folder").mkdir()

    refuse_pointers_in(tmp_path)


def make_archive(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a"), io.BytesIO())


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (lambda p: torch.save({}, p), "a file of torch.save"),
        (lambda p: torch.save({}, p, _use_new_zipfile_serialization=False), "a pickle, as torch"),
        (lambda p: save_file({"a": torch.zeros(1)}, p), "a file of safetensors"),
        (lambda p: p.write_bytes(np.lib.format.magic(1, 0)), "a NumPy array"),
        (make_archive, "a tar archive"),
        (lambda p: p.write_text(""), "an empty file"),
        (lambda p: p.write_text("\n<html>"), "an HTML page"),
    ],
)
def test_files_are_recognised_by_their_content(
    tmp_path: Path, write: Callable[[Path], object], kind: str
) -> None:
    write(tmp_path / "file")

    assert str(recognise_file(tmp_path / "file")).startswith(kind)


def test_text_is_nothing_that_is_known(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("weights")

    assert recognise_file(tmp_path / "file") is None
