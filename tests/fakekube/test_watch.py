"""Watches of the fake API server that break, or begin at a version that is forgotten."""

from __future__ import annotations

import secrets

from support.api_client import Api
from support.fakekube import FakeKube


def make_config(fake: FakeKube, **labels: str) -> None:
    meta = {"name": f"cm-{secrets.token_hex(3)}", "namespace": "default", "labels": labels}
    fake.create("configmaps", {"metadata": meta})


def test_watch_list(fake: FakeKube) -> None:
    make_config(fake, group="list")
    events = Api(fake.url).watch(
        "/api/v1/namespaces/default/configmaps",
        labelSelector="group=list",
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
    )
    kinds = [kind for kind, _ in events]
    assert kinds[:2] == ["ADDED", "BOOKMARK"]
    assert events[1][1]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true"


def test_watch_from_a_forgotten_version(fake: FakeKube) -> None:
    make_config(fake)
    fake.drop_watches(forget=True)
    ((kind, answer),) = Api(fake.url).watch("/api/v1/configmaps", resourceVersion=1)
    assert kind == "ERROR"
    assert (answer["code"], answer["reason"]) == (410, "Expired")
    assert answer["message"].startswith("too old resource version: 1 (")


def test_bookmarks_say_how_far_the_server_is(fake: FakeKube) -> None:
    fake.api.watches.bookmark_s = 0.2
    try:
        events = Api(fake.url).watch("/api/v1/secrets", allowWatchBookmarks="true")
    finally:
        fake.api.watches.bookmark_s = 60
    assert events[-1][0] == "BOOKMARK"
    assert int(events[-1][1]["metadata"]["resourceVersion"]) > 1
