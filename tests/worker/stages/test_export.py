"""The command ``export``: forms of weights, options, messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from support.training import CORRECTED, SMALL_NET, small_model, with_correction, write_model

from cosmos_worker.cli import main
from cosmos_worker.runtime import outcome
from cosmos_worker.weights.load import read_weight_file


@pytest.fixture
def message_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(outcome.TERMINATION_VARIABLE, str(tmp_path / "termination.json"))
    return tmp_path / "termination.json"


def test_export_writes_a_folder_and_says_so(
    tmp_path: Path, message_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_model(tmp_path / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps({"net": SMALL_NET.model_dump(mode="json")}))
    options = ["--format", "safetensors", "--dtype", "bfloat16", "--max-shard-gib", "0.00005"]

    code = main(["export", "--from", str(source), "--to", str(tmp_path / "out"), *options])

    assert code == 0
    weights = read_weight_file(tmp_path / "out")
    assert weights["net.affline_norm.weight"].dtype == torch.bfloat16
    assert len(list((tmp_path / "out").glob("model-*-of-00002.safetensors"))) == 2
    assert "out files=3 parameters=47136" in capsys.readouterr().err
    message = json.loads(message_file.read_text())
    assert message["reason"] == "Succeeded"
    assert message["result"] == {"folder": str(tmp_path / "out")}


def test_export_merges_corrections_by_the_scale_that_is_given(tmp_path: Path) -> None:
    state = small_model().state_dict()
    corrected, product = with_correction(state)
    torch.save(corrected, tmp_path / "model.pt")
    (tmp_path / "model.json").write_text(json.dumps({"net": SMALL_NET.model_dump(mode="json")}))
    arguments = ["export", "--from", str(tmp_path), "--to", str(tmp_path / "out"), "--format", "pt"]

    assert main(arguments) == 2
    assert main([*arguments, "--lora-scale", "2"]) == 0

    weights = read_weight_file(tmp_path / "out")
    assert weights.keys() == state.keys()
    torch.testing.assert_close(weights[CORRECTED], state[CORRECTED] + 2 * product)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--experiment: "),
        (["--experiment", "video2world"], "experiment: got 'video2world'; did you mean"),
        (["--experiment", "video2world_instruction_push_tiny"], "does not fit the network"),
    ],
)
def test_export_explains_what_it_cannot_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    source = write_model(tmp_path / "model.pt")
    target = tmp_path / "out"

    code = main(["export", "--from", str(source), "--to", str(target), "--format", "pt", *options])

    assert code == 2
    assert message in capsys.readouterr().err
    assert not target.exists()


@pytest.mark.parametrize("size", ["0", "-1", "nan", "inf", "many"])
def test_export_refuses_a_size_that_is_none(capsys: pytest.CaptureFixture[str], size: str) -> None:
    arguments = ["export", "--from", "a", "--to", "b", "--format", "pt", f"--max-shard-gib={size}"]

    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "--max-shard-gib" in capsys.readouterr().err


def test_export_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["export", "--help"])

    assert caught.value.code == 0
    assert "--max-shard-gib" in capsys.readouterr().out
