"""The cluster's DNS: ``python -m harness.dns KUBECONFIG ADDRESS``, with the standard library only.

It answers A questions about Services. A headless Service has one address for each ready endpoint, and
``<hostname>.<service>.<namespace>.svc.cluster.local`` is that endpoint. Every other name does not exist.
"""

from __future__ import annotations

import base64
import json
import logging
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.constants import CLUSTER_DOMAIN

logger = logging.getLogger("dns")

PORT = 53
TTL_S = 1
TYPE_A = 1
NO_SUCH_NAME = 3
ANSWER_FLAGS = 0x8580  # an answer, authoritative, recursion asked for and offered
POINTER_TO_QUESTION = b"\xc0\x0c"
HEADER = struct.Struct(">2sHHHHH")
RECORD = struct.Struct(">HHIH")
WATCH_S = 300


class Records:
    """Services and EndpointSlices, kept up to date by two watches."""

    def __init__(self) -> None:
        self.services: dict[tuple[str, str], dict[str, Any]] = {}
        self.slices: dict[tuple[str, str], dict[str, Any]] = {}

    def addresses(self, name: str) -> list[str] | None:
        """The addresses of a name; None when there is no such name."""
        suffix = f".svc.{CLUSTER_DOMAIN}"
        if not name.endswith(suffix):
            return None
        labels = name.removesuffix(suffix).split(".")
        if len(labels) not in (2, 3):
            return None
        service, namespace = labels[-2:]
        hostname = labels[0] if len(labels) == 3 else None
        found = self.services.get((namespace, service))
        if found is None:
            return None
        address = found["spec"].get("clusterIP")
        if address and address != "None":
            return None if hostname else [address]
        return sorted(self._endpoints(namespace, service, hostname)) or None

    def _endpoints(self, namespace: str, service: str, hostname: str | None) -> Iterator[str]:
        for (where, _), item in list(self.slices.items()):
            labels = item["metadata"].get("labels", {})
            if where != namespace or labels.get("kubernetes.io/service-name") != service:
                continue
            for endpoint in item.get("endpoints") or ():
                ready = endpoint.get("conditions", {}).get("ready", True)
                if ready and hostname in (None, endpoint.get("hostname")):
                    yield from endpoint["addresses"]


def answer(question: bytes, addresses: Callable[[str], list[str] | None]) -> bytes:
    """The answer to one DNS message with one question."""
    labels, position = [], HEADER.size
    while length := question[position]:
        labels.append(question[position + 1 : position + 1 + length].decode())
        position += 1 + length
    end = position + 5
    (kind,) = struct.unpack_from(">H", question, position + 1)
    found = addresses(".".join(labels).lower())
    answers = found if found and kind == TYPE_A else []
    flags = ANSWER_FLAGS | (0 if found else NO_SUCH_NAME)
    records = b"".join(
        POINTER_TO_QUESTION + RECORD.pack(TYPE_A, 1, TTL_S, 4) + socket.inet_aton(address)
        for address in answers
    )
    header = HEADER.pack(question[:2], flags, 1, len(answers), 0, 0)
    return header + question[HEADER.size : end] + records


class Server:
    """The API server, as the client of a kubeconfig."""

    def __init__(self, kubeconfig: Path) -> None:
        document = json.loads(kubeconfig.read_text())
        cluster, user = document["clusters"][0]["cluster"], document["users"][0]["user"]
        self._address = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        with tempfile.NamedTemporaryFile() as file:
            for key in ("client-certificate-data", "client-key-data"):
                file.write(base64.b64decode(user[key]) + b"\n")
            file.flush()
            context.load_cert_chain(file.name)
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )

    def follow(self, path: str, store: dict[tuple[str, str], dict[str, Any]]) -> None:
        """List and watch objects into ``store``, for ever."""
        while True:
            try:
                self._list_and_watch(path, store)
            except (OSError, ValueError, KeyError) as error:
                logger.info("watch of %s: %s", path, error)
                time.sleep(0.5)

    def _list_and_watch(self, path: str, store: dict[tuple[str, str], dict[str, Any]]) -> None:
        with self._opener.open(f"{self._address}{path}", timeout=10) as response:
            listed = json.load(response)
        items = {_key(item): item for item in listed["items"]}
        for gone in store.keys() - items.keys():
            del store[gone]
        store.update(items)
        since = listed["metadata"]["resourceVersion"]
        query = f"watch=1&resourceVersion={since}&timeoutSeconds={WATCH_S}"
        with self._opener.open(f"{self._address}{path}?{query}", timeout=WATCH_S + 30) as events:
            for line in events:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                if event["type"] == "DELETED":
                    store.pop(_key(event["object"]), None)
                else:
                    store[_key(event["object"])] = event["object"]


def _key(item: dict[str, Any]) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def serve_tcp(address: str, reply: Callable[[bytes], bytes]) -> None:
    """Answer over TCP: one question a connection."""
    with socket.create_server((address, PORT)) as listener:
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    connection.settimeout(2)
                    (size,) = struct.unpack(">H", connection.recv(2))
                    message = reply(connection.recv(size))
                    connection.sendall(struct.pack(">H", len(message)) + message)
                except (OSError, struct.error, IndexError, UnicodeDecodeError) as error:
                    logger.info("question over TCP: %s", error)


def serve_udp(address: str, reply: Callable[[bytes], bytes]) -> None:
    """Answer over UDP, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((address, PORT))
        while True:
            question, client = listener.recvfrom(4096)
            try:
                listener.sendto(reply(question), client)
            except (OSError, struct.error, IndexError, UnicodeDecodeError) as error:
                logger.info("question from %s: %s", client, error)


def main() -> None:
    """Serve until stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    kubeconfig, address = Path(sys.argv[1]), sys.argv[2]
    server, records = Server(kubeconfig), Records()

    def reply(question: bytes) -> bytes:
        return answer(question, records.addresses)

    followed = {
        "/api/v1/services": records.services,
        "/apis/discovery.k8s.io/v1/endpointslices": records.slices,
    }
    for path, store in followed.items():
        threading.Thread(target=server.follow, args=(path, store), daemon=True).start()
    threading.Thread(target=serve_tcp, args=(address, reply), daemon=True).start()
    serve_udp(address, reply)


if __name__ == "__main__":
    main()
