"""Plain HTTP to an API server, fake or real, and the objects that contract tests make there."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import urllib3

from support.jobs import make_document

CONTENT_TYPES = {
    "json": "application/json",
    "merge": "application/merge-patch+json",
    "patch": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Api:
    """Plain HTTP to an API server, in a namespace of its own."""

    def __init__(self, url: str, **tls: Any) -> None:
        self.url = url
        self.namespace = f"contract-{secrets.token_hex(4)}"
        self.pool = urllib3.PoolManager(retries=False, **tls)

    @property
    def jobs(self) -> str:
        """Path of the PostTrainingJobs."""
        return f"/apis/cosmos.dev/v1alpha1/namespaces/{self.namespace}/posttrainingjobs"

    def core(self, plural: str) -> str:
        """Path of a kind of the core group."""
        return f"/api/v1/namespaces/{self.namespace}/{plural}"

    def call(
        self, verb: str, path: str, body: Any = None, kind: str = "json", **query: Any
    ) -> tuple[int, Any]:
        """Status and body of an answer."""
        response = self.pool.request(
            verb,
            f"{self.url}{path}?{urlencode(query)}",
            body=None if body is None else json.dumps(body),
            headers={"Content-Type": CONTENT_TYPES[kind], "User-Agent": "contract/1"},
            timeout=20,
        )
        try:
            return response.status, json.loads(response.data)
        except ValueError:
            return response.status, response.data.decode()

    def watch(self, path: str, **query: Any) -> list[tuple[str, Any]]:
        """All events of a watch that the server ends (timeoutSeconds)."""
        query = {"watch": "1", "timeoutSeconds": 1, **query}
        status, text = self.call("GET", path, **query)
        if isinstance(text, dict):
            return [(text["type"], text["object"])] if "object" in text else [(str(status), text)]
        return [(event["type"], event["object"]) for event in map(json.loads, text.splitlines())]


def wait_for(test: Callable[[], Any], seconds: float = 10) -> Any:
    """What a test returns, once it is true."""
    end = time.monotonic() + seconds
    while not (found := test()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def name_of(prefix: str = "x") -> str:
    return f"{prefix}-{secrets.token_hex(3)}"


def make_job(api: Api, changes: dict[str, Any] | None = None) -> tuple[str, Any]:
    """Path and body of a new PostTrainingJob."""
    document = make_document(changes)
    document["metadata"]["name"] = name_of("job")
    status, made = api.call("POST", api.jobs, document)
    assert status == 201, made
    return f"{api.jobs}/{made['metadata']['name']}", made


def make_config(api: Api, owners: tuple[Any, ...] = (), **meta: Any) -> tuple[str, Any]:
    """Path and body of a new ConfigMap."""
    references = [
        {"apiVersion": o["apiVersion"], "kind": o["kind"], "name": o["metadata"]["name"],
         "uid": o["metadata"]["uid"], "blockOwnerDeletion": True}
        for o in owners
    ]  # fmt: skip
    body = {
        "metadata": {"name": name_of("cm"), "ownerReferences": references, **meta},
        "data": {"a": "b"},
    }
    status, made = api.call("POST", api.core("configmaps"), body)
    assert status == 201, made
    return f"{api.core('configmaps')}/{made['metadata']['name']}", made


def is_gone(api: Api, path: str) -> bool:
    return api.call("GET", path)[0] == 404
