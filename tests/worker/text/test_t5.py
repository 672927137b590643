from __future__ import annotations

import logging
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.text_encoders import edit_json, write_t5
from transformers import AutoTokenizer, T5EncoderModel

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.text import t5
from cosmos_worker.text.t5 import T5Encoder, encoder_identity

CAPTIONS = ["push the red cube left", "", "please take the small green ball and put it away"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("no_network")
def test_encode_equals_the_reference_procedure(folder: Path) -> None:
    """Pad to 512 with a mask, cut at the length, float16: what the reference script does."""
    results = T5Encoder(folder).encode(CAPTIONS, 512)

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = T5EncoderModel.from_pretrained(folder)
    for caption, result in zip(CAPTIONS, results, strict=True):
        inputs = tokenizer(
            caption, truncation=True, padding="max_length", max_length=512, return_tensors="pt"
        )
        with torch.no_grad():
            states = model(inputs.input_ids, attention_mask=inputs.attention_mask).last_hidden_state
        length = int(inputs.attention_mask.sum())
        assert result.dtype == np.float16
        assert result.shape == (length, 16)
        # two float16 roundings of fp32 sums in another order: one unit in the last place of |x| < 4
        np.testing.assert_allclose(
            result.astype(np.float32), states[0, :length].numpy(), atol=2**-9, rtol=0
        )


def test_encode_does_not_depend_on_the_batch(folder: Path) -> None:
    encoder = T5Encoder(folder)

    together = encoder.encode(CAPTIONS, 64)

    for caption, expected in zip(CAPTIONS, together, strict=True):
        (alone,) = encoder.encode([caption], 64)
        np.testing.assert_allclose(
            alone.astype(np.float32), expected.astype(np.float32), atol=2**-9, rtol=0
        )
    for small, large in zip(encoder.encode(CAPTIONS, 64, batch_size=2), together, strict=True):
        assert small.shape == large.shape


def test_encode_counts_the_end_token_of_the_empty_caption(folder: Path) -> None:
    assert T5Encoder(folder).encode([""], 8)[0].shape == (1, 16)


def test_encode_of_nothing_is_nothing(folder: Path) -> None:
    assert T5Encoder(folder).encode([], 8) == []


def test_encode_truncates_and_keeps_the_end_token(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = T5Encoder(folder)

    with caplog.at_level(logging.WARNING):
        short, long = encoder.encode(["abc", "abcdefghijkl"], 8)

    assert (len(short), len(long)) == (4, 8)
    (same,) = encoder.encode(["abcdefg"], 8)
    np.testing.assert_allclose(long.astype(np.float32), same.astype(np.float32), atol=2**-9, rtol=0)
    assert "truncated captions=1 max_length=8" in caplog.text


def test_encode_refuses_what_float16_cannot_hold(tmp_path: Path) -> None:
    encoder = T5Encoder(write_t5(tmp_path, output_scale=1e6))

    with pytest.raises(DataError, match=r"'push'.*float16 holds 65504"):
        encoder.encode(["push"], 8)


def test_encode_refuses_nan(tmp_path: Path) -> None:
    encoder = T5Encoder(write_t5(tmp_path, output_scale=float("nan")))

    with pytest.raises(DataError, match=r"'push' has a value of size nan"):
        encoder.encode(["push"], 8)


def test_encoder_keeps_float32_when_the_weights_are_half(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    half = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    save_file(half, tmp_path / "model.safetensors", {"format": "pt"})
    edit_json(tmp_path / "config.json", dtype="bfloat16")

    (result,) = T5Encoder(tmp_path).encode(["push the red cube left"], 64)

    values = torch.from_numpy(result).float()
    assert (values != values.to(torch.bfloat16).float()).any()


def test_encoder_names_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent/config\.json: no such file"):
        T5Encoder(tmp_path / "absent")


def test_encoder_refuses_another_kind_of_model(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    edit_json(tmp_path / "config.json", model_type="bert")

    with pytest.raises(CheckpointError, match=r"model_type 'bert'.*expected model_type 't5'"):
        T5Encoder(tmp_path)


def test_encoder_refuses_a_folder_without_weights(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").unlink()

    with pytest.raises(CheckpointError, match="no weights"):
        T5Encoder(tmp_path)


def test_encoder_refuses_truncated_weights(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])

    with pytest.raises(CheckpointError, match=r"transformers cannot load it.*fetch the encoder"):
        T5Encoder(tmp_path)


def test_encoder_refuses_missing_weights(tmp_path: Path, folder: Path) -> None:
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["encoder.block.1.layer.1.DenseReluDense.wo.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})

    with pytest.raises(CheckpointError, match=r"1 weights missing.*block\.1\.layer\.1"):
        T5Encoder(tmp_path)


def test_identity_follows_from_weights_tokenizer_and_length_only(
    tmp_path: Path, folder: Path
) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy" / "README.md").write_text("notes")
    (tmp_path / "copy" / "complete-0123.json").write_text("{}")
    write_t5(tmp_path / "other", seed=1)

    assert encoder_identity(tmp_path / "copy", 512) == encoder_identity(folder, 512)
    assert encoder_identity(folder, 512) != encoder_identity(folder, 32)
    assert encoder_identity(tmp_path / "other", 512) != encoder_identity(folder, 512)
    edit_json(tmp_path / "copy" / "tokenizer_config.json", extra_ids=7)
    assert encoder_identity(tmp_path / "copy", 512) != encoder_identity(folder, 512)


def test_identity_samples_large_files(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t5, "SAMPLED_ABOVE_BYTES", 4096)
    monkeypatch.setattr(t5, "SAMPLE_BYTES", 256)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    before = encoder_identity(tmp_path, 8)
    content = bytearray((tmp_path / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(content)

    assert encoder_identity(tmp_path, 8) != before
