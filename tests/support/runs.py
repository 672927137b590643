"""Results of trainings, comparisons of two, and interruptions of one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cosmos_worker.runtime.signals import StopSignal
from cosmos_worker.stages import train as train_stage
from cosmos_worker.train.checkpoint import SavedState, list_states, read_progress
from cosmos_worker.train.export import list_exports
from cosmos_worker.train.trainer import Trainer
from support.training import run_path

COMPARED = ("loss", "edm_loss", "grad_norm", "validation_loss")
"""Figures of metrics.jsonl that do not depend on the machine."""


def weights(target: Path, kind: str = "ema") -> dict[str, Tensor]:
    """The last exported weights of a run; kind is reg or ema."""
    return torch.load(list(list_exports(run_path(target), kind).values())[-1], weights_only=True)


def latest_state(run: Path) -> SavedState | None:
    """The newest complete checkpoint in the folder of a run; None if there is none."""
    states = list_states(run)
    return SavedState(states[-1][1], read_progress(states[-1][1])) if states else None


def metrics(target: Path) -> list[dict[str, Any]]:
    """All lines of metrics.jsonl."""
    text = (run_path(target) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def losses(target: Path) -> list[float]:
    """The loss of every step."""
    return [line["loss"] for line in metrics(target) if "loss" in line]


def assert_same_bits(left: Path, right: Path, kinds: Sequence[str] = ("reg", "ema")) -> None:
    """Both runs ended with the same weights, to the last bit."""
    for kind in kinds:
        one, other = weights(left, kind), weights(right, kind)
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert torch.equal(value, other[key]), (kind, key)


def assert_same_but_for_rounding(left: Path, right: Path) -> None:
    """Both runs had the same figures and averages, up to the rounding of sums in another order."""
    expected = weights(left)
    for key, value in weights(right).items():
        torch.testing.assert_close(value, expected[key], atol=2e-6, rtol=1e-5, msg=key)
    for one, other in zip(metrics(left), metrics(right), strict=True):
        assert {k: v for k, v in other.items() if k in COMPARED} == pytest.approx(
            {k: v for k, v in one.items() if k in COMPARED}, rel=2e-5
        )


def stop_after(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliver a stop request while the given step runs."""
    original, stop = Trainer.step, StopSignal()

    def step_then_stop(trainer: Trainer) -> object:
        values = original(trainer)
        stop.requested = stop.requested or trainer.state.done_steps == step
        return values

    monkeypatch.setattr(Trainer, "step", step_then_stop)
    monkeypatch.setattr(train_stage, "StopSignal", lambda: stop)


def forget_after(step: int, target: Path) -> None:
    """Remove checkpoints after a step, as if the run had been killed before they were complete."""
    (target / "complete-k.json").unlink()
    for saved, folder in list_states(run_path(target)):
        if saved > step:
            (folder / "complete.json").unlink()
