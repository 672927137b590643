"""The operator's rights after all other tests on the real cluster: each of them was used."""

from __future__ import annotations

import json

import pytest
from support.audit_log import granted_rights, unused_rights, used_rights
from support.real_world import NAMESPACE, RealWorld

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:cosmos-operator"
WHOLE_SUITE_FILES = 8
"""Files of tests/cluster and tests/scenarios, at least, of a run of the whole suite."""
OPERATORS_ROLES = (
    ("clusterrole", "cosmos-operator"),
    ("role", "cosmos-operator"),
    ("role", "cosmos-operator-lease"),
)


def test_every_right_of_the_operator_was_used(
    real_world: RealWorld, request: pytest.FixtureRequest
) -> None:
    """After the whole suite only: a part of it uses a part of the rights."""
    from harness import audit

    if len({item.path for item in request.session.items}) < WHOLE_SUITE_FILES:
        pytest.skip("asks for the whole suite, as make cluster runs it")
    roles = []
    for kind, name in OPERATORS_ROLES:
        text = real_world.kubectl("get", kind, name, "--ignore-not-found", "--output=json")
        roles += [json.loads(text)] if text.strip() else []
    assert roles, "the chart has made no role"
    log = audit.log_file()

    used = used_rights(sorted(log.parent.glob(f"{log.stem}*{log.suffix}")), ACCOUNT)

    assert used, f"{log} has no request of {ACCOUNT}"
    assert unused_rights(granted_rights(roles), used) == []
