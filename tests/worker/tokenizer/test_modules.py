"""Encoder and decoder from NVIDIA's files: our network with their weights, which equals the programs in them."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.released_tokenizer import (
    NARROW,
    TRACED_FRAMES,
    TRACED_HEIGHT,
    TRACED_WIDTH,
    random_autoencoder,
    write_released_tokenizer,
    write_trace,
)
from support.tiny_tokenizer import torchscript_allowed, write_tiny_tokenizer

from cosmos_worker.config.network import TokenizerConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.tokenizer.load import FileTokenizer, load_tokenizer

CONFIG = TokenizerConfig(chunk_pixel_frames=TRACED_FRAMES)
SIZE = (1, 3, TRACED_FRAMES, TRACED_HEIGHT, TRACED_WIDTH)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("released")
    write_released_tokenizer(path)
    return path


@pytest.fixture
def own_folder(folder: Path, tmp_path: Path) -> Path:
    """A folder whose files a test may change."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def forbid_torchscript(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("a program was loaded")

    monkeypatch.setattr(torch.jit, "load", load)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_equals_the_programs_within_rounding(tmp_path: Path, dtype: torch.dtype) -> None:
    write_released_tokenizer(tmp_path, dtype)
    video = torch.rand(SIZE) * 2 - 1
    native = load_tokenizer(tmp_path, CONFIG, "cpu")
    with torchscript_allowed():
        programs = load_tokenizer(tmp_path, CONFIG, "cpu", "torchscript")

    latent = native.encode(video)
    pixels = native.decode(latent)

    expected, expected_pixels = programs.encode(video), programs.decode(latent)
    torch.testing.assert_close(latent, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pixels, expected_pixels, rtol=1e-5, atol=1e-5)
    assert expected.std() > 1e-2
    assert expected_pixels.std() > 1e-2
    assert native.digest == programs.digest


def test_native_takes_videos_of_any_size(folder: Path) -> None:
    tokenizer = load_tokenizer(folder, replace_chunk(17), "cpu")

    latent = tokenizer.encode(torch.rand(2, 3, 17, 32, 40))

    assert latent.shape == (2, 16, 3, 4, 5)
    assert tokenizer.decode(latent).shape == (2, 3, 17, 32, 40)


def replace_chunk(frames: int) -> TokenizerConfig:
    return CONFIG.model_copy(update={"chunk_pixel_frames": frames})


def test_native_runs_no_program(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_torchscript(monkeypatch)

    FileTokenizer(folder, CONFIG, torch.device("cpu"))

    with pytest.raises(AssertionError, match="a program was loaded"):
        FileTokenizer(folder, CONFIG, torch.device("cpu"), "torchscript")


def test_native_opens_no_program_and_calls_no_name_of_the_file(own_folder: Path) -> None:
    """A file whose pickle would create a file when it is loaded, and whose programs are no programs."""

    class Attack:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
            return (Path.touch, (own_folder / "attacked",))

    path = own_folder / "encoder.jit"
    rewrite(path, lambda name, content: b"raise SystemExit" if "/code/" in name else content)
    FileTokenizer(own_folder, CONFIG, torch.device("cpu"))  # code is not looked at

    attack = pickle.dumps(Attack(), protocol=2)
    rewrite(path, lambda name, content: attack if name.endswith("/data.pkl") else content)
    with pytest.raises(CheckpointError, match=r"encoder\.conv_in\.0\.conv3d\.weight is absent"):
        FileTokenizer(own_folder, CONFIG, torch.device("cpu"))

    assert not (own_folder / "attacked").exists()


def rewrite(path: Path, change: Callable[[str, bytes], bytes]) -> None:
    """Write a zip file again with other contents of its records."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, change(name, content))


def test_another_network_is_refused_with_its_names_and_the_way_out(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)

    message = (
        r"encoder\.jit and decoder\.jit: not the network of Cosmos-Tokenize1-CV8x8x8: "
        r"encoder\.conv_in\.0\.conv3d\.weight is absent; they hold 1 tensors: weight, \.\.\.; use a tokenizer of .*"
        r"spec\.tokenizer\.runtime: TorchScript"
    )
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(tmp_path, CONFIG, "cpu")


def test_misshaped_missing_and_unknown_weights_are_named_with_both_shapes(tmp_path: Path) -> None:
    network = random_autoencoder()
    network.encoder.norm_out.norm.weight = torch.nn.Parameter(torch.zeros(3), False)
    network.encoder.norm_out.norm.num_channels = 3
    with pytest.raises(RuntimeError):
        network.encode(torch.zeros(SIZE))
    write_released_tokenizer(tmp_path)

    class Odd(torch.nn.Module):
        """The weights without their network."""

        def __init__(self) -> None:
            super().__init__()
            for name in ("encoder", "quant_conv"):
                self.add_module(name, getattr(network, name))
            del self.quant_conv.conv3d.bias
            self.quant_conv.conv3d.register_buffer("extra", torch.zeros(1))
            self.quant_conv.conv3d.bias = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.encoder.norm_out.norm.weight.sum()

    write_trace(Odd(), torch.zeros(2), tmp_path / "encoder.jit")

    with pytest.raises(CheckpointError) as caught:
        load_tokenizer(tmp_path, CONFIG, "cpu")

    message = str(caught.value)
    assert "3 entries do not fit the network" in message
    assert "missing quant_conv.conv3d.bias" in message
    assert "unknown quant_conv.conv3d.extra" in message
    assert "encoder.norm_out.norm.weight is (3,) instead of (32,)" in message
    assert "spec.tokenizer.runtime: TorchScript" in message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temporal_compression": 4}, "a tokenizer of 4x8x8 with 16 channels; use a causal 8x8x8"),
        ({"latent_channels": 6}, "a tokenizer of 8x8x8 with 6 channels; use a causal 8x8x8"),
    ],
)
def test_a_tokenizer_of_another_compression_is_refused_at_once(
    tmp_path: Path, change: dict[str, int], message: str
) -> None:
    write_released_tokenizer(tmp_path, network=random_autoencoder(replace(NARROW, **change)))

    with pytest.raises(CheckpointError, match=re.escape(message)):
        load_tokenizer(tmp_path, CONFIG, "cpu")


def test_another_wavelet_is_refused(tmp_path: Path) -> None:
    network = random_autoencoder()
    network.encoder.patcher3d.wavelets.mul_(1.1)
    write_released_tokenizer(tmp_path, network=network)

    with pytest.raises(
        CheckpointError, match=r"encoder\.patcher3d\.wavelets is \[.*\] instead of Haar's"
    ):
        load_tokenizer(tmp_path, CONFIG, "cpu")


def test_encoder_and_decoder_of_different_networks_are_refused(own_folder: Path) -> None:
    other = own_folder / "other"
    write_released_tokenizer(other, network=random_autoencoder(replace(NARROW, channels=4)))
    (other / "decoder.jit").replace(own_folder / "decoder.jit")

    with pytest.raises(
        CheckpointError, match=r"decoder\.conv_in\.0\.conv3d\.weight is \(16, 16, 1"
    ):
        load_tokenizer(own_folder, CONFIG, "cpu")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 truncated"])
def test_damaged_files_are_named(own_folder: Path, content: bytes) -> None:
    (own_folder / "decoder.jit").write_bytes(content)

    with pytest.raises(CheckpointError, match=r"decoder\.jit: .*; run fetch-model again"):
        load_tokenizer(own_folder, CONFIG, "cpu")


def test_a_damaged_weight_is_found_by_its_checksum(own_folder: Path) -> None:
    path = own_folder / "encoder.jit"
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content[largest.header_offset + largest.file_size // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"encoder\.jit: .* is damaged: its checksum"):
        load_tokenizer(own_folder, CONFIG, "cpu")
