"""The benchmark of a whole training: shares from the times of its parts."""

from __future__ import annotations

import pytest
from whole_loop import EVERY, PARTS, Clock, build_experiment, shares


def test_shares_are_those_of_an_interval() -> None:
    clock = Clock()
    clock.seconds |= {
        "step": [9.0] + [1.0] * (EVERY - 2) + [3.0],  # the first one warms up
        "data": [0.1] * 2 * EVERY,
        "average": [0.05] * EVERY,
        "checkpoint, begin": [4.0, 0.0],
        "checkpoint, end": [1.0, 50.0],
        "held-out losses": [8.0, 8.0],
    }
    clock.beside_a_save = [False] * (EVERY - 1) + [True]

    found = shares(clock, interval=100)

    whole = 100 + 5 + 2 + 8  # steps; checkpoint; the slow step beside it; held-out losses
    assert found == pytest.approx(
        {
            "forward, backward, update": 75 / whole,
            "data": 20 / whole,
            "average": 5 / whole,
            "checkpoint": 5 / whole,
            "steps slowed down while it is written": 2 / whole,
            "held-out losses": 8 / whole,
        }
    )
    assert sum(found.values()) == pytest.approx(1)


def test_parts_are_methods_that_exist() -> None:
    assert all(callable(getattr(owner, name)) for owner, name in PARTS.values())


def test_training_saves_and_validates_on_the_way() -> None:
    trainer = build_experiment(24).trainer

    assert (trainer.max_steps, trainer.save_every_steps, trainer.validate_every_steps) == (24, 8, 8)
