"""Camera geometry and the draw of a scene: what stands where and what the caption asks for.

Pure geometry: nothing here steps the physics or renders. The scene is drawn so that the first
frame does not tell the instruction: along the chosen axis, every cube could be pushed both ways.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pybullet
from numpy.typing import NDArray

HEIGHT_PX, WIDTH_PX = 128, 160
NUM_FRAMES = 17
FPS = 10
CUBE_HALF_M = 0.0295
FINGER_HALF_M = 0.009
APPROACH_GAP_M = 0.014
ARM_BASE_M = (0.0, 0.66)
ARM_REACH_M = 0.98
FRAME_MARGIN_PX = 3.0
PUSH_RANGE_PX = (34.0, 41.0)

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.06, 0.08),
    "green": (0.05, 0.62, 0.20),
    "blue": (0.08, 0.24, 0.92),
    "yellow": (0.98, 0.86, 0.04),
    "purple": (0.56, 0.10, 0.74),
}
DIRECTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "away": (0.0, 1.0),
    "toward": (0.0, -1.0),
}
OPPOSITE = {"left": "right", "right": "left", "away": "toward", "toward": "away"}
TABLE_TINTS: tuple[tuple[float, float, float], ...] = (
    (0.76, 0.58, 0.42),  # oak
    (0.86, 0.76, 0.61),  # maple
    (0.60, 0.46, 0.36),  # walnut
    (0.57, 0.62, 0.69),  # slate
    (0.60, 0.65, 0.62),  # sage
    (0.76, 0.76, 0.74),  # ash
)

VIEW_MATRIX = pybullet.computeViewMatrix((0.0, -0.46, 0.83), (0.0, 0.012, 0.0), (0.0, 0.0, 1.0))
PROJECTION_MATRIX = pybullet.computeProjectionMatrixFOV(25.5, WIDTH_PX / HEIGHT_PX, 0.25, 2.5)
_CLIP_FROM_WORLD = (
    np.array(PROJECTION_MATRIX).reshape(4, 4).T @ np.array(VIEW_MATRIX).reshape(4, 4).T
)


@dataclass(frozen=True)
class Instruction:
    """Content of one clip: the colours on the table (the pushed one first) and the direction."""

    colours: tuple[str, ...]
    direction: str

    @property
    def caption(self) -> str:
        """The sentence the model is trained on."""
        return f"push the {self.colours[0]} cube {self.direction}"


@dataclass(frozen=True)
class Cube:
    """A cube at rest on the table: colour, centre in metres, heading in radians."""

    colour: str
    x_m: float
    y_m: float
    yaw: float


@dataclass(frozen=True)
class Scene:
    """Everything the simulator needs; `cubes[0]` is the one to push."""

    instruction: Instruction
    cubes: tuple[Cube, ...]
    push_m: float
    table_tint: tuple[float, float, float]
    plank_tones: tuple[float, ...]
    plank_shift_m: float
    rest_xyz: tuple[float, float, float]
    light_xyz: tuple[float, float, float]


def project(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Project world points (N, 3) in metres to picture coordinates (N, 2) in pixels (x, y)."""
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ _CLIP_FROM_WORLD.T
    ndc = homogeneous[:, :2] / homogeneous[:, 3:4]
    return np.stack([(ndc[:, 0] + 1) / 2 * WIDTH_PX, (1 - ndc[:, 1]) / 2 * HEIGHT_PX], axis=1)


def unproject(x_px: float, y_px: float, z_m: float) -> tuple[float, float]:
    """World (x, y) in metres of the picture point that lies at height `z_m`."""
    rows = _CLIP_FROM_WORLD
    ndc = (x_px / WIDTH_PX * 2 - 1, 1 - y_px / HEIGHT_PX * 2)
    matrix = np.array([[rows[i, j] - ndc[i] * rows[3, j] for j in (0, 1)] for i in (0, 1)])
    offset = np.array(
        [
            (ndc[i] * rows[3, 2] - rows[i, 2]) * z_m + ndc[i] * rows[3, 3] - rows[i, 3]
            for i in (0, 1)
        ]
    )
    x_m, y_m = np.linalg.solve(matrix, offset)
    return float(x_m), float(y_m)


def cube_centre_px(x_m: float, y_m: float) -> NDArray[np.float64]:
    """Picture coordinates (x, y) of the centre of a cube that stands at (x_m, y_m)."""
    centre_px: NDArray[np.float64] = project(np.array([[x_m, y_m, CUBE_HALF_M]]))[0]
    return centre_px


def push_length_m(cube: Cube, direction: str, push_px: float) -> float:
    """Distance in metres along the table that moves the cube by `push_px` in the picture."""
    ux, uy = DIRECTIONS[direction]
    start_px = cube_centre_px(cube.x_m, cube.y_m)
    length_m = 0.1
    for _ in range(4):
        end_px = cube_centre_px(cube.x_m + ux * length_m, cube.y_m + uy * length_m)
        length_m *= push_px / float(np.linalg.norm(end_px - start_px))
    return length_m


def _stays_in_frame(x_m: float, y_m: float) -> bool:
    """True if a cube at (x_m, y_m), in any small heading, lies wholly in the picture."""
    half = CUBE_HALF_M * 1.1
    corners = np.array(
        [
            (x_m + i * half, y_m + j * half, z)
            for i in (-1, 1)
            for j in (-1, 1)
            for z in (0, 2 * half)
        ]
    )
    pixels = project(corners)
    limit = np.array([WIDTH_PX, HEIGHT_PX]) - FRAME_MARGIN_PX
    return bool((pixels > FRAME_MARGIN_PX).all() and (pixels < limit).all())


def is_feasible(cubes: tuple[Cube, ...], which: int, direction: str, push_px: float) -> bool:
    """True if cube `which` can be pushed: in the frame, in reach, and without touching another."""
    cube = cubes[which]
    ux, uy = DIRECTIONS[direction]
    length_m = push_length_m(cube, direction, push_px)
    behind_m = CUBE_HALF_M + APPROACH_GAP_M + 2 * FINGER_HALF_M
    hand = (cube.x_m - ux * behind_m, cube.y_m - uy * behind_m)
    goal = (cube.x_m + ux * length_m, cube.y_m + uy * length_m)
    hand_px = project(np.array([[hand[0], hand[1], 0.0]]))[0]
    if not (4 < hand_px[0] < WIDTH_PX - 4 and 4 < hand_px[1] < HEIGHT_PX - 5):
        return False
    if not (_stays_in_frame(cube.x_m, cube.y_m) and _stays_in_frame(*goal)):
        return False
    if math.dist(hand, ARM_BASE_M) > ARM_REACH_M - 0.06:
        return False
    clearance_m = 2 * CUBE_HALF_M * 1.15 + 0.012
    for other in cubes[:which] + cubes[which + 1 :]:
        along = (other.x_m - cube.x_m) * ux + (other.y_m - cube.y_m) * uy
        across = abs((other.x_m - cube.x_m) * uy - (other.y_m - cube.y_m) * ux)
        reaches = -(behind_m + CUBE_HALF_M + 0.02) < along < length_m + clearance_m
        if reaches and across < clearance_m:
            return False
    return True


def _draw_cubes(
    instruction: Instruction, push_px: float, rng: np.random.Generator
) -> tuple[Cube, ...]:
    """Draw cube positions until every cube could be pushed both ways along the axis."""
    ways = (instruction.direction, OPPOSITE[instruction.direction])
    for _ in range(20_000):
        cubes = tuple(
            Cube(
                colour,
                *unproject(float(rng.uniform(14, 146)), float(rng.uniform(30, 112)), CUBE_HALF_M),
                yaw=float(rng.uniform(-0.14, 0.14)),
            )
            for colour in instruction.colours
        )
        if all(is_feasible(cubes, i, way, push_px) for i in range(len(cubes)) for way in ways):
            return cubes
    raise RuntimeError(f"{instruction.caption}: no layout of {len(instruction.colours)} cubes fits")


def draw_scene(instruction: Instruction, rng: np.random.Generator) -> Scene:
    """Draw positions, table, light and rest pose for one instruction."""
    push_px = float(rng.uniform(*PUSH_RANGE_PX))
    cubes = _draw_cubes(instruction, push_px, rng)
    tint = np.array(TABLE_TINTS[int(rng.integers(len(TABLE_TINTS)))])
    tint = np.clip(tint * rng.uniform(0.93, 1.05) * rng.uniform(0.98, 1.02, 3), 0, 0.95)
    return Scene(
        instruction=instruction,
        cubes=cubes,
        push_m=push_length_m(cubes[0], instruction.direction, push_px),
        table_tint=(float(tint[0]), float(tint[1]), float(tint[2])),
        plank_tones=tuple(float(tone) for tone in rng.uniform(0.90, 1.06, 10)),
        plank_shift_m=float(rng.uniform(-0.04, 0.04)),
        rest_xyz=(
            float(rng.uniform(-0.035, 0.035)),
            float(rng.uniform(0.135, 0.16)),
            float(rng.uniform(0.095, 0.12)),
        ),
        light_xyz=(float(rng.uniform(-0.5, 0.1)), float(rng.uniform(-0.8, -0.5)), 1.4),
    )
