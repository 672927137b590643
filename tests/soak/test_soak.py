"""The churn and the verdict of the soak, on the cluster in this process."""

import pytest
from support.fakekube import FakeKube
from support.scenario_world import CLAIM, FakeWorld

from cosmos_operator.api.crd import build_crds
from soak.churn import AT_A_TIME, KINDS, Churn, sample
from soak.growth import judge, table

MINUTES = [float(minute) for minute in range(60)]


@pytest.mark.parametrize(
    ("values", "is_flat"),
    [
        ([100.0] * 60, True),
        ([100 + minute % 7 for minute in range(60)], True),
        ([40 + 4 * min(minute, 14) for minute in range(60)], True),
        ([100 + 0.5 * minute for minute in range(60)], False),
        ([300 - minute for minute in range(60)], True),
    ],
    ids=["level", "noise", "fills first", "leaks", "falls"],
)
def test_verdict(values, is_flat):
    assert judge("memory, MiB", MINUTES, values).is_flat is is_flat


def test_descriptors_may_grow_by_five_an_hour():
    assert judge("open descriptors", MINUTES, [20 + 0.05 * m for m in MINUTES]).is_flat
    assert not judge("open descriptors", MINUTES, [20 + 0.2 * m for m in MINUTES]).is_flat


def test_table_names_what_grows():
    text, is_flat = table(MINUTES, [{"a": 1.0, "b": 100 * minute} for minute in MINUTES])

    assert not is_flat
    assert "| a | 1 | 1 | +0.00 | flat |" in text
    assert "| b | 0 | 5900 | +6000.00 | GROWS |" in text


def test_churn_keeps_its_level_and_leaves_nothing(tmp_path):
    with FakeKube(images=("cosmos-worker:test", "cosmos-worker-cpu:test")) as kube:
        for crd in build_crds():
            kube.install_crd(crd)
        world = FakeWorld(tmp_path, kube)
        spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
        claims = world.api.core("persistentvolumeclaims")
        world.api.call("POST", claims, {"metadata": {"name": CLAIM}, "spec": spec})
        world.start_operator()
        begun = "delivered all existing objects"
        world.wait("the operator has begun", lambda: begun in world.operator_log(), 120)
        churn = Churn(world, 0)
        for _ in range(40):
            churn.step()
            assert len(churn.living()) <= AT_A_TIME
        found = sample(world, {"memory": 1.0})
        churn.end()
        world.wait("all jobs are gone", lambda: not churn.living())
        world.stop()

    assert churn.counts["create"] > AT_A_TIME
    assert {"suspend", "resume", "edit", "delete"} <= churn.counts.keys()
    assert found.keys() == {"memory", *(f"objects: {kind}" for kind in KINDS)}
