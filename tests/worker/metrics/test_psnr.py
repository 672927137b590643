from __future__ import annotations

import numpy as np
import pytest

from cosmos_worker.metrics.psnr import (
    MAX_PSNR_DB,
    psnr_db,
    score_prediction,
)


def frames(*levels: int) -> np.ndarray:
    return np.stack([np.full((4, 6, 3), level, dtype=np.uint8) for level in levels])


def test_psnr_is_that_of_the_mean_square_over_all_frames() -> None:
    # squared errors 0 and 100, mean 50
    assert psnr_db(frames(10, 20), frames(10, 30)) == pytest.approx(10 * np.log10(255**2 / 50))


def test_psnr_of_equal_frames_is_finite() -> None:
    assert psnr_db(frames(7), frames(7)) == MAX_PSNR_DB


def test_psnr_does_not_wrap_around_in_uint8() -> None:
    assert psnr_db(frames(0), frames(255)) == pytest.approx(0)


def test_score_looks_at_generated_frames_only() -> None:
    truth, generated = frames(50, 60, 70), frames(0, 60, 71)

    score = score_prediction(generated, truth, num_known_frames=1)

    assert score.psnr_db == pytest.approx(10 * np.log10(255**2 / 0.5))
    assert score.copy_psnr_db == pytest.approx(10 * np.log10(255**2 / 250))
    assert score.gain_db == pytest.approx(score.psnr_db - score.copy_psnr_db)


def test_score_copies_the_last_known_frame() -> None:
    score = score_prediction(frames(0, 60, 70), frames(0, 60, 70), num_known_frames=2)

    assert score.copy_psnr_db == pytest.approx(10 * np.log10(255**2 / 100))


@pytest.mark.parametrize("num_known", [0, 2])
def test_score_refuses_nothing_to_compare(num_known: int) -> None:
    with pytest.raises(ValueError, match=f"num_known_frames: got {num_known}; use 1 to 1"):
        score_prediction(frames(1, 2), frames(1, 2), num_known)


def test_psnr_refuses_other_shapes_and_types() -> None:
    with pytest.raises(ValueError, match=r"got shapes \(1, 4, 6, 3\) and \(2, 4, 6, 3\)"):
        psnr_db(frames(1), frames(1, 2))
    with pytest.raises(ValueError, match="got float64"):
        psnr_db(frames(1) / 2, frames(1))
