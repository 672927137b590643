"""Low-rank adaptation: parameters that are trained, saved and exported."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import assert_same_bits, stop_after, weights
from support.training import (
    CORRECTED,
    run_path,
    small_experiment,
    small_model,
    train_config,
    with_correction,
    write_model,
    write_training_inputs,
)

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import LoraConfig
from cosmos_worker.errors import CheckpointError, StopRequested
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.stages import train as train_stage
from cosmos_worker.stages.train import build_model
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.train import saver
from cosmos_worker.train.checkpoint import list_states
from cosmos_worker.train.export import list_exports
from cosmos_worker.weights.load import (
    load_model,
    read_weight_file,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("inputs")
    write_training_inputs(root)
    write_model(root / "model.pt")
    return root


def experiment(**lora: object) -> Experiment:
    return small_experiment(lora=LoraConfig(rank=2, alpha=4, **lora), max_steps=4)


def test_fresh_correction_changes_nothing(inputs: Path) -> None:
    chosen = experiment(targets=("q", "k", "v", "out", "mlp"))
    adapted = build_model(chosen, inputs / "model.pt", ProcessGroup())
    plain = load_model(inputs / "model.pt", chosen.net)
    generator = torch.Generator().manual_seed(3)
    arguments = (
        torch.randn(1, 16, 3, 4, 4, generator=generator),
        torch.tensor([0.3]),
        torch.randn(1, 5, 16, generator=generator),
        torch.zeros(1, 1, 3, 4, 4),
        torch.tensor([10.0]),
    )

    for left, right in zip(adapted(*arguments), plain(*arguments), strict=True):
        assert torch.equal(left, right)


def test_corrections_of_the_base_are_merged_by_the_scale_that_is_given(
    inputs: Path, tmp_path: Path
) -> None:
    corrected, product = with_correction(small_model().state_dict())
    torch.save(corrected, inputs / "corrected.pt")
    config = train_config(inputs, small_experiment(max_steps=1), tmp_path).model_copy(
        update={"model_uri": str(inputs / "corrected.pt")}
    )

    with pytest.raises(CheckpointError, match=r"not their scale; .*spec\.model\.loraScale"):
        train_stage.run(config, Volumes())
    train_stage.run(config.model_copy(update={"model_lora_scale": 2.0}), Volumes())

    moved = weights(tmp_path, "reg")[CORRECTED].float() - small_model().state_dict()[CORRECTED]
    torch.testing.assert_close(moved, 2 * product, rtol=0, atol=1e-2)  # bfloat16, and one step


def test_only_the_chosen_layers_learn(inputs: Path) -> None:
    model = build_model(experiment(targets=("q",)), inputs / "model.pt", ProcessGroup())

    learning = {name for name, one in model.named_parameters() if one.requires_grad}

    layers = [f"net.blocks.block{i}.blocks.{j}.block.attn.to_q.0" for i in (0, 1) for j in (0, 1)]
    own = {f"{layer}.lora_{which}" for layer in layers for which in "AB"}
    assert learning == own | {"logvar.1.weight"}


def test_frozen_weights_are_computed_with_in_the_type_of_the_products(inputs: Path) -> None:
    chosen = experiment()
    diffusion = chosen.diffusion.model_copy(update={"compute_dtype": "bfloat16"})
    model = build_model(
        chosen.model_copy(update={"diffusion": diffusion}), inputs / "model.pt", ProcessGroup()
    )

    types = {name: one.dtype for name, one in model.named_parameters()}
    assert types["net.blocks.block0.blocks.2.block.layer1.weight"] == torch.bfloat16
    assert types["net.blocks.block0.blocks.0.block.attn.to_q.0.lora_A"] == torch.float32
    assert types["net.x_embedder.proj.1.weight"] == torch.float32


def test_exported_weights_contain_the_correction(inputs: Path, tmp_path: Path) -> None:
    chosen = experiment()
    train_stage.run(train_config(inputs, chosen, tmp_path), Volumes())

    before = read_weight_file(inputs / "model.pt")
    after = weights(tmp_path, "ema")
    assert after.keys() == before.keys()
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {
        f"net.blocks.block{i}.blocks.{j}.block.attn.to_{which}.0.weight"
        for i in (0, 1)
        for j in (0, 1)
        for which in "qv"
    } | {"logvar.1.weight"}
    delta = after["net.blocks.block0.blocks.0.block.attn.to_q.0.weight"]
    delta = delta - before["net.blocks.block0.blocks.0.block.attn.to_q.0.weight"]
    assert torch.linalg.matrix_rank(delta, atol=1e-6) == 2
    load_model(list_exports(run_path(tmp_path), "reg")[4], chosen.net)


def test_training_goes_on_while_corrections_are_merged(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []
    original = saver.merge_lora

    def merge_and_note(*arguments: Any) -> dict[str, torch.Tensor]:
        threads.append(threading.current_thread().name)
        return original(*arguments)

    monkeypatch.setattr(saver, "merge_lora", merge_and_note)
    train_stage.run(train_config(inputs, experiment(), tmp_path), Volumes())

    assert threads == ["saver_0"] * 4, "weights and average of two checkpoints"


def test_checkpoints_hold_what_is_trained_and_continue_in_the_same_bits(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = small_experiment(max_steps=4)
    train_stage.run(train_config(inputs, full, tmp_path / "full"), Volumes())
    train_stage.run(train_config(inputs, experiment(), tmp_path / "whole"), Volumes())
    config = train_config(inputs, experiment(), tmp_path / "broken")
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StopRequested):
            train_stage.run(config, Volumes())
    train_stage.run(config, Volumes())

    assert_same_bits(tmp_path / "whole", tmp_path / "broken")
    sizes = {
        name: sum(
            path.stat().st_size
            for path in list_states(run_path(tmp_path / name))[-1][1].rglob("*.distcp")
        )
        for name in ("full", "whole")
    }
    assert sizes["whole"] < sizes["full"] / 3
