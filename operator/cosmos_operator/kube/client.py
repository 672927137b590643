"""The API server over HTTP: the only module that imports the Kubernetes client.

Of the client only connection and authentication are used: objects go in and out as plain dictionaries, by the
paths of ``kinds``. Every answer of the server becomes a value, ``ClusterUnavailable`` or ``Refused`` here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from cosmos_operator.errors import ClusterUnavailable, InvalidSpec, Refused
from cosmos_operator.kube.kinds import (
    KINDS,
    OPTIONAL_KINDS,
    Resource,
)
from cosmos_operator.kube.protocol import (
    FIELD_MANAGER,
    Manifest,
)

TIMEOUT_S = 30.0
"""Longest time that a request may take."""
LOG_TIMEOUT_S = 10.0
"""The same for a log: it comes from a node, which may be gone."""
MAX_LOG_BYTES = 4 * 1024 * 1024
PAGE_SIZE = 500
DISCOVERY_TTL_S = 30.0
"""Age up to which the list of served kinds is believed."""

OTHER_VERSIONS = {"LocalQueue": ("v1beta2",), "Workload": ("v1beta2",)}
"""Versions that serve a kind where the one of ``kinds`` is not served; what is read of them is the same."""

JSON = "application/json"
APPLY = "application/apply-patch+yaml"
STRATEGIC_MERGE = "application/strategic-merge-patch+json"
METADATA_ONLY = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"

Query = tuple[tuple[str, str], ...]
Manifests = list[Manifest]


@dataclass(frozen=True)
class Connection:
    """How the API server is reached, for programs other than this client."""

    server: str
    ca_file: str | None
    token: str | None
    """Value after ``Bearer``; read anew at each call of ``KubeCluster.connection``."""
    certificate_file: str | None
    key_file: str | None
    verify: bool
    proxy: str | None


async def load_configuration(kubeconfig: Path | None) -> Configuration:
    """Where the API server is and who we are: from a file, else from the pod that we run in, else from $KUBECONFIG.

    Raises:
        InvalidSpec: neither is there, or the file is wrong.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None and os.environ.get("KUBERNETES_SERVICE_HOST"):
            # the client is typed in part
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return configuration
        default = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
        paths = str(kubeconfig) if kubeconfig else default
        if not any(Path(path).is_file() for path in paths.split(os.pathsep)):
            raise InvalidSpec(
                [
                    f"{paths}: no such file; run in a pod, or give --kubeconfig FILE or set $KUBECONFIG"
                ]
            )
        await load_kube_config(  # type: ignore[no-untyped-call]  # the client is typed in part
            config_file=paths, client_configuration=configuration, persist_config=False
        )
    except (ConfigException, OSError, ValueError) as error:
        raise InvalidSpec([f"connection to the API server: {error}"]) from error
    return configuration


@dataclass(frozen=True)
class _Answer:
    """What the API server said."""

    status: int
    data: bytes

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Manifest:
        try:
            document = json.loads(self.data)
        except ValueError:
            document = None
        return document if isinstance(document, dict) else {}

    @property
    def reason(self) -> str:
        return str(self.json().get("reason", ""))

    @property
    def message(self) -> str:
        text = self.json().get("message") or self.data[:300].decode(errors="replace")
        if text.startswith("404 page not found"):
            return "the kind is not served; install its CustomResourceDefinition"
        return " ".join(text.split()) or "no reason given"

    def error(self, what: str) -> ClusterUnavailable | Refused:
        """The error that this answer means."""
        if self.status >= 500 or self.status in (401, 409, 429):
            return ClusterUnavailable(f"{what}: HTTP {self.status}: {self.message}")
        return Refused(self.status, self.message)


class KubeCluster:
    """``protocol.Cluster`` on a real API server, and a few requests beside it."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._client.user_agent = FIELD_MANAGER
        self._served: dict[str, Resource] = {}
        self._served_until = 0.0
        self._discovery = asyncio.Lock()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def connection(self) -> Connection:
        """How to reach the same API server as the same user."""
        configuration = self._configuration
        try:
            header = await configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError) as error:
            raise ClusterUnavailable(f"token of the service account: {error}") from error
        return Connection(
            server=configuration.host,
            ca_file=configuration.ssl_ca_cert,
            token=header.split(" ", 1)[-1].strip() if header else None,
            certificate_file=configuration.cert_file,
            key_file=configuration.key_file,
            verify=bool(configuration.verify_ssl),
            proxy=configuration.proxy,
        )

    # The protocol.

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        """The object, or None if it is absent or its kind is not served."""
        resource = await self._resource(kind)
        if resource is None:
            return None
        answer = await self._request("GET", _path(resource, namespace, name))
        if answer.status == 404:
            return None
        return _read(answer, f"get {kind} {namespace}/{name}")

    async def list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: str = "",
    ) -> list[Manifest]:
        """All objects with these labels; empty if the kind is not served."""
        return await self._list(kind, namespace, labels, fields, JSON)

    async def create(self, manifest: Manifest) -> bool:
        """Create an object; False if one of that name exists already."""
        answer = await self._post(manifest)
        if answer.status == 409 and answer.reason == "AlreadyExists":
            return False
        _read(answer, f"create {_title(manifest)}")
        return True

    async def add_owner(self, kind: str, namespace: str, name: str, owner: Manifest) -> None:
        """Add an owner reference to an object of a built-in kind, beside those that it has."""
        answer = await self._request(
            "PATCH",
            _path(KINDS[kind], namespace, name),
            query=(("fieldManager", FIELD_MANAGER),),
            body={"metadata": {"ownerReferences": [owner]}},
            content_type=STRATEGIC_MERGE,
        )
        _read(answer, f"add an owner to {kind} {namespace}/{name}")

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool
    ) -> None:
        """Delete the object with this uid; nothing happens if it is gone."""
        resource = await self._resource(kind)
        if resource is None:
            return
        answer = await self._request(
            "DELETE",
            _path(resource, namespace, name),
            body={
                "apiVersion": "v1",
                "kind": "DeleteOptions",
                "preconditions": {"uid": uid},
                "propagationPolicy": "Foreground" if foreground else "Background",
            },
        )
        is_another = answer.status == 409 and "precondition" in answer.message.lower()
        if answer.status != 404 and not is_another:
            _read(answer, f"delete {kind} {namespace}/{name}")

    async def apply_status(self, manifest: Manifest) -> None:
        """Replace the status of a PostTrainingJob by server-side apply."""
        answer = await self._request(
            "PATCH",
            f"{_path_of(manifest)}/status",
            query=(("fieldManager", FIELD_MANAGER), ("force", "true")),
            body=manifest,
            content_type=APPLY,
        )
        _read(answer, f"write the status of {_title(manifest)}")

    async def record_event(self, manifest: Manifest) -> None:
        """Write an Event; one of that name that exists already is as good."""
        await self.create(manifest)

    async def read_log(
        self, namespace: str, pod: str, container: str, tail_lines: int
    ) -> str | None:
        """The last lines of a container's log, or None if there is no log (yet, or any more).

        A node that does not answer has no log either: its pod's status says what became of it.
        """
        answer = await self._request(
            "GET",
            f"{_path(KINDS['Pod'], namespace, pod)}/log",
            query=(
                ("container", container),
                ("tailLines", str(tail_lines)),
                ("limitBytes", str(MAX_LOG_BYTES)),
            ),
            accept="*/*",
            timeout_s=LOG_TIMEOUT_S,
            timeout_status=504,
        )
        if answer.status in (400, 404) or answer.status >= 500:
            return None
        if not answer.is_success:
            raise answer.error(f"read the log of pod {namespace}/{pod}")
        return answer.data.decode(errors="replace")

    async def served(self) -> frozenset[str]:
        """The optional kinds that the API server has now."""
        async with self._discovery:
            if monotonic() >= self._served_until:
                self._served = await self._discover(OPTIONAL_KINDS)
                self._served_until = monotonic() + DISCOVERY_TTL_S
            return frozenset(self._served)

    # Beside the protocol.

    async def serving(self, kinds: Iterable[str]) -> frozenset[str]:
        """Those of the kinds that the API server has now, asked anew."""
        return frozenset(await self._discover(kinds))

    async def list_metadata(
        self, kind: str, namespace: str | None, labels: Mapping[str, str] | None = None
    ) -> Manifests:
        """As ``list``, without spec and status where the server can leave them out."""
        return await self._list(kind, namespace, labels, "", METADATA_ONLY)

    async def replace(self, manifest: Manifest) -> bool:
        """Replace an object; False if it is gone or is no longer at this resourceVersion."""
        answer = await self._request("PUT", _path_of(manifest), body=manifest)
        if answer.status in (404, 409):
            return False
        _read(answer, f"replace {_title(manifest)}")
        return True

    async def dry_run(self, manifest: Manifest) -> Manifest:
        """What the API server would make of an object; nothing is created."""
        answer = await self._post(manifest, (("dryRun", "All"),))
        return _read(answer, f"create (dry run) {_title(manifest)}")

    async def may(self, attributes: Mapping[str, str]) -> bool:
        """Whether we may do what these ``resourceAttributes`` of an access review describe."""
        answer = await self._request(
            "POST",
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            body={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": dict(attributes)},
            },
        )
        return _read(answer, "review our access").get("status", {}).get("allowed") is True

    # Requests.

    async def _resource(self, kind: str) -> Resource | None:
        """Where the server has a kind, or None if it is an optional one that is not served."""
        if kind not in OPTIONAL_KINDS:
            return KINDS[kind]
        await self.served()
        return self._served.get(kind)

    async def _discover(self, kinds: Iterable[str]) -> dict[str, Resource]:
        answers: dict[str, set[str]] = {}
        found: dict[str, Resource] = {}
        for kind in kinds:
            first = KINDS[kind]
            for version in (first.version, *OTHER_VERSIONS.get(kind, ())):
                resource = replace(first, version=version)
                if resource.api_version not in answers:
                    answers[resource.api_version] = await self._plurals(resource)
                if resource.plural in answers[resource.api_version]:
                    found[kind] = resource
                    break
        return found

    async def _plurals(self, resource: Resource) -> set[str]:
        answer = await self._request("GET", _root(resource))
        if answer.status == 404:
            return set()
        document = _read(answer, f"list what {resource.api_version} serves")
        return {entry.get("name", "") for entry in document.get("resources") or ()}

    async def _list(
        self,
        kind: str,
        namespace: str | None,
        labels: Mapping[str, str] | None,
        fields: str,
        accept: str,
    ) -> Manifests:
        resource = await self._resource(kind)
        if resource is None:
            return []
        query: Query = (("limit", str(PAGE_SIZE)),)
        if labels:
            query += (("labelSelector", ",".join(f"{k}={v}" for k, v in labels.items())),)
        if fields:
            query += (("fieldSelector", fields),)
        items: Manifests = []
        token = ""
        while True:
            page: Query = (("continue", token),) if token else ()
            answer = await self._request(
                "GET", _path(resource, namespace), query=query + page, accept=accept
            )
            if answer.status == 404:
                return []
            if answer.status == 410:  # the list is older than what the server remembers
                raise ClusterUnavailable(f"list {kind}: {answer.message}")
            document = _read(answer, f"list {kind}")
            items += document.get("items") or ()
            token = (document.get("metadata") or {}).get("continue", "")
            if not token:
                break
        for item in items:  # items of built-in kinds come without the two
            item["apiVersion"], item["kind"] = resource.api_version, kind
        return items

    async def _post(self, manifest: Manifest, query: Query = ()) -> _Answer:
        query = (("fieldManager", FIELD_MANAGER), *query)
        return await self._request("POST", _path_of(manifest, named=False), query, manifest)

    async def _request(
        self,
        method: str,
        path: str,
        query: Query = (),
        body: Manifest | None = None,
        *,
        content_type: str = JSON,
        accept: str = JSON,
        timeout_s: float = TIMEOUT_S,
        timeout_status: int | None = None,
    ) -> _Answer:
        """Send one request; ``timeout_status`` is the answer that a timeout counts as, instead of an error."""
        headers: dict[str, Any] = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            method, url, headers, content, _ = await self._client.param_serialize(
                method,
                path,
                query_params=list(query),
                header_params=headers,
                body=body,
                auth_settings=["BearerToken"],
            )
            response = await self._client.call_api(
                method,
                url,
                headers,
                content,
                _request_timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=10),
            )
            data = await response.read()  # type: ignore[no-untyped-call]
            return _Answer(response.status, data)
        except asyncio.TimeoutError:
            if timeout_status is not None:
                return _Answer(timeout_status, b"")
            raise ClusterUnavailable(
                f"{self._configuration.host}: no answer within {timeout_s:g} s to {method} {path}"
            ) from None
        except (aiohttp.ClientError, ConfigException, OSError) as error:
            raise ClusterUnavailable(
                f"{self._configuration.host}: {type(error).__name__}: {error}"
            ) from error


def _read(answer: _Answer, what: str) -> Manifest:
    if not answer.is_success:
        raise answer.error(what)
    return answer.json()


def _root(resource: Resource) -> str:
    return f"/{'apis' if resource.group else 'api'}/{resource.api_version}"


def _path(resource: Resource, namespace: str | None, name: str | None = None) -> str:
    parts = [_root(resource)]
    if namespace is not None and resource.namespaced:
        parts += ["namespaces", quote(namespace, safe="")]
    parts.append(resource.plural)
    if name is not None:
        parts.append(quote(name, safe=""))
    return "/".join(parts)


def _path_of(manifest: Manifest, *, named: bool = True) -> str:
    """Path of an object, in the version that the manifest is written in."""
    resource = KINDS[manifest["kind"]]
    group, _, version = manifest["apiVersion"].rpartition("/")
    resource = replace(resource, group=group, version=version)
    metadata = manifest["metadata"]
    return _path(resource, metadata.get("namespace"), metadata["name"] if named else None)


def _title(manifest: Manifest) -> str:
    metadata = manifest.get("metadata", {})
    return f"{manifest.get('kind')} {metadata.get('namespace', '')}/{metadata.get('name', '')}"
