from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from support.training import SMALL_NET, small_experiment, small_model, train_config, write_model

from cosmos_worker.config.presets import NET_14B
from cosmos_worker.errors import CheckpointError, ConfigError, RetryableError
from cosmos_worker.storage.volumes import sha256_of_file
from cosmos_worker.weights.convert import (
    convert_weights,
    find_network,
)
from cosmos_worker.weights.load import (
    load_model,
    read_weight_file,
)
from cosmos_worker.weights.safetensors import Limits

FORMS = ("pt", "safetensors", "diffusers")
RATIOS = SMALL_NET.model_copy(update={"rope_ratio_h": 2.0, "rope_ratio_w": 2.0})
"""Another network of the same shapes."""


@pytest.mark.parametrize("first", FORMS)
@pytest.mark.parametrize("second", FORMS)
def test_forms_turn_into_each_other_without_loss(tmp_path: Path, first: str, second: str) -> None:
    source = write_model(tmp_path / "model.pt")
    limits = Limits(shard_bytes=1 << 15)

    convert_weights(source, tmp_path / "first", first, RATIOS, limits)
    found = find_network(tmp_path / "first", None)
    convert_weights(tmp_path / "first", tmp_path / "second", second, found, limits)

    assert found == RATIOS
    assert find_network(tmp_path / "second", None) == RATIOS
    loaded = load_model(tmp_path / "second", RATIOS).state_dict()
    for key, value in small_model().state_dict().items():
        assert torch.equal(loaded[key], value), key


@pytest.mark.parametrize("form", FORMS)
def test_result_is_described(tmp_path: Path, form: str) -> None:
    source = write_model(tmp_path / "model.pt")
    target = tmp_path / "deep" / "target"

    result = convert_weights(source, target, form, SMALL_NET, Limits(torch.bfloat16))

    facts = json.loads((target / "model.json").read_text())
    files = {str(p.relative_to(target)) for p in target.rglob("*") if p.is_file()}
    assert facts == result
    assert set(facts["files"]) == files - {"model.json"}
    for name, fact in facts["files"].items():
        assert fact["sha256"] == sha256_of_file(target / name)
    assert facts["parameters"] == sum(p.numel() for p in small_model().parameters())
    assert facts["made_of"] == str(source)
    assert {v.dtype for v in read_weight_file(target).values()} == {torch.bfloat16}
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_existing_folder_is_kept(tmp_path: Path) -> None:
    source = write_model(tmp_path / "model.pt")
    (tmp_path / "target").mkdir()

    with pytest.raises(ConfigError, match=r"--to: .*target exists; name a folder that does not"):
        convert_weights(source, tmp_path / "target", "pt", SMALL_NET, Limits())


@pytest.mark.parametrize("form", FORMS)
def test_full_disk_is_reported_and_leaves_nothing(
    tmp_path: Path, small_disk: Path, form: str
) -> None:
    source = write_model(tmp_path / "model.pt")
    (small_disk / "other").write_bytes(bytes(900_000))

    with pytest.raises(RetryableError, match=r"cannot write a checkpoint .* are free; make room"):
        convert_weights(source, small_disk / "target", form, SMALL_NET, Limits())

    assert [path.name for path in small_disk.iterdir()] == ["other"]


def test_weights_that_do_not_fit_are_not_converted(tmp_path: Path) -> None:
    source = write_model(tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match="does not fit the network"):
        convert_weights(source, tmp_path / "target", "diffusers", NET_14B, Limits())

    assert not (tmp_path / "target").exists()


# --- which network ---------------------------------------------------------------------------


def test_experiment_names_the_network(tmp_path: Path) -> None:
    name = "video2world_instruction_bridge_57frames_14b"

    assert find_network(tmp_path / "absent", name) == NET_14B


def test_configuration_of_the_run_names_the_network(tmp_path: Path) -> None:
    config = train_config(tmp_path, small_experiment())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    path = write_model(tmp_path / "checkpoints" / "iter_000000002_ema_model.pt")

    assert find_network(path, None) == SMALL_NET


def test_published_description_names_the_network(tmp_path: Path) -> None:
    write_model(tmp_path / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps({"net": RATIOS.model_dump(mode="json")}))

    assert find_network(tmp_path, None) == RATIOS


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, r"--experiment: .*model\.pt does not say .* name one of .*bridge_57frames"),
        ({"net": {"num_blocks": 0}}, r"model\.json: net\.num_blocks: Input should be greater"),
        ({}, r"model\.json: has no net; name the network by --experiment"),
    ],
)
def test_unknown_network_must_be_named(tmp_path: Path, description: object, message: str) -> None:
    write_model(tmp_path / "model.pt")
    if description is not None:
        (tmp_path / "model.json").write_text(json.dumps(description))

    with pytest.raises(ConfigError, match=message):
        find_network(tmp_path, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_layers": None}, r"config\.json: not the configuration of CosmosTransformer3DModel"),
        ({"patch_size": [2, 2, 2]}, r"another network: patch_size \(got \[2, 2, 2\], expected"),
        ({"in_channels": 16}, r"another network: in_channels \(got 16, expected 17\)"),
    ],
)
def test_network_of_diffusers_that_we_do_not_have_is_refused(
    tmp_path: Path, values: dict[str, object], message: str
) -> None:
    source = write_model(tmp_path / "model.pt")
    convert_weights(source, tmp_path / "folder", "diffusers", SMALL_NET, Limits())
    path = tmp_path / "folder" / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))

    with pytest.raises(CheckpointError, match=message):
        find_network(tmp_path / "folder", None)
