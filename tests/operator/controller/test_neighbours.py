"""Other installations: noticed by their Leases, if they run and watch the same namespaces."""

import logging

import pytest

from cosmos_operator.api.labels import MANAGED_BY, MANAGED_LABEL
from cosmos_operator.controller.metrics import Metrics
from cosmos_operator.controller.neighbours import Neighbours, marks, shared_namespaces
from cosmos_operator.errors import ClusterUnavailable, Refused
from cosmos_operator.settings import LeaseSettings, Settings

OWN = LeaseSettings(name="cosmos-operator", namespace="cosmos")


class Leases:
    """The Leases of a cluster."""

    def __init__(self):
        self.items, self.asked, self.error = {}, [], None

    def renew(self, namespace, watched=(), *, holder="pod", at="1", name="cosmos-operator"):
        metadata = {"namespace": namespace, "name": name, **marks(watched)}
        spec = {"holderIdentity": holder, "renewTime": at}
        self.items[namespace, name] = {"metadata": metadata, "spec": spec}

    async def list(self, kind, namespace, labels=None):
        self.asked.append((kind, namespace, labels))
        if self.error:
            raise self.error
        return [one for (where, _), one in self.items.items() if namespace in (None, where)]


def neighbours(leases, **settings):
    metrics = Metrics()
    return Neighbours(leases, Settings(lease=OWN, **settings), metrics), metrics


async def notes_after_two_looks(leases, *, at="2", **settings):
    found, metrics = neighbours(leases, **settings)
    await found.look()
    assert list(found.notes()) == []
    for (namespace, name), lease in list(leases.items.items()):
        watched = lease["metadata"]["annotations"]["cosmos.dev/watched-namespaces"]
        names = () if watched == "*" else watched.split(",")
        leases.renew(namespace, names, at=at, name=name, holder=lease["spec"]["holderIdentity"])
    await found.look()
    return list(found.notes()), metrics.render().decode()


@pytest.mark.parametrize(("ours", "theirs", "shared"), [
    ((), "*", "all namespaces"),
    ((), "a,b", "a, b"),
    (("a", "b"), "*", "a, b"),
    (("a", "b"), "b,c", "b"),
    (("a",), "b", ""),
    ((), "", ""),
    (("a",), "", ""),
])  # fmt: skip
def test_namespaces_that_both_watch(ours, theirs, shared):
    assert shared_namespaces(ours, theirs) == shared


async def test_second_installation_that_watches_all_is_told(caplog):
    leases = Leases()
    leases.renew("cosmos")
    leases.renew("other")
    with caplog.at_level(logging.INFO, "cosmos_operator"):
        notes, metrics = await notes_after_two_looks(leases)

    (note,) = notes
    assert note.startswith(
        "the installation other/cosmos-operator carries out the jobs of all namespaces too"
    )
    assert "watchNamespaces" in note
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cosmos_other_installations 1.0" in metrics
    assert leases.asked[0] == ("Lease", None, {MANAGED_LABEL: MANAGED_BY})


async def test_what_is_told_once_is_told_again_only_when_it_has_changed(caplog):
    leases = Leases()
    found, _ = neighbours(leases)
    with caplog.at_level(logging.INFO, "cosmos_operator"):
        for at in "1234":
            leases.renew("other", at=at)
            await found.look()
        await found.look()  # not renewed any more

    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert list(found.notes()) == []


@pytest.mark.parametrize(("lease", "at"), [
    ({"watched": ("b",)}, "2"),
    ({"watched": ("a",), "holder": ""}, "2"),
    ({"watched": ("a",)}, "1"),
])  # fmt: skip
async def test_disjoint_released_and_dead_ones_are_no_neighbours(lease, at):
    leases = Leases()
    leases.renew("other", **lease)

    notes, metrics = await notes_after_two_looks(leases, at=at, watchNamespaces=["a"])

    assert notes == []
    assert "cosmos_other_installations 0.0" in metrics


async def test_namespaced_installation_looks_in_its_own_namespace_only():
    leases = Leases()
    leases.renew("cosmos", ("a",), name="second-operator")
    notes, _ = await notes_after_two_looks(leases, watchNamespaces=["a"], canListNodes=False)

    assert "cosmos/second-operator carries out the jobs of a too" in notes[0]
    assert {namespace for _, namespace, _ in leases.asked} == {"cosmos"}


async def test_missing_right_is_told_once_and_a_server_that_is_down_ends_nothing(caplog):
    leases = Leases()
    found, _ = neighbours(leases)
    with caplog.at_level(logging.INFO, "cosmos_operator"):
        leases.error = ClusterUnavailable("down")
        await found.look()
        leases.error = Refused(403, "leases is forbidden")
        await found.look()
        await found.look()

    assert [record.message for record in caplog.records] == [
        "other installations would not be noticed: cannot list Leases: "
        "the API server refused (403): leases is forbidden"
    ]
