"""data/actions.py: poses and gripper of an annotation, one by one."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosmos_worker.data.layouts.bridge import parse_actions
from cosmos_worker.data.problems import BadClip

POSE = [0.1, 0.2, 0.3, 0.0, -1.5, 3.0]


def test_parse_actions_reads_poses_and_gripper():
    document = {"state": [[*POSE, 1], [0] * 7], "continuous_gripper_state": [1, 0.5]}

    actions = parse_actions(document, "a.json")

    assert actions.state_ND is not None
    assert actions.gripper_N is not None
    np.testing.assert_array_equal(actions.state_ND, np.array([[*POSE, 1], [0] * 7]))
    np.testing.assert_array_equal(actions.gripper_N, [1.0, 0.5])
    assert actions.lengths == {"state": 2, "continuous_gripper_state": 2}


@pytest.mark.parametrize(
    ("document", "lengths"),
    [({}, {}), ({"state": []}, {"state": 0}), ({"state": [POSE]}, {"state": 1})],
)
def test_parse_actions_accepts_fields_that_are_missing_or_empty(document, lengths):
    assert parse_actions(document, "a.json").lengths == lengths


@pytest.mark.parametrize(
    ("field", "content", "problem"),
    [
        ("state", "null", r"state is None, not a list"),
        ("state", "[1.0, 2.0]", r"state\[0\] is 1.0, not a list of numbers"),
        ("state", "[[1, 2, 3, 4, 5]]", r"state\[0\] has 5 numbers, a pose has 6"),
        ("state", f"[{POSE}, [1, 2]]", r"state\[1\] has 2 numbers, state\[0\] has 6"),
        ("state", f"[{POSE}, {POSE[:5]}]", r"state\[1\] has 5 numbers, state\[0\] has 6"),
        ("state", f"[{POSE}, 3]", r"state\[1\] is 3, not a list of numbers"),
        ("state", f'[{POSE}, [1, 2, 3, 4, 5, "6"]]', r"state\[1\] has '6', not a number"),
        ("state", f"[{POSE}, [1, 2, 3, null, 5, 6]]", r"state\[1\] has None, not a number"),
        ("state", f"[{POSE}, [1, NaN, 3, 4, 5, 6]]", r"state\[1\]\[1\] is nan, not a finite num"),
        ("continuous_gripper_state", "[0, 1, Infinity]", r"r_state\[2\] is inf, not a finite"),
        ("continuous_gripper_state", "[0, [1]]", r"r_state\[1\] has \[1\], not a number"),
        ("continuous_gripper_state", "[true, false]", r"r_state\[0\] has True, not a number"),
        ("continuous_gripper_state", "{}", r"r_state is \{\}, not a list"),
        ("continuous_gripper_state", f"[{10**400}]", r"r_state has numbers that are too large"),
    ],
)
def test_parse_actions_reports_what_is_wrong(field, content, problem):
    with pytest.raises(BadClip, match=rf"^a\.json: .*{problem}.*; repair the field, or") as caught:
        parse_actions({field: json.loads(content)}, "a.json")

    assert caught.value.reason == "action_broken"


SCALAR = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3))


@given(values=st.recursive(SCALAR, lambda inner: st.lists(inner, max_size=7), max_leaves=30))
def test_parse_actions_never_fails_otherwise(values):
    for field in ("state", "continuous_gripper_state"):
        try:
            actions = parse_actions({field: values}, "a.json")
        except BadClip:
            continue
        for array in (actions.state_ND, actions.gripper_N):
            assert array is None or np.isfinite(array).all()
