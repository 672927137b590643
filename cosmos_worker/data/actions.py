"""Action fields of a bridge annotation: the arm's pose and the gripper, one entry per frame.

The instruction model does not see them; they are checked because an annotation with broken ones does not belong to
its video, or was written by a broken program.

Source: cosmos_predict1/diffusion/training/datasets/dataset_3D.py for names and sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_worker.data.problems import BadClip

STATE = "state"
GRIPPER = "continuous_gripper_state"
POSE_SIZE = 6
"""Position x, y, z and rotation roll, pitch, yaw: the first numbers of each state."""


@dataclass(frozen=True)
class Actions:
    """The fields that an annotation has, float64."""

    state_ND: NDArray[np.float64] | None
    """N states of D >= 6 numbers; the first 6 are the pose."""
    gripper_N: NDArray[np.float64] | None
    """N openings of the gripper."""

    @property
    def lengths(self) -> dict[str, int]:
        """Name of each field that is there → its number of entries."""
        fields = {STATE: self.state_ND, GRIPPER: self.gripper_N}
        return {name: len(values) for name, values in fields.items() if values is not None}


def parse_actions(document: Mapping[str, Any], name: str) -> Actions:
    """Read the action fields of an annotation; each may be missing.

    Args:
        document: the annotation.
        name: how messages call it.

    Raises:
        BadClip: entries that are no numbers, not finite, of different sizes or too few.
    """
    state = _finite_array(document, STATE, 2, name)
    if state is not None and len(state) and state.shape[1] < POSE_SIZE:
        value = f"{STATE}[0] has {state.shape[1]} numbers, a pose has {POSE_SIZE}"
        raise BadClip(name, "action_broken", value)
    return Actions(state, _finite_array(document, GRIPPER, 1, name))


def _finite_array(
    document: Mapping[str, Any], field: str, num_dims: int, name: str
) -> NDArray[np.float64] | None:
    """A field as an array of ``num_dims`` dimensions, None if it is not there."""
    if field not in document:
        return None
    values = document[field]
    if not isinstance(values, list):
        raise BadClip(name, "action_broken", f"{field} is {values!r:.80}, not a list")
    try:
        array = np.array(values)
    except ValueError:  # rows of different sizes
        array = np.array([], dtype=object)
    if values and (array.ndim != num_dims or array.dtype.kind not in "iuf"):
        raise BadClip(name, "action_broken", _describe_entry(values, field, num_dims))
    if not np.isfinite(array.astype(np.float64)).all():
        where = "".join(f"[{index}]" for index in np.argwhere(~np.isfinite(array))[0])
        value = f"{field}{where} is {array[~np.isfinite(array)][0]}, not a finite number"
        raise BadClip(name, "action_broken", value)
    return array.astype(np.float64)


def _describe_entry(values: list[Any], field: str, num_dims: int) -> str:
    """What is wrong with the first entry that cannot be part of an array."""
    for index, entry in enumerate(values):
        numbers = entry if num_dims > 1 else [entry]
        if not isinstance(numbers, list):
            return f"{field}[{index}] is {entry!r:.80}, not a list of numbers"
        wrong = [x for x in numbers if isinstance(x, bool) or not isinstance(x, int | float)]
        if wrong:
            return f"{field}[{index}] has {wrong[0]!r:.80}, not a number"
        if num_dims > 1 and len(numbers) != len(values[0]):
            return f"{field}[{index}] has {len(numbers)} numbers, {field}[0] has {len(values[0])}"
    return f"{field} has numbers that are too large"
