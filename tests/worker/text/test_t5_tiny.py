"""The committed text encoder of the quickstart, loaded as any other."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from cosmos_worker.text.t5 import T5Encoder

FOLDER = Path(__file__).parents[3] / "examples" / "pushing" / "checkpoints" / "Cosmos-Tiny-T5"
COLOURS = ("red", "green", "blue", "yellow", "purple")
DIRECTIONS = ("left", "right", "away", "toward")


@pytest.fixture(scope="module")
def states() -> list[np.ndarray]:
    captions = [f"push the {c} cube {d}" for c, d in itertools.product(COLOURS, DIRECTIONS)]
    return [state.astype(np.float64) for state in T5Encoder(FOLDER).encode(captions, 32)]


def test_tiny_encoder_is_small_and_holds_no_decoder() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_000_000


def test_tiny_encoder_gives_vectors_of_unit_size(states: list[np.ndarray]) -> None:
    for state in states:
        assert state.shape[1] == 128
        np.testing.assert_allclose(np.sqrt((state**2).mean(1)), 1.0, atol=0.01)


@pytest.mark.parametrize("position", [0, 5, -1])
def test_tiny_encoder_puts_colour_and_direction_into_every_token(
    states: list[np.ndarray], position: int
) -> None:
    """A token that is the same byte in all captions differs by what the captions say, additively."""
    vectors_CDK = np.stack([state[position] for state in states]).reshape(5, 4, 128)
    delta_CDK = vectors_CDK - vectors_CDK.mean((0, 1))

    colour_CK, direction_DK = delta_CDK.mean(1), delta_CDK.mean(0)

    spread = (delta_CDK**2).mean()
    assert np.sqrt(spread) > 0.5  # of vectors with a root mean square of 1
    assert (colour_CK**2).mean() > 0.2 * spread
    assert (direction_DK**2).mean() > 0.2 * spread
    assert (colour_CK**2).mean() + (direction_DK**2).mean() > 0.9 * spread
