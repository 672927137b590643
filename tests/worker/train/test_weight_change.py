"""Distance that a training moved the weights: measured before rounding, given in results, model.json and report."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.reports import write_finished_job
from support.training import (
    SMALL_NET,
    run_path,
    small_experiment,
    small_model,
    train_config,
    write_model,
    write_training_inputs,
)

from cosmos_worker.config.stages import PublishConfig
from cosmos_worker.config.training import (
    LoraConfig,
    OptimizerConfig,
)
from cosmos_worker.stages import publish, report
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import (
    EXPORT_FOLDER,
    Volumes,
)
from cosmos_worker.weights.load import read_weight_file
from cosmos_worker.weights.weight_change import (
    is_unchanged,
    measure_change,
    read_change,
    write_change,
)

KINDS = {
    "adaln": "net.blocks.block1.blocks.1.adaLN_modulation.1.weight",
    "self-attention": "net.blocks.block0.blocks.0.block.attn.to_q.0.weight",
    "cross-attention": "net.blocks.block1.blocks.1.block.attn.to_out.0.weight",
    "mlp": "net.blocks.block0.blocks.2.block.layer2.weight",
    "embedders": "net.x_embedder.proj.1.weight",
    "final layer": "net.final_layer.linear.weight",
    "uncertainty head": "logvar.1.weight",
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_layer_has_its_own_change(kind: str) -> None:
    base = small_model().state_dict()
    moved = dict(base)
    moved[KINDS[kind]] = base[KINDS[kind]] + 0.01

    change = measure_change(moved, base, {})

    others = {name: value for name, value in change.items() if name not in (kind, "network")}
    assert set(change) == {"network", *KINDS}
    assert set(others.values()) == {0.0}
    assert change[kind] > 0
    assert (change["network"] > 0) == (kind != "uncertainty head")


def test_change_is_the_norm_of_the_difference_by_that_of_the_base() -> None:
    base = small_model().state_dict()
    moved = {name: value * 1.25 for name, value in base.items()}

    change = measure_change(moved, base, {})

    assert all(value == pytest.approx(0.25, rel=1e-4) for value in change.values())


def test_rounding_of_a_frozen_base_is_no_change() -> None:
    base = small_model().state_dict()
    frozen = {name: value.bfloat16() for name, value in base.items()}

    held = {name: value.dtype for name, value in frozen.items()}
    assert measure_change(frozen, base, held)["network"] == 0
    assert measure_change(frozen, base, {})["network"] > 1e-4


def train(root: Path, rate: float, lora: LoraConfig | None = None) -> tuple[Path, dict[str, Any]]:
    """A short training of a model in root, and its result."""
    write_training_inputs(root)
    write_model(root / "model.pt")
    experiment = small_experiment(lora=lora, max_steps=2).model_copy(
        update={"optimizer": OptimizerConfig(learning_rate=rate, warmup_steps=0)}
    )
    result = train_stage.run(train_config(root, experiment), Volumes())
    return run_path(root / "out"), result


def publish_it(run: Path, target: Path) -> dict[str, Any]:
    config = {"key": "k", "job": "arm", "name": "arm", "net": SMALL_NET, "run_uri": str(run)}
    return publish.run(PublishConfig(target_uri=str(target), **config), Volumes())


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, alpha=4, targets=("q",))])
def test_training_tells_its_change_before_rounding(tmp_path: Path, lora: LoraConfig | None) -> None:
    run, result = train(tmp_path, 1e-6, lora)

    change = result["change"]
    assert read_change(run, 2) == change
    for weights in ("reg", "ema"):
        exported = read_weight_file(run / EXPORT_FOLDER / f"iter_000000002_{weights}_model.pt")
        of_file = measure_change(exported, small_model().state_dict(), {})
        if weights == "ema":  # float32, so the file has it all
            assert change[weights] == pytest.approx(of_file, rel=1e-3, abs=1e-9)
        else:  # bfloat16, whose rounding is larger than what was learned
            assert 0 < change[weights]["network"] < 1e-4 < of_file["network"]
    if lora is not None:
        assert change["reg"]["mlp"] == 0 < change["reg"]["self-attention"]
    target = tmp_path / "arm"
    assert publish_it(run, target)["change"] == change["ema"]
    assert json.loads((target / "model.json").read_text())["change"] == change["ema"]


def test_training_that_changed_nothing_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="cosmos_worker"):
        run, result = train(tmp_path, 1e-30)
        assert is_unchanged(result["change"])
        assert "nothing was trained; look at optimizer.learning_rate" in caplog.text
        caplog.clear()
        publish_it(run, tmp_path / "arm")
    assert "the network equals the one that the training began with: nothing was" in caplog.text


def test_fresh_weights_have_no_change(tmp_path: Path) -> None:
    write_training_inputs(tmp_path)
    experiment = small_experiment(init="random", max_steps=1)
    experiment = experiment.model_copy(
        update={"net": SMALL_NET.model_copy(update={"extra_pos_emb": "none"})}
    )

    result = train_stage.run(train_config(tmp_path, experiment), Volumes())

    assert "change" not in result


@pytest.mark.parametrize("moved", [0.0, 0.0123])
def test_report_shows_the_change(tmp_path: Path, moved: float) -> None:
    job = write_finished_job(tmp_path)
    change = {"network": moved, "mlp": moved}
    write_change(Path(job.run_uri), 2, {"reg": change})

    page = Path(report.run(job, Volumes())["report"]).read_text()

    assert "Change of the weights" in page
    assert ("Nothing was trained:" in page) == (moved == 0)
    assert ("1.23 %" in page) == (moved > 0)


def test_base_that_is_gone_does_not_end_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        train_stage, "read_weight_file", lambda *_, **__: read_weight_file(tmp_path / "gone")
    )
    with caplog.at_level(logging.WARNING, logger="cosmos_worker"):
        run, result = train(tmp_path, 1e-4)

    assert "change" not in result
    assert "change of the weights at step 2 is not known: " in caplog.text
    assert torch.load(run / EXPORT_FOLDER / "iter_000000002_ema_model.pt", weights_only=True)
