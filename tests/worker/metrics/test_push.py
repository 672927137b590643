"""Tests of the scorer of instruction following, on drawn frames and on recorded clips."""

from __future__ import annotations

import json
import math
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from cosmos_worker.metrics.push import (
    COLOURS,
    PushInstruction,
    parse_instruction,
    score_push,
    track_centroid,
)

DATASET = Path(__file__).parents[3] / "examples" / "pushing" / "dataset"
RGB = {
    "red": (219, 15, 20),
    "green": (13, 158, 51),
    "blue": (20, 61, 235),
    "yellow": (250, 219, 10),
    "purple": (143, 26, 189),
}
STEPS = {"left": (-2, 0), "right": (2, 0), "away": (0, -2), "toward": (0, 2)}
OPPOSITE = {"left": "right", "right": "left", "away": "toward", "toward": "away"}


def draw_clip(
    *cubes: tuple[str, tuple[int, int], tuple[int, int]], num_frames: int = 17
) -> NDArray[np.uint8]:
    """Draw 18 px cubes (colour, top left (x, y), step (dx, dy)) on an oak table."""
    frames = np.full((num_frames, 128, 160, 3), (190, 145, 105), dtype=np.uint8)
    for colour, (x, y), (dx, dy) in cubes:
        for frame in range(num_frames):
            top, left = y + dy * frame, x + dx * frame
            frames[frame, top : top + 18, left : left + 18] = RGB[colour]
    return frames


def read_clip(path: Path) -> NDArray[np.uint8]:
    """Decode a whole video."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def read_prompts(name: str) -> list[dict[str, str]]:
    """Read a prompt list of the committed data set."""
    return [json.loads(line) for line in (DATASET / name).read_text().splitlines()]


def test_parse_instruction_reads_colour_and_direction() -> None:
    assert parse_instruction("Push the red cube away.") == PushInstruction("red", "away")


@pytest.mark.parametrize("caption", ["", "push the cube left", "push the pink cube left", "pour"])
def test_parse_instruction_is_none_for_other_sentences(caption: str) -> None:
    assert parse_instruction(caption) is None


@pytest.mark.parametrize("colour", COLOURS)
def test_track_centroid_follows_the_cube_of_its_colour_only(colour: str) -> None:
    clip = draw_clip((colour, (40, 50), (2, 0)))

    centroids, counts = track_centroid(clip, colour)

    np.testing.assert_allclose(centroids[[0, 16]], [(48.5, 58.5), (80.5, 58.5)])
    assert (counts == 18 * 18).all()
    for other in set(COLOURS) - {colour}:
        assert np.isnan(track_centroid(clip, other)[0]).all()


def test_track_centroid_ignores_stray_pixels_elsewhere() -> None:
    clip = draw_clip(("red", (40, 50), (0, 0)))
    clip[:, 5:9, 120:124] = RGB["red"]

    centroids, _ = track_centroid(clip, "red")

    np.testing.assert_allclose(centroids, np.full((17, 2), (48.5, 58.5)))


@pytest.mark.parametrize("direction", STEPS)
def test_score_push_follows_only_the_direction_that_is_shown(direction: str) -> None:
    clip = draw_clip(("blue", (70, 50), STEPS[direction]))

    assert score_push(clip, f"push the blue cube {direction}").follows
    for other in set(STEPS) - {direction}:
        score = score_push(clip, f"push the blue cube {other}")
        assert (score.direction, score.follows) == (direction, False)


def test_score_push_fails_when_another_cube_moves_farther() -> None:
    clip = draw_clip(("red", (20, 20), (1, 0)), ("green", (20, 80), (3, 0)))

    score = score_push(clip, "push the red cube right")

    assert score.direction == "right"
    assert not score.follows
    assert score.other_displacements_px == {"green": pytest.approx(45.0)}


def test_score_push_is_none_when_the_cube_barely_moves_or_vanishes() -> None:
    still = draw_clip(("purple", (60, 60), (0, 0)))
    vanishing = still.copy()
    vanishing[10:] = (190, 145, 105)

    assert score_push(still, "push the purple cube left").direction == "none"
    lost = score_push(vanishing, "push the purple cube left")
    assert (lost.direction, lost.follows) == ("none", False)
    assert math.isnan(lost.displacement_px[0])


def test_score_push_names_what_is_wrong() -> None:
    clip = draw_clip(("red", (20, 20), (1, 0)))

    with pytest.raises(ValueError, match=r"caption: got 'pour'; write 'push the"):
        score_push(clip, "pour")
    with pytest.raises(ValueError, match=r"frames: got float64 .*; pass uint8"):
        score_push(clip.astype(np.float64), "push the red cube left")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="colour: got 'pink'; use one of red"):
        track_centroid(clip, "pink")


@pytest.mark.parametrize("name", ["test_one", "test_two"])
def test_score_push_agrees_with_recorded_clips(name: str) -> None:
    recorded, swapped = read_prompts(f"{name}.jsonl"), read_prompts(f"{name}_swapped.jsonl")

    for right, wrong in list(zip(recorded, swapped, strict=True))[:8]:
        frames = read_clip(DATASET / right["visual_input"])
        assert frames.shape == (17, 128, 160, 3)
        assert score_push(frames, right["prompt"]).follows
        assert not score_push(frames, wrong["prompt"]).follows
