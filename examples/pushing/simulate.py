"""PyBullet scene: a plank table, cubes, and a thin-handed arm that pushes by contact.

Knows nothing about files or data sets. The arm has five position-controlled joints (yaw, shoulder,
elbow, wrist, hand yaw) with closed-form inverse kinematics; cubes move only because they are hit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import layout
import numpy as np
import pybullet as bullet
from numpy.typing import NDArray

Vector = tuple[float, float, float]

SUBSTEPS = 24
SUPERSAMPLE = 2
SHOULDER_HEIGHT_M = 0.26
UPPER_ARM_M = FOREARM_M = 0.52
HAND_M = 0.155  # wrist axis to finger tip
HOVER_M, PUSH_M = 0.085, 0.010  # height of the finger tip
WHITE, GREY, ORANGE, DARK = (
    (0.93, 0.93, 0.95),
    (0.62, 0.64, 0.68),
    (0.93, 0.42, 0.06),
    (0.16, 0.17, 0.19),
)
JOINTS = (0, 1, 2, 3, 4)
HAND_LINK = 4


@dataclass(frozen=True)
class Clip:
    """One simulated clip and the simulator's truth about it.

    Attributes:
        frames: (17, 128, 160, 3) uint8.
        hand_poses: (17, 6), x y z roll pitch yaw of the finger tip, metres and radians.
        moved_px: (num_cubes, 2) displacement of each cube in the picture, x to the right, y down.
        least_visible: (num_cubes,) smallest visible share of each cube over the clip.
    """

    frames: NDArray[np.uint8]
    hand_poses: NDArray[np.float64]
    moved_px: NDArray[np.float64]
    least_visible: NDArray[np.float64]


def solve_joints(tip_xyz: NDArray[np.float64]) -> list[float]:
    """Joint angles that put the finger tip at `tip_xyz` with the hand vertical.

    Raises:
        ValueError: if the point is out of reach.
    """
    dx, dy = tip_xyz[0] - layout.ARM_BASE_M[0], tip_xyz[1] - layout.ARM_BASE_M[1]
    yaw = math.atan2(dx, -dy)
    radius, rise = math.hypot(dx, dy), tip_xyz[2] + HAND_M - SHOULDER_HEIGHT_M
    distance = math.hypot(radius, rise)
    if distance >= UPPER_ARM_M + FOREARM_M:
        raise ValueError(
            f"tip {tip_xyz.round(3).tolist()} is {distance:.3f} m away; reach is 1.04 m"
        )
    bend = math.acos(distance / (UPPER_ARM_M + FOREARM_M))  # both links have the same length
    elevation = math.atan2(rise, radius)
    return [yaw, -(elevation + bend), 2 * bend, elevation - bend, -yaw]


def _ease(value: float) -> float:
    """Smoothstep of a value clipped to [0, 1]."""
    value = min(max(value, 0.0), 1.0)
    return value * value * (3 - 2 * value)


def tip_target(scene: layout.Scene, time_frames: float) -> NDArray[np.float64]:
    """Wanted finger tip at a time in frames: fly over (0-4), go down (3-5.2), push (5.2-15.6)."""
    cube = scene.cubes[0]
    direction = np.array(layout.DIRECTIONS[scene.instruction.direction])
    gap_m = layout.CUBE_HALF_M * 1.06 + layout.FINGER_HALF_M + layout.APPROACH_GAP_M
    start = np.array([cube.x_m, cube.y_m]) - direction * gap_m
    fly, down = _ease(time_frames / 4.0), _ease((time_frames - 3.0) / 2.2)
    pushed = min(max((time_frames - 5.2) / 10.4, 0.0), 1.0)
    travel_m = (0.7 * pushed + 0.3 * _ease(pushed)) * (scene.push_m + layout.APPROACH_GAP_M)
    rest = np.array(scene.rest_xyz)
    xy = rest[:2] + (start - rest[:2]) * fly + direction * travel_m
    height_m = (rest[2] + (HOVER_M - rest[2]) * fly) * (1 - down) + PUSH_M * down
    return np.array([xy[0], xy[1], height_m])


class Simulator:
    """One headless PyBullet client that is emptied and refilled for every clip."""

    def __init__(self) -> None:
        """Connect; the client lives as long as the process."""
        self._client: int = bullet.connect(bullet.DIRECT)

    def run(self, scene: layout.Scene) -> Clip:
        """Simulate and render one scene."""
        bullet.resetSimulation(physicsClientId=self._client)
        bullet.setGravity(0, 0, -9.81, physicsClientId=self._client)
        bullet.setTimeStep(1 / (layout.FPS * SUBSTEPS), physicsClientId=self._client)
        self._build_table(scene)
        shade = [0.66 * tone for tone in scene.table_tint]
        cubes = [self._build_cube(cube) for cube in scene.cubes]
        shadows = [self._paint_shadow(layout.CUBE_HALF_M * 1.08, shade) for _ in cubes]
        shadows.append(self._paint_shadow(0.012, shade))
        arm = self._build_arm()
        for joint, angle in zip(JOINTS, solve_joints(np.array(scene.rest_xyz)), strict=True):
            bullet.resetJointState(arm, joint, angle, physicsClientId=self._client)
        starts = [self._centre_px(cube) for cube in cubes]
        frames, poses, visible = [], [], []
        for frame in range(layout.NUM_FRAMES):
            for substep in range(SUBSTEPS if frame else 0):
                self._step(arm, tip_target(scene, frame - 1 + (substep + 1) / SUBSTEPS))
            pose = self._hand_pose(arm)
            self._move_shadows(shadows, cubes, pose, scene)
            picture, labels = self._render(scene)
            frames.append(picture)
            poses.append(pose)
            visible.append([int((labels == cube).sum()) for cube in cubes])
        seen = np.array(visible, dtype=np.float64)
        full = np.maximum(seen.max(axis=0), 1.0)
        moved = [self._centre_px(cube) - start for cube, start in zip(cubes, starts, strict=True)]
        return Clip(np.stack(frames), np.array(poses), np.array(moved), seen.min(axis=0) / full)

    def _box(self, half: Vector, rgb: Sequence[float], at: Vector = (0, 0, 0)) -> int:
        """A visual box; `at` shifts it in its link."""
        shape: int = bullet.createVisualShape(
            bullet.GEOM_BOX,
            halfExtents=half,
            rgbaColor=[*rgb, 1],
            specularColor=[0.08, 0.08, 0.08],
            visualFramePosition=at,
            physicsClientId=self._client,
        )
        return shape

    def _build_table(self, scene: layout.Scene) -> None:
        """One static collision box (drawn out of sight) under separately tinted planks."""
        ground = bullet.createCollisionShape(
            bullet.GEOM_BOX, halfExtents=(1, 1, 0.05), physicsClientId=self._client
        )
        hidden = self._box((0.001, 0.001, 0.001), DARK, (0, 0, -0.5))
        table = bullet.createMultiBody(
            0, ground, hidden, basePosition=(0, 0, -0.05), physicsClientId=self._client
        )
        bullet.changeDynamics(table, -1, lateralFriction=0.7, physicsClientId=self._client)
        pitch_m = 0.078
        for row, tone in enumerate(scene.plank_tones):
            y_m = (row - 4.5) * pitch_m + scene.plank_shift_m
            rgb = [min(tone * channel, 1.0) for channel in scene.table_tint]
            plank = self._box((0.42, pitch_m / 2 - 0.0011, 0.002), rgb)
            bullet.createMultiBody(
                0, -1, plank, basePosition=(0, y_m, -0.002), physicsClientId=self._client
            )

    def _build_cube(self, cube: layout.Cube) -> int:
        """A free rigid cube."""
        half = (layout.CUBE_HALF_M,) * 3
        solid = bullet.createCollisionShape(
            bullet.GEOM_BOX, halfExtents=half, physicsClientId=self._client
        )
        body: int = bullet.createMultiBody(
            0.12,
            solid,
            self._box(half, layout.COLOURS[cube.colour]),
            basePosition=(cube.x_m, cube.y_m, layout.CUBE_HALF_M),
            baseOrientation=bullet.getQuaternionFromEuler((0, 0, cube.yaw)),
            physicsClientId=self._client,
        )
        bullet.changeDynamics(body, -1, lateralFriction=0.6, physicsClientId=self._client)
        return body

    def _paint_shadow(self, half_m: float, rgb: list[float]) -> int:
        """A flat patch in the darkened table colour: a contact shadow that costs nothing."""
        patch = self._box((half_m, half_m, 0.0002), rgb)
        body: int = bullet.createMultiBody(0, -1, patch, physicsClientId=self._client)
        return body

    def _build_arm(self) -> int:
        """Yaw, upper arm, forearm, wrist, hand (joints 0-4), then fixed trim."""
        upper = self._box((0.026, UPPER_ARM_M / 2, 0.022), WHITE, (0, -UPPER_ARM_M / 2, 0))
        forearm = self._box((0.0155, 0.235, 0.014), WHITE, (0, -0.25, 0))
        cuff = self._box((0.0165, 0.012, 0.015), ORANGE, (0, -0.44, 0))
        wrist = bullet.createVisualShape(
            bullet.GEOM_CYLINDER,
            radius=0.0135,
            length=0.027,
            rgbaColor=[*GREY, 1],
            visualFrameOrientation=bullet.getQuaternionFromEuler((0, math.pi / 2, 0)),
            physicsClientId=self._client,
        )
        palm = self._box((0.0105, 0.0105, 0.02), ORANGE, (0, 0, -0.034))
        finger_half = (layout.FINGER_HALF_M, layout.FINGER_HALF_M, 0.052)
        finger = self._box(finger_half, DARK, (0, 0, -HAND_M + 0.052))
        solid = bullet.createCollisionShape(
            bullet.GEOM_BOX,
            halfExtents=finger_half,
            collisionFramePosition=(0, 0, -HAND_M + 0.052),
            physicsClientId=self._client,
        )
        links = [  # visual, collision, position in the parent, parent, joint axis (None: fixed)
            (-1, -1, (0, 0, SHOULDER_HEIGHT_M), 0, (0, 0, 1)),
            (upper, -1, (0, 0, 0), 1, (1, 0, 0)),
            (forearm, -1, (0, -UPPER_ARM_M, 0), 2, (1, 0, 0)),
            (wrist, -1, (0, -FOREARM_M, 0), 3, (1, 0, 0)),
            (finger, solid, (0, 0, 0), 4, (0, 0, 1)),
            (palm, -1, (0, 0, 0), 5, None),
            (cuff, -1, (0, 0, 0), 3, None),
        ]
        return self._assemble(links)

    def _assemble(self, links: list[tuple[Any, ...]]) -> int:
        """Make a fixed-base multi-body out of (visual, collision, position, parent, axis)."""
        count = len(links)
        arm: int = bullet.createMultiBody(
            0,
            -1,
            -1,
            basePosition=(*layout.ARM_BASE_M, 0),
            linkMasses=[0.2] * count,
            linkVisualShapeIndices=[link[0] for link in links],
            linkCollisionShapeIndices=[link[1] for link in links],
            linkPositions=[link[2] for link in links],
            linkOrientations=[(0, 0, 0, 1)] * count,
            linkInertialFramePositions=[(0, 0, 0)] * count,
            linkInertialFrameOrientations=[(0, 0, 0, 1)] * count,
            linkParentIndices=[link[3] for link in links],
            linkJointTypes=[
                bullet.JOINT_REVOLUTE if link[4] else bullet.JOINT_FIXED for link in links
            ],
            linkJointAxis=[link[4] or (0, 0, 1) for link in links],
            physicsClientId=self._client,
        )
        bullet.changeDynamics(arm, HAND_LINK, lateralFriction=0.5, physicsClientId=self._client)
        return arm

    def _step(self, arm: int, tip_xyz: NDArray[np.float64]) -> None:
        """Drive the joints toward a finger-tip position and advance the physics by one substep."""
        bullet.setJointMotorControlArray(
            arm,
            JOINTS,
            bullet.POSITION_CONTROL,
            targetPositions=solve_joints(tip_xyz),
            forces=[400.0] * len(JOINTS),
            positionGains=[0.5] * len(JOINTS),
            physicsClientId=self._client,
        )
        bullet.stepSimulation(physicsClientId=self._client)

    def _hand_pose(self, arm: int) -> NDArray[np.float64]:
        """Finger tip position and roll, pitch, yaw."""
        state = bullet.getLinkState(
            arm, HAND_LINK, computeForwardKinematics=1, physicsClientId=self._client
        )
        down = np.array(bullet.getMatrixFromQuaternion(state[5])).reshape(3, 3)[:, 2]
        return np.concatenate(
            [np.array(state[4]) - HAND_M * down, bullet.getEulerFromQuaternion(state[5])]
        )

    def _centre_px(self, body: int) -> NDArray[np.float64]:
        """Picture coordinates of a body's centre."""
        position, _ = bullet.getBasePositionAndOrientation(body, physicsClientId=self._client)
        centre: NDArray[np.float64] = layout.project(np.array([position]))[0]
        return centre

    def _move_shadows(
        self, shadows: list[int], cubes: list[int], pose: NDArray[np.float64], scene: layout.Scene
    ) -> None:
        """Put each shadow patch under its body, shifted away from the light."""
        slope = -np.array(scene.light_xyz[:2]) / scene.light_xyz[2] * 0.35
        for shadow, cube in zip(shadows[:-1], cubes, strict=True):  # the last one is the finger's
            xyz, turn = bullet.getBasePositionAndOrientation(cube, physicsClientId=self._client)
            shift = slope * 2 * layout.CUBE_HALF_M
            spot = (xyz[0] + shift[0], xyz[1] + shift[1], 0.0008)
            bullet.resetBasePositionAndOrientation(shadow, spot, turn, physicsClientId=self._client)
        spot = (*(pose[:2] + slope * (pose[2] + 0.02)), 0.0014)
        bullet.resetBasePositionAndOrientation(
            shadows[-1], spot, (0, 0, 0, 1), physicsClientId=self._client
        )

    def _render(self, scene: layout.Scene) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        """Render one frame: box-averaged picture and body labels at twice its size."""
        width, height = layout.WIDTH_PX * SUPERSAMPLE, layout.HEIGHT_PX * SUPERSAMPLE
        _, _, rgba, _, labels = bullet.getCameraImage(
            width,
            height,
            layout.VIEW_MATRIX,
            layout.PROJECTION_MATRIX,
            lightDirection=scene.light_xyz,
            lightColor=(1, 1, 1),
            shadow=0,
            lightAmbientCoeff=0.62,
            lightDiffuseCoeff=0.42,
            lightSpecularCoeff=0.1,
            renderer=bullet.ER_TINY_RENDERER,
            physicsClientId=self._client,
        )
        rgb = np.asarray(rgba, dtype=np.uint8).reshape(height, width, 4)[..., :3].copy()
        labels = np.asarray(labels, dtype=np.int32).reshape(height, width)
        seam = np.array(scene.table_tint) * 0.55 * 255
        rgb[labels < 0] = seam.astype(np.uint8)
        blocks = rgb.reshape(layout.HEIGHT_PX, SUPERSAMPLE, layout.WIDTH_PX, SUPERSAMPLE, 3)
        return (blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8), labels
