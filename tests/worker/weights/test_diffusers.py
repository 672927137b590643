from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.training import SMALL_NET, small_model, write_model

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.diffusers import (
    diffusers_names,
    reference_names,
)
from cosmos_worker.weights.load import load_model
from cosmos_worker.weights.safetensors import Limits


def write_folder(tmp_path: Path, extra: bool = True, shard_bytes: int = 1 << 20) -> Path:
    """Write a folder in diffusers' form with the weights of small_model."""
    source = write_model(tmp_path / "model.pt", extra_pos_emb=extra)
    limits = Limits(shard_bytes=shard_bytes)
    convert_weights(source, tmp_path / "folder", "diffusers", SMALL_NET, limits)
    return tmp_path / "folder"


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_names_are_one_to_one_and_cover_the_network() -> None:
    names = diffusers_names(SMALL_NET.num_blocks)

    assert len(set(names.values())) == len(names)
    assert set(names) == {
        key
        for key in small_model().state_dict()
        if not key.startswith("logvar.") and key != "net.pos_embedder.seq"
    }
    assert reference_names(names.values()) == {new: old for old, new in names.items()}
    assert reference_names(names) is None


@pytest.mark.parametrize("extra", [True, False])
@pytest.mark.parametrize("shard_bytes", [1 << 20, 1 << 15])
@pytest.mark.parametrize("inner", ["", "transformer"])
def test_folder_gives_the_same_network(
    tmp_path: Path, extra: bool, shard_bytes: int, inner: str
) -> None:
    folder = write_folder(tmp_path, extra, shard_bytes)

    loaded = load_model(folder / inner, SMALL_NET).state_dict()

    expected = small_model(extra_pos_emb=extra).state_dict()
    assert list(loaded) == list(expected)
    for key, value in expected.items():
        assert torch.equal(loaded[key], value), key


def test_folder_of_diffusers_itself_has_no_uncertainty_head(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "logvar.safetensors").unlink()

    assert load_model(folder, SMALL_NET).logvar(torch.tensor([0.3])).item() == 0


def test_keys_of_a_folder_are_checked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    larger = SMALL_NET.model_copy(update={"num_blocks": 3})
    edit_config(folder, num_layers=3)

    with pytest.raises(CheckpointError, match=r"20 missing: net\.blocks\.block2\.") as caught:
        load_model(folder, larger)

    assert "extra" not in str(caught.value)


def test_unknown_tensors_keep_their_names_in_the_message(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(path), "crossattn_proj.0.weight": torch.zeros(2)}, path)
    (folder / "model.json").unlink()  # which knows the file as it was

    with pytest.raises(CheckpointError, match=r"1 extra: crossattn_proj\.0\.weight"):
        load_model(folder, SMALL_NET)


def test_network_that_no_tensor_shows_is_checked(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    edit_config(folder, rope_scale=[2.0, 2.0, 2.0], num_attention_heads=4)

    with pytest.raises(CheckpointError) as caught:
        load_model(folder, SMALL_NET)

    message = str(caught.value)
    assert message.startswith(f"{folder / 'transformer' / 'config.json'}: another network: ")
    assert "rope_scale (got [2.0, 2.0, 2.0], expected [2.0, 1.0, 1.0])" in message
    assert "num_attention_heads (got 4, expected 2)" in message


def test_config_that_is_not_json_is_reported(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "transformer" / "config.json").write_text("{")

    with pytest.raises(CheckpointError, match=r"config\.json: not JSON"):
        load_model(folder, SMALL_NET)
