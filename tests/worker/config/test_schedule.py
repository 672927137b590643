from __future__ import annotations

from pathlib import Path

import pytest
from support.vectors import load_vector, under

from cosmos_worker.config.training import (
    OptimizerConfig,
    learning_rate,
    warmup_steps,
)
from cosmos_worker.train.ema import ema_beta, ema_exponent


def test_schedule_and_average_match_reference(scalars_vector_path: Path) -> None:
    values, _ = load_vector(scalars_vector_path)
    reference = OptimizerConfig(warmup_steps=2500)

    for step, expected in under(values, "lr").items():
        assert learning_rate(reference, 100_000, int(step)) == pytest.approx(expected, rel=1e-12)
    for rate, expected in under(values, "ema_exp").items():
        assert ema_exponent(float(rate)) == pytest.approx(expected, rel=1e-12)
    for step, expected in under(values, "ema_beta_rate0p1").items():
        assert ema_beta(int(step), 0.1) == pytest.approx(expected, rel=1e-12)


def test_warmup_is_short_enough_for_the_run() -> None:
    assert warmup_steps(OptimizerConfig(), 2000) == 100
    assert warmup_steps(OptimizerConfig(), 1_000_000) == 2500
    assert warmup_steps(OptimizerConfig(warmup_steps=7), 2000) == 7


def test_learning_rate_decays_linearly_to_its_final_factor() -> None:
    config = OptimizerConfig(learning_rate=1.0, warmup_steps=10, final_factor=0.1, decay_start=0.5)

    rates = [learning_rate(config, 100, step) for step in (9, 10, 50, 75, 100, 120)]

    assert rates == pytest.approx([0.9, 1.0, 1.0, 0.55, 0.1, 0.1], abs=1e-6)
