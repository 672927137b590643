"""Requirements of jobs compared with the machine."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.training import small_experiment

from cosmos_worker.config.stages import STAGE_CONFIGS
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.sizes import checkpoint_bytes
from cosmos_worker.runtime.machine import Finding
from cosmos_worker.runtime.machine_check import (
    ITEMS,
    TOKEN,
    Line,
    Needs,
    check_machine,
    needs_of_document,
    parse_needs,
    require_all,
    stage_of,
)
from cosmos_worker.storage.volumes import Volumes


def write_train_document(tmp_path: Path, device: str) -> Path:
    document = {
        "key": "k",
        "target_uri": str(tmp_path / "out"),
        "experiment": small_experiment(device=device).model_dump(mode="json"),
        "run_name": "run",
        "model_uri": None,
        "dataset_uri": "d",
        "embeddings_uri": "e",
        "latents_uri": "l",
    }
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_every_item_has_a_line() -> None:
    lines = {line.name: line for line in check_machine(Needs(), {})}

    assert list(lines) == [*ITEMS, TOKEN]
    assert lines["torch"].finding.found
    assert not any(line.is_missing for line in lines.values())
    require_all(list(lines.values()))


def test_lines_are_aligned_and_advise_only_where_something_is_missing() -> None:
    found, absent = Finding(True, "1.0"), Finding(False, "none")

    assert str(Line("te", found, True, "install it")) == "ok      te       1.0"
    assert str(Line("te", absent, False, "install it")) == "absent  te       none"
    assert str(Line("hf-token", absent, True, "set it")) == "MISSING hf-token none; set it"


def test_missing_items_are_refused_together_with_remedies(tmp_path: Path) -> None:
    needs = Needs(frozenset({"apex", TOKEN}), ((tmp_path, 2**62),))

    with pytest.raises(ConfigError) as caught:
        require_all(list(check_machine(needs, {"HF_HOME": str(tmp_path)})))

    message = str(caught.value)
    assert message.startswith("this machine cannot run the job: 3 missing: apex: not installed: ")
    assert "set HF_TOKEN" in message
    assert "free space" in message


def test_needs_are_a_list() -> None:
    assert parse_needs(" cuda, te,") == {"cuda", "te"}
    assert parse_needs("") == frozenset()
    with pytest.raises(
        ConfigError, match=r"--needs: got gpu; allowed: driver, torch, cuda, .*hf-token"
    ):
        parse_needs("cuda,gpu")


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", STAGE_CONFIGS)
def test_stage_follows_from_the_keys(stage: str) -> None:
    fields = STAGE_CONFIGS[stage].model_fields
    required = dict.fromkeys(name for name, field in fields.items() if field.is_required())

    assert stage_of(required, "x") == stage
    assert stage_of(dict.fromkeys(fields), "x") == stage


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"key": 1}, r"x: got the keys key, which are those of no stage; give the complete"),
        (["key"], r"got the keys of no mapping"),
        ({"key": 1, "target_uri": 2, "artifacts": 3, "other": 4}, r"those of no stage"),
    ],
)
def test_document_of_no_stage_is_explained(document: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage_of(document, "x")


@pytest.mark.parametrize(
    ("device", "items"),
    [("cuda", {"torch", "driver", "cuda", "nccl", "shm"}), ("auto", {"torch"}), ("cpu", {"torch"})],
)
def test_training_needs_its_device_and_space_for_checkpoints(
    tmp_path: Path, device: str, items: set[str]
) -> None:
    needs = needs_of_document(write_train_document(tmp_path, device), Volumes())

    assert needs.items == items
    assert needs.folders == ((tmp_path / "out", checkpoint_bytes(small_experiment())),)


def test_training_needs_the_libraries_that_it_asks_for(tmp_path: Path) -> None:
    path = write_train_document(tmp_path, "cpu")
    document = yaml.safe_load(path.read_text())
    document["experiment"]["optimizer"]["state_bits"] = 8
    document["experiment"]["acceleration"]["attention"] = "transformer_engine"
    path.write_text(yaml.safe_dump(document))

    assert needs_of_document(path, Volumes()).items == {"torch", "torchao", "te"}


def test_float8_of_transformer_engine_needs_a_gpu_for_it(tmp_path: Path) -> None:
    path = write_train_document(tmp_path, "auto")
    document = yaml.safe_load(path.read_text())
    experiment = document["experiment"]
    experiment["acceleration"]["linear"] = "transformer_engine_float8"
    experiment["video"].update(height=64, width=64)
    experiment["text"]["max_length"] = 16
    path.write_text(yaml.safe_dump(document))

    assert needs_of_document(path, Volumes()).items == {"torch", "driver", "cuda", "te-fp8"}


def test_folders_are_those_of_the_volumes(tmp_path: Path) -> None:
    path = tmp_path / "stage.yaml"
    path.write_text("{key: k, target_uri: 'models://m', artifacts: []}")

    needs = needs_of_document(path, Volumes({"models": tmp_path}))

    assert needs == Needs(frozenset(), ((tmp_path / "m", 0),))
    with pytest.raises(ConfigError, match="volume 'models' is not mounted"):
        needs_of_document(path, Volumes())
