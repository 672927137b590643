from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.reference_keys import LOGVAR_ENTRIES, extra_state_names, reference_entries
from support.training import SMALL_NET, small_model, write_model
from torch import Tensor

from cosmos_worker.config.network import NetConfig
from cosmos_worker.config.presets import (
    NET_7B,
    NET_14B,
)
from cosmos_worker.errors import CheckpointError, ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.weights.load import (
    fill_model,
    load_model,
    load_network,
    open_model,
    read_weight_file,
    save_weight_file,
)


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
    expected = reference_entries(net.model_channels, net.num_blocks, extra=extra)

    with torch.device("meta"):
        model = CosmosModel(net, extra)

    state = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert state == expected | LOGVAR_ENTRIES
    assert len(expected) == entries
    assert sum(p.numel() for p in model.net.parameters()) == parameters


@pytest.mark.parametrize(("dtype", "extra"), [(torch.bfloat16, True), (torch.float32, False)])
def test_written_file_is_what_the_reference_loads(
    tmp_path: Path, dtype: torch.dtype, extra: bool
) -> None:
    model = small_model(extra_pos_emb=extra)
    wanted = reference_entries(32, 2, text=16, rank=8, head=16, sizes=(8, 8, 8), extra=extra)

    save_weight_file(tmp_path / "model.pt", model.state_dict(), dtype)

    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert type(state) is dict
    assert {key: tuple(value.shape) for key, value in state.items()} == wanted | LOGVAR_ENTRIES
    assert {value.dtype for value in state.values()} == {dtype}
    assert state["net.pos_embedder.seq"].tolist() == list(range(8))
    assert all(v.untyped_storage().nbytes() == v.nbytes for v in state.values())
    for key, value in model.state_dict().items():
        assert torch.equal(state[key], value.to(dtype)), key


# --- forms -----------------------------------------------------------------------------------


def with_extra_states(state: Mapping[str, Tensor]) -> dict[str, object]:
    """As the reference's trainer saves: with a saved None in a BytesIO for every attention."""
    nothing = io.BytesIO()
    torch.save(None, nothing)
    return {**state, **dict.fromkeys(extra_state_names(2), nothing)}


def write_shards(folder: Path, state: Mapping[str, Tensor]) -> Path:
    """Three shards, of which each has keys of the beginning and of the end, and their index."""
    folder.mkdir()
    names = {key: f"part-{number % 3}.safetensors" for number, key in enumerate(state)}
    for file in set(names.values()):
        save_file({k: v for k, v in state.items() if names[k] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def write_form(form: str, folder: Path, state: dict[str, Tensor]) -> Path:
    """Write weights in a form that NVIDIA or its users have; returns the path to load."""
    file = folder / "model.pt"
    if form == "released":
        torch.save(state, file)
    elif form == "trainer":
        torch.save(with_extra_states(state), file)
    elif form == "wrapper":
        torch.save({"model": with_extra_states(state), "ema": {}}, file)
    elif form == "averaged wrapper":
        other = {key: torch.zeros_like(value) for key, value in state.items()}
        torch.save({"model": other, "ema": state}, file)
    elif form == "safetensors":
        file = folder / "anything.safetensors"
        save_file(state, file)
    elif form == "safetensors with extra states":
        empty = {key: torch.empty(0, dtype=torch.uint8) for key in extra_state_names(2)}
        save_file({**state, **empty}, folder / "model.safetensors")
        return folder
    elif form == "shards":
        return write_shards(folder / "shards", state).parent
    elif form == "index of shards":
        return write_shards(folder / "shards", state)
    else:
        assert form == "folder"
        torch.save(state, file)
        return folder
    return file


FORMS = (
    "released",
    "folder",
    "trainer",
    "wrapper",
    "averaged wrapper",
    "safetensors",
    "safetensors with extra states",
    "shards",
    "index of shards",
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("prefix", [True, False], ids=["prefix", "bare"])
@pytest.mark.parametrize("extra", [True, False], ids=["extra", "no-extra"])
def test_every_form_gives_the_same_network(
    tmp_path: Path, form: str, prefix: bool, extra: bool
) -> None:
    expected = small_model(extra_pos_emb=extra).state_dict()
    state = {key if prefix else key.removeprefix("net."): v for key, v in expected.items()}

    path = write_form(form, tmp_path, state)
    loaded = load_model(path, SMALL_NET).state_dict()

    assert list(loaded) == list(expected)
    for key, value in expected.items():
        assert torch.equal(loaded[key], value), key


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_checked(tmp_path: Path, form: str) -> None:
    state = small_model().state_dict()
    del state["net.final_layer.linear.weight"]
    state["net.surprise"] = torch.zeros(1)
    state["net.affline_norm.weight"] = torch.zeros(7)
    path = write_form(form, tmp_path, state)

    with pytest.raises(CheckpointError) as caught:
        load_model(path, SMALL_NET)

    message = str(caught.value)
    assert message.startswith(f"{path}: does not fit the network")
    assert "1 missing: net.final_layer.linear.weight" in message
    assert "1 extra: net.surprise" in message
    assert "1 misshaped: net.affline_norm.weight (got (7,), expected (32,))" in message


@pytest.mark.parametrize("form", ["released", "safetensors", "shards"])
def test_bfloat16_weights_become_float32(tmp_path: Path, form: str) -> None:
    state = {key: value.bfloat16() for key, value in small_model().state_dict().items()}

    loaded = load_model(write_form(form, tmp_path, state), SMALL_NET).state_dict()

    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert torch.equal(loaded["net.affline_norm.weight"], state["net.affline_norm.weight"].float())


def test_weights_without_prefix_logvar_and_counter_are_accepted(tmp_path: Path) -> None:
    state = small_model().net.state_dict()
    del state["pos_embedder.seq"]
    save_weight_file(tmp_path / "model.pt", state, torch.float32)

    loaded = load_model(tmp_path / "model.pt", SMALL_NET)

    assert loaded.net.pos_embedder.seq.tolist() == list(range(8))
    assert loaded.logvar(torch.tensor([0.3])).item() == 0
    assert torch.equal(loaded.net.affline_norm.weight, state["affline_norm.weight"])


def test_folder_with_several_files_and_no_index_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"net.x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")

    with pytest.raises(
        CheckpointError,
        match=r"2 weight files and no index \(a\.safetensors, b\.safetensors\); name the one to load",
    ):
        read_weight_file(tmp_path)


def test_folder_without_weights_says_what_it_may_hold(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"no such weight file .it holds nothing.; expected .* a folder with model\.pt",
    ):
        read_weight_file(tmp_path)


def test_weights_are_not_read_before_they_are_asked_for(tmp_path: Path) -> None:
    path = write_shards(tmp_path / "shards", small_model().state_dict())

    model, state = open_model(path, SMALL_NET)
    (tmp_path / "shards" / "part-0.safetensors").unlink()

    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    with pytest.raises(CheckpointError, match=r"part-0\.safetensors: no such shard"):
        fill_model(model.to_empty(device="cpu"), state)


def test_network_for_sampling_has_no_gradients(tmp_path: Path) -> None:
    net = load_network(write_model(tmp_path / "model.pt"), SMALL_NET)

    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


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
        CheckpointError,
        match=r"cannot be read as a file of torch tensors .* fetch or publish it again",
    ):
        read_weight_file(path)
    with pytest.raises(CheckpointError, match="no such weight file"):
        read_weight_file(tmp_path / "absent.pt")


def test_weight_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    torch.save({"net.a": Hostile()}, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match="cannot be read as a file of torch tensors"):
        read_weight_file(tmp_path / "model.pt")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "content",
    [
        {"iteration": 5},
        {"net.a": io.BytesIO(b"content")},
        {0: torch.zeros(1)},
        {"model": {"net.a": "text"}, "ema": None},
        {"model": {}, "ema": {}},
        [torch.zeros(1)],
    ],
    ids=["number", "bytes", "number as name", "wrapped text", "empty wrapper", "list"],
)
def test_file_with_something_else_than_tensors_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pt")

    with pytest.raises(
        CheckpointError, match=f"holds {type(content).__name__}, not a flat dict of tensors"
    ):
        read_weight_file(tmp_path / "model.pt")
