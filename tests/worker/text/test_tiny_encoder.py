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
PAIRS = list(itertools.product(range(5), range(4)))


@pytest.fixture(scope="module")
def states() -> list[np.ndarray]:
    captions = [f"push the {COLOURS[c]} cube {DIRECTIONS[d]}" for c, d in PAIRS]
    return [state.astype(np.float64) for state in T5Encoder(FOLDER).encode(captions, 32)]


def test_tiny_encoder_is_small_and_holds_no_decoder() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_000_000


def test_tiny_encoder_gives_vectors_of_unit_size(states: list[np.ndarray]) -> None:
    for state in states:
        assert state.shape[1] == 128
        np.testing.assert_allclose(np.sqrt((state**2).mean(1)), 1.0, atol=0.01)


@pytest.mark.parametrize("position", [0, 5, -1])
@pytest.mark.parametrize("slot", [0, 1])
def test_tiny_encoder_tells_unseen_combinations_in_any_token(
    states: list[np.ndarray], position: int, slot: int
) -> None:
    """Nearest class mean, from half of the combinations, on the other half."""
    vectors = np.stack([state[position] for state in states])
    labels = np.array([pair[slot] for pair in PAIRS])
    seen = np.array([(c + d) % 2 == 0 for c, d in PAIRS])

    means = np.stack([vectors[seen & (labels == k)].mean(0) for k in range(labels.max() + 1)])
    distances = np.linalg.norm(vectors[~seen, None] - means[None], axis=2)

    assert (distances.argmin(1) == labels[~seen]).all()
