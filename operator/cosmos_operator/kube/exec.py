"""A command in a container of a pod: its output, piece by piece, and its exit code."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

import aiohttp
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.stream import WsApiClient

from cosmos_operator.errors import ClusterUnavailable, Refused
from cosmos_operator.kube.kinds import KINDS
from cosmos_operator.kube.paths import object_path
from cosmos_operator.kube.proxy import is_exempt

STDOUT, STDERR, RESULT = 1, 2, 3
"""Channels of the protocol v4.channel.k8s.io: the first byte of each message."""
HEARTBEAT_S = 30.0
"""Seconds between two pings; a connection that answers none is given up."""
WRITTEN = {STDOUT, STDERR}


@dataclass(frozen=True)
class Written:
    """A piece of a command's output."""

    data: bytes
    is_error: bool
    """True if it was written to standard error."""


class Executor:
    """Commands in the containers of pods, over connections of their own.

    Args:
        configuration: address and credentials, see :func:`cosmos_operator.kube.client.load_configuration`.
    """

    def __init__(self, configuration: Configuration) -> None:
        self._host = configuration.host
        configuration.client_session_kwargs = {
            "trust_env": not is_exempt(configuration.host, os.environ),
            "proxy": configuration.proxy,
        }
        self._api = WsApiClient(configuration, heartbeat=HEARTBEAT_S)  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        """Close all connections."""
        await self._api.close()  # type: ignore[no-untyped-call]  # the client is typed in part

    async def run(
        self, namespace: str, pod: str, container: str, command: Sequence[str]
    ) -> AsyncGenerator[Written, None]:
        """Run a command, and yield what it writes.

        Raises:
            ClusterUnavailable: no connection, or it broke before the command ended.
            Refused: our account may not do this, the pod is gone, or the command failed.
        """
        path = f"{object_path(KINDS['Pod'], namespace, pod)}/exec"
        query = [("container", container), ("stdout", "true"), ("stderr", "true")]
        query += [("command", word) for word in command]
        result: bytes | None = None
        try:
            method, url, headers, _, _ = await self._api.param_serialize(
                "GET", path, query_params=query, auth_settings=["BearerToken"]
            )
            answer = await self._api.call_api(method, url, headers, _preload_content=False)  # type: ignore[no-untyped-call]
            async with answer.response as connection:
                async for message in connection:
                    data = message.data if isinstance(message.data, bytes) else b""
                    if data[:1] == bytes([RESULT]):
                        result = data[1:]
                    elif len(data) > 1 and data[0] in WRITTEN:
                        yield Written(data[1:], is_error=data[0] == STDERR)
        except aiohttp.WSServerHandshakeError as error:
            raise _handshake_error(error, f"exec in pod {namespace}/{pod}") from error
        except (aiohttp.ClientError, ConfigException, OSError) as error:
            problem = f"{self._host}: {type(error).__name__}: {error}"
            raise ClusterUnavailable(problem) from error
        _check_result(result, f"exec in pod {namespace}/{pod}")


def _handshake_error(
    error: aiohttp.WSServerHandshakeError, action: str
) -> ClusterUnavailable | Refused:
    if error.status in (403, 404):
        why = {403: "our account lacks the right pods/exec", 404: "the pod is gone"}[error.status]
        return Refused(error.status, f"{action}: {why}")
    return ClusterUnavailable(f"{action}: HTTP {error.status}: {error.message}")


def _check_result(result: bytes | None, action: str) -> None:
    """Check the message with which the API server tells the end of a command."""
    if result is None:
        raise ClusterUnavailable(f"{action}: the connection broke before the command ended")
    document = json.loads(result)
    if document.get("status") != "Success":
        raise Refused(int(document.get("code") or 500), f"{action}: {document.get('message')}")
