"""Action fields of a bridge annotation: the arm's pose and the gripper, one entry per frame.

The instruction model does not see them; they are checked because an annotation with broken ones does not belong to
its video, or was written by a broken program.

Source: cosmos_predict1/diffusion/training/datasets/dataset_3D.py for names and sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosmos_worker.data.problems import BadClip
from cosmos_worker.data.text_files import brief

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
        raise BadClip(name, "action_broken", f"{field} is {brief(values)}, not a list")
    if not _is_regular(values, num_dims):
        raise BadClip(name, "action_broken", _describe_entry(values, field, num_dims))
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        raise BadClip(name, "action_broken", f"{field} has numbers that are too large") from None
    if not np.isfinite(array).all():
        where = "".join(f"[{index}]" for index in np.argwhere(~np.isfinite(array))[0])
        value = f"{field}{where} is {array[~np.isfinite(array)][0]}, not a finite number"
        raise BadClip(name, "action_broken", value)
    return array


def _is_regular(values: list[Any], num_dims: int) -> bool:
    """Whether all entries are numbers, or lists of equally many: numpy would make numbers of other things as well."""
    rows = values if num_dims > 1 else [values]
    if set(map(type, rows)) - {list} or len(set(map(len, rows))) > 1:
        return False
    return not set(map(type, chain.from_iterable(rows))) - {int, float}


def _describe_entry(values: list[Any], field: str, num_dims: int) -> str:
    """What is wrong with the first entry that cannot be part of an array."""
    for index, entry in enumerate(values):
        numbers = entry if num_dims > 1 else [entry]
        if not isinstance(numbers, list):
            return f"{field}[{index}] is {brief(entry)}, not a list of numbers"
        wrong = [x for x in numbers if isinstance(x, bool) or not isinstance(x, int | float)]
        if wrong:
            return f"{field}[{index}] has {brief(wrong[0])}, not a number"
        if num_dims > 1 and len(numbers) != len(values[0]):
            return f"{field}[{index}] has {len(numbers)} numbers, {field}[0] has {len(values[0])}"
    return f"{field} holds no numbers"
