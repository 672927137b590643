from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from training import SMALL_NET, small_model, write_model

from cosmos_worker.checkpoint.weights import (
    load_model,
    load_network,
    read_weight_file,
    save_weight_file,
)
from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.experiments import NET_7B, NET_14B
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.options import NetConfig


@pytest.mark.parametrize(
    ("net", "extra", "entries", "parameters"),
    [
        (NET_7B, True, 571, 7_236_208_640),
        (NET_7B, False, 568, 7_234_701_312),
        (NET_14B, True, 731, 14_267_169_792),
        (NET_14B, False, 728, 14_265_285_632),
    ],
)
def test_full_size_networks_have_the_released_entries(
    net: NetConfig, extra: bool, entries: int, parameters: int
) -> None:
    with torch.device("meta"):
        model = CosmosModel(net, extra)

    assert len(model.net.state_dict()) == entries
    assert sum(p.numel() for p in model.net.parameters()) == parameters
    assert {key for key in model.state_dict() if not key.startswith("net.")} == {
        "logvar.0.freqs",
        "logvar.0.phases",
        "logvar.1.weight",
    }
    assert "net.blocks.block27.blocks.1.block.attn.to_k.1.weight" in model.state_dict()


@pytest.mark.parametrize("extra", [True, False])
def test_weights_survive_a_file(tmp_path: Path, extra: bool) -> None:
    path = write_model(tmp_path / "model.pt", extra_pos_emb=extra)

    loaded = load_model(path, SMALL_NET)

    assert (loaded.net.extra_pos_embedder is not None) == extra
    for key, value in small_model(extra_pos_emb=extra).state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key


def test_weights_without_prefix_logvar_and_counter_are_accepted(tmp_path: Path) -> None:
    state = small_model().net.state_dict()
    del state["pos_embedder.seq"]
    save_weight_file(tmp_path / "model.pt", state, torch.float32)

    loaded = load_model(tmp_path / "model.pt", SMALL_NET)

    assert loaded.net.pos_embedder.seq.tolist() == list(range(8))
    assert loaded.logvar(torch.tensor([0.3])).item() == 0
    assert torch.equal(loaded.net.affline_norm.weight, state["affline_norm.weight"])


def test_network_for_sampling_has_no_gradients(tmp_path: Path) -> None:
    net = load_network(write_model(tmp_path / "model.pt"), SMALL_NET)

    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


def test_missing_extra_and_misshaped_keys_are_listed(tmp_path: Path) -> None:
    state = small_model().state_dict()
    del state["net.final_layer.linear.weight"]
    state["net.surprise"] = torch.zeros(1)
    state["net.affline_norm.weight"] = torch.zeros(7)
    save_weight_file(tmp_path / "model.pt", state, torch.float32)

    with pytest.raises(CheckpointError) as caught:
        load_model(tmp_path / "model.pt", SMALL_NET)

    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'model.pt'}: does not fit the network")
    assert "1 missing: net.final_layer.linear.weight" in message
    assert "1 extra: net.surprise" in message
    assert "1 misshaped: net.affline_norm.weight (got (7,), expected (32,))" in message


def test_checkpoint_of_another_size_is_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.pt")
    larger = SMALL_NET.model_copy(update={"model_channels": 64, "num_blocks": 3})

    with pytest.raises(
        CheckpointError, match=r"model_channels 64, num_blocks 3.*missing.*block2.*misshaped"
    ):
        load_model(path, larger)


@pytest.mark.parametrize(("wanted", "extra"), [("none", True), ("learnable", False)])
def test_extra_position_embedding_must_be_as_the_file_has_it(
    tmp_path: Path, wanted: str, extra: bool
) -> None:
    path = write_model(tmp_path / "model.pt", extra_pos_emb=extra)

    with pytest.raises(ConfigError, match=r"net\.extra_pos_emb: got .* use 'auto'"):
        load_model(path, SMALL_NET.model_copy(update={"extra_pos_emb": wanted}))


def test_truncated_and_missing_files_are_reported(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.pt")
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(
        CheckpointError, match=r"cannot be read as a weight file .* fetch or publish it again"
    ):
        read_weight_file(path)
    with pytest.raises(CheckpointError, match="no such weight file"):
        read_weight_file(tmp_path / "absent.pt")


def test_weight_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"net.a": Hostile()}, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match="cannot be read as a weight file"):
        read_weight_file(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


def test_file_with_something_else_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"iteration": 5}, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match="holds dict, not a flat dict of tensors"):
        read_weight_file(tmp_path / "model.pt")
