"""Connections to the API server in this process end with it."""

from __future__ import annotations

import gc
import socket
import time

import pytest
from support.fakekube import FakeKube

LIST = b"GET /api/v1/namespaces/default/configmaps HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.mark.parametrize("request_bytes", [b"", LIST], ids=["idle", "does not read its answer"])
def test_connection_does_not_outlive_the_server(request_bytes):
    with socket.socket() as client:
        with FakeKube(kinds=()) as kube:
            for number in range(100):
                body = {"metadata": {"name": f"big-{number}", "namespace": "default"}}
                body["data"] = {"text": "x" * 100_000}
                kube.call(lambda body=body: kube.store.create("configmaps", body))
            host, port = kube.url.removeprefix("http://").split(":")
            client.connect((host, int(port)))
            client.sendall(request_bytes)
            time.sleep(0.3)  # the server fills the buffers of the connection
        gc.collect()  # an open connection of the server warns here, and a warning fails the test
