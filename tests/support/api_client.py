"""Plain HTTP to an API server, fake or real, and the objects that tests make there."""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import yaml

from support.jobs import make_document

CRD_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CONTENT_TYPES = {
    "json": "application/json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


class Api:
    """Plain HTTP to an API server, in a namespace of its own."""

    plural = "posttrainingjobs"
    """Jobs of this kind are at ``jobs``."""

    def __init__(self, url: str, **tls: Any) -> None:
        self.url = url
        self.namespace = f"contract-{secrets.token_hex(4)}"
        self.pool = urllib3.PoolManager(retries=False, **tls)

    @property
    def jobs(self) -> str:
        """Path of the jobs."""
        return f"/apis/cosmos.dev/v1alpha1/namespaces/{self.namespace}/{self.plural}"

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


def connect(kubeconfig: Path) -> Api:
    """A client with the certificates of a kubeconfig."""
    document = yaml.safe_load(kubeconfig.read_text(encoding="utf-8"))
    cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
    files = {}
    for name, text in (
        ("ca", cluster["certificate-authority-data"]),
        ("cert", user["client-certificate-data"]),
        ("key", user["client-key-data"]),
    ):
        with tempfile.NamedTemporaryFile(delete=False) as stream:
            stream.write(base64.b64decode(text))
        files[name] = stream.name
    context = ssl.create_default_context(cafile=files["ca"])
    context.load_cert_chain(files["cert"], files["key"])
    for name in files.values():
        Path(name).unlink()
    return Api(cluster["server"], ssl_context=context)


@contextmanager
def prepared(api: Api, *crds: Any) -> Iterator[Api]:
    """Install custom resources, and make the namespace of ``api`` for the block."""
    for crd in crds:
        path = f"{CRD_PATH}/{crd['metadata']['name']}"
        if api.call("GET", path)[0] == 404:
            status, answer = api.call("POST", CRD_PATH, crd)
            assert status == 201, answer.get("message")
        wait_for(partial(_is_served, api, crd["spec"]))
    namespace = {"metadata": {"name": api.namespace}}
    assert api.call("POST", "/api/v1/namespaces", namespace)[0] == 201
    yield api
    api.call("DELETE", f"/api/v1/namespaces/{api.namespace}")
    api.pool.clear()


def _is_served(api: Api, spec: Any) -> bool:
    path = f"/apis/{spec['group']}/{spec['versions'][0]['name']}/{spec['names']['plural']}"
    return api.call("GET", path)[0] == 200


def wait_for(test: Callable[[], Any], seconds: float = 10) -> Any:
    """Call a function until its result is true; returns that result."""
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


def condition(kind: str, status: str = "True") -> dict[str, Any]:
    """A condition of a PostTrainingJob."""
    return {
        "type": kind,
        "status": status,
        "reason": "Tested",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }


def apply_status(
    api: Api,
    path: str,
    status: dict[str, Any],
    manager: str = "operator",
    *,
    force: bool = False,
    **meta: str,
) -> tuple[int, Any]:
    """Answer to a server-side apply of a PostTrainingJob's status; ``meta`` is added to the metadata."""
    body = {
        "apiVersion": "cosmos.dev/v1alpha1",
        "kind": "PostTrainingJob",
        "metadata": {"name": path.rpartition("/")[2], "namespace": api.namespace, **meta},
        "status": status,
    }
    query = {"fieldManager": manager, "force": str(force).lower()}
    return api.call("PATCH", f"{path}/status", body, "apply", **query)


def is_gone(api: Api, path: str) -> bool:
    return api.call("GET", path)[0] == 404
