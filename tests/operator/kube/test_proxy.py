"""$NO_PROXY as Go's programs read it: addresses, networks, domains, ports."""

import pytest
from support.scripted_api import Answer, scripted_api

from cosmos_operator.controller.kopf_watch import _connection_info
from cosmos_operator.kube.client import Client
from cosmos_operator.kube.proxy import is_exempt

SERVICE = "https://10.96.0.1:443"
SIX = "https://[fd00:10:96::1]:443"
NAME = "https://api.cluster.example.com:6443"


@pytest.mark.parametrize(("url", "listed", "expected"), [
    (SERVICE, "", False),
    (SERVICE, "*", True),
    (SERVICE, "10.96.0.1", True),
    (SERVICE, "10.96.0.0/12", True),
    (SERVICE, " .svc , 10.96.0.0/12 ", True),
    (SERVICE, "10.97.0.0/16", False),
    (SERVICE, "10.96.0.1:443", True),
    (SERVICE, "10.96.0.1:8443", False),
    (SERVICE, "10.96.0.10", False),
    (SERVICE, "fd00::/8", False),
    (SIX, "fd00:10:96::/112", True),
    (SIX, "fd00:10:96::1", True),
    (SIX, "[fd00:10:96::1]:443", True),
    (SIX, "[fd00:10:96:0::1]:6443", False),
    (SIX, "10.96.0.0/12", False),
    (NAME, "example.com", True),
    (NAME, ".example.com", True),
    (NAME, "*.example.com", True),
    (NAME, "EXAMPLE.com:6443", True),
    (NAME, "example.com:443", False),
    (NAME, "ample.com", False),
    (NAME, "api.cluster.example.com", True),
    (NAME, ".api.cluster.example.com", False),
    (NAME, "10.0.0.0/8,a/b,:,1.2.3.4:x", False),
    ("https://127.0.0.1:6443", "", True),
    ("https://[::1]:6443", "", True),
    ("https://localhost:6443", "", True),
])  # fmt: skip
def test_exemption(url, listed, expected):
    assert is_exempt(url, {"NO_PROXY": listed}) is expected
    assert is_exempt(url, {"no_proxy": listed}) is expected


def test_small_letters_win_as_in_other_programs():
    assert not is_exempt(SERVICE, {"no_proxy": "example.com", "NO_PROXY": "10.96.0.0/12"})


@pytest.mark.parametrize(("listed", "direct"), [("127.0.0.0/8", True), ("10.96.0.0/12", False)])
async def test_requests_and_watches_go_past_the_proxy_where_a_network_is_exempt(
    listed, direct, monkeypatch
):
    """Both clients of the operator: 0.0.0.0 reaches this machine too, and is not exempt by itself."""
    listed = listed.replace("127.0.0.0/8", "0.0.0.0/32")
    async with scripted_api() as server:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, server.configuration.host)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv("NO_PROXY", listed)
        server.configuration.host = server.configuration.host.replace("127.0.0.1", "0.0.0.0")
        server.api.on("GET /version", Answer(body={"major": "1"}))
        client = Client(server.configuration)
        try:
            answer = await client.request("GET", "/version")
            connection = await client.connection()
        finally:
            await client.close()

    assert answer.json() == {"major": "1"}
    # a request through a proxy names the server in its first line
    assert server.last.raw_path.startswith("http://") is not direct
    assert _connection_info(connection).trust_env is not direct
