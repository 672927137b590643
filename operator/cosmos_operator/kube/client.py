"""HTTP requests to the API server: the only module that imports the Kubernetes client library.

Only connection and authentication of the library are used: objects go in and out as plain dictionaries.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import (
    ConfigException,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)

from cosmos_operator.errors import ClusterUnavailable, Conflict, InvalidSpec, Refused
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.protocol import FIELD_MANAGER, UNKNOWN_FIELD, WEBHOOK_FAILED
from cosmos_operator.kube.proxy import is_exempt
from cosmos_operator.kube.server_clock import ServerClock

TIMEOUT_S = 30.0
"""Longest time that a request may take."""
CONNECT_TIMEOUT_S = 10.0

POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""File with the namespace of the pod that we run in."""
DEFAULT_NAMESPACE = "default"
"""Namespace of a context that names none, as for kubectl."""
JSON = "application/json"
UNCOMPRESSED = {"Accept-Encoding": "identity"}
"""Header for answers as they are: within a cluster, packing and unpacking a list takes longer than sending it."""
Query = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Connection:
    """Address and credentials of the API server, for other clients than ours, such as kopf's."""

    server: str
    ca_file: str | None
    token: str | None
    """Bearer token; read anew by each call of ``Client.connection``, since tokens of pods expire."""
    certificate_file: str | None
    key_file: str | None
    verify: bool
    proxy: str | None
    """Proxy that the kubeconfig names."""
    trust_env: bool
    """False if $NO_PROXY exempts the API server from the proxy of $HTTPS_PROXY."""


async def load_configuration(kubeconfig: Path | None, context: str | None = None) -> Configuration:
    """Address and credentials of the API server: from a file, else from the pod that we run in, else from $KUBECONFIG.

    Args:
        kubeconfig: the file; None = the pod's own credentials, or the file of $KUBECONFIG or ~/.kube/config.
        context: context of the file; None = its current one.

    Raises:
        InvalidSpec: there is none of them, or the file is wrong.
    """
    configuration = Configuration()
    try:
        if _is_in_pod(kubeconfig, context):
            # the client is typed in part
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            return configuration
        await load_kube_config(  # type: ignore[no-untyped-call]  # the client is typed in part
            config_file=_config_paths(kubeconfig),
            context=context,
            client_configuration=configuration,
            persist_config=False,
        )
    except (ConfigException, OSError, ValueError) as error:
        raise InvalidSpec([f"connection to the API server: {error}"]) from error
    return configuration


def load_namespace(kubeconfig: Path | None, context: str | None = None) -> str:
    """The namespace that kubectl would use with the same credentials.

    Raises:
        InvalidSpec: as :func:`load_configuration`.
    """
    try:
        if _is_in_pod(kubeconfig, context):
            return POD_NAMESPACE.read_text(encoding="utf-8").strip() or DEFAULT_NAMESPACE
        contexts, active = list_kube_config_contexts(  # type: ignore[no-untyped-call]
            _config_paths(kubeconfig)
        )
    except (ConfigException, OSError, ValueError) as error:
        raise InvalidSpec([f"connection to the API server: {error}"]) from error
    named = {one["name"]: one["context"] for one in contexts}
    found = active["context"] if context is None else named.get(context, {})
    return str(found.get("namespace") or DEFAULT_NAMESPACE)


def _is_in_pod(kubeconfig: Path | None, context: str | None) -> bool:
    """True if the credentials of the pod that we run in are meant."""
    is_pod = bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
    return is_pod and kubeconfig is None and context is None


def _config_paths(kubeconfig: Path | None) -> str:
    """Paths of the kubeconfig files, as $KUBECONFIG lists them.

    Raises:
        InvalidSpec: there is no such file.
    """
    default = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube/config")
    paths = str(kubeconfig) if kubeconfig else default
    if not any(Path(path).is_file() for path in paths.split(os.pathsep)):
        problem = "no such file; run in a pod, or give --kubeconfig FILE or set $KUBECONFIG"
        raise InvalidSpec([f"{paths}: {problem}"])
    return paths


@dataclass(frozen=True)
class Answer:
    """An answer of the API server: HTTP status and body."""

    status: int
    data: bytes

    @property
    def is_success(self) -> bool:
        """True for the statuses 200 to 299."""
        return 200 <= self.status < 300

    def json(self) -> Manifest:
        """The body as a JSON object; empty if it is none."""
        try:
            document = json.loads(self.data)
        except ValueError:
            document = None
        return document if isinstance(document, dict) else {}

    @property
    def reason(self) -> str:
        """Reason in one word, such as AlreadyExists; empty if there is none."""
        return str(self.json().get("reason", ""))

    @property
    def message(self) -> str:
        """The server's message in one line."""
        text = self.json().get("message") or self.data[:300].decode(errors="replace")
        if text.startswith("404 page not found"):
            return "the kind is not served; install its CustomResourceDefinition"
        return " ".join(text.split()) or "no reason given"

    def read(self, action: str) -> Manifest:
        """The body of a success.

        Args:
            action: the request in words, for the message.

        Raises:
            ClusterUnavailable: the server may answer otherwise later.
            Refused: the server rejects the request.
        """
        if not self.is_success:
            raise self.error(action)
        return self.json()

    def error(self, action: str) -> ClusterUnavailable | Refused:
        """The error that a status other than success stands for.

        A webhook that does not answer may stay away for long, so people must hear of it: it counts as a refusal.
        """
        if self.status == 500 and any(
            one in self.message for one in (WEBHOOK_FAILED, UNKNOWN_FIELD)
        ):
            return Refused(self.status, self.message)
        if self.status == 409:
            return Conflict(f"{action}: HTTP 409: {self.message}")
        if self.status >= 500 or self.status in (401, 429):
            return ClusterUnavailable(f"{action}: HTTP {self.status}: {self.message}")
        return Refused(self.status, self.message)


class Client:
    """Requests to one API server as one user.

    Args:
        configuration: address and credentials, see :func:`load_configuration`.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._trust_env = not is_exempt(configuration.host, os.environ)
        configuration.client_session_kwargs = {"trust_env": self._trust_env}
        self.clock = ServerClock()
        """The time of the API server."""
        self._api = ApiClient(configuration)
        self._api.user_agent = FIELD_MANAGER

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()  # type: ignore[no-untyped-call]  # the client is typed in part

    async def connection(self) -> Connection:
        """Address and credentials of the same API server for the same user."""
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
            trust_env=self._trust_env,
        )

    async def request(
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
    ) -> Answer:
        """Send one request.

        Args:
            method: HTTP method.
            path: path on the server.
            query: names and values of the query.
            body: JSON body.
            content_type: media type of the body.
            accept: media type of the answer.
            timeout_s: longest time that the request may take.
            timeout_status: HTTP status of the answer that stands for a timeout; None = a timeout is an error.

        Raises:
            ClusterUnavailable: no answer in time, or no connection.
        """
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_TIMEOUT_S)
        try:
            response = await self._send(method, path, query, body, (content_type, accept), timeout)
            self.clock.note(response.headers.get("Date"))
            data = await response.read()
            return Answer(response.status, data)
        except TimeoutError:
            if timeout_status is not None:
                return Answer(timeout_status, b"")
            raise ClusterUnavailable(
                f"{self._configuration.host}: no answer within {timeout_s:g} s to {method} {path}"
            ) from None
        except (aiohttp.ClientError, ConfigException, OSError) as error:
            raise self._unavailable(error) from error

    async def stream(
        self, path: str, query: Query, *, accept: str = JSON, silence_s: float
    ) -> AsyncIterator[Manifest]:
        """Read an answer of JSON objects that goes on, such as a watch; see :meth:`lines`."""
        lines = self.lines(path, query, accept=accept, silence_s=silence_s)
        async with aclosing(lines):
            async for line in lines:
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise self._unavailable(error) from error

    async def lines(
        self,
        path: str,
        query: Query,
        *,
        accept: str = JSON,
        silence_s: float,
        with_rest: bool = False,
    ) -> AsyncGenerator[bytes, None]:
        """Read an answer that goes on, line by line, until the server ends it or falls silent.

        Args:
            path: path on the server.
            query: names and values of the query.
            accept: media type of the answer.
            silence_s: seconds without a line after which nothing is expected any more.
            with_rest: True also yields what follows the last line break.

        Raises:
            ClusterUnavailable: no answer, or no connection.
            Refused: the server rejects the request.
        """
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=silence_s)
        try:
            response = await self._send("GET", path, query, None, (JSON, accept), timeout)
            with closing(response):
                if response.status != 200:
                    raise Answer(response.status, await response.read()).error(f"read {path}")
                rest = b""
                async for chunk in response.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in filter(None, lines):
                        yield line
                if rest and with_rest:
                    yield rest
        except TimeoutError:
            return
        except (aiohttp.ClientError, ConfigException, OSError, ValueError) as error:
            raise self._unavailable(error) from error

    async def _send(
        self,
        method: str,
        path: str,
        query: Query,
        body: Manifest | None,
        media: tuple[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send a request; ``media`` are the types of its body and of its answer."""
        headers: dict[str, Any] = {"Accept": media[1], **UNCOMPRESSED}
        if body is not None:
            headers["Content-Type"] = media[0]
        # without the body, which holds JSON values already and need not be searched for models of the library
        method, url, headers, _, _ = await self._api.param_serialize(
            method,
            path,
            query_params=list(query),
            header_params=headers,
            auth_settings=["BearerToken"],
        )
        answer = await self._api.call_api(method, url, headers, body, _request_timeout=timeout)
        response: aiohttp.ClientResponse = answer.response
        return response

    def _unavailable(self, error: Exception) -> ClusterUnavailable:
        return ClusterUnavailable(f"{self._configuration.host}: {type(error).__name__}: {error}")
