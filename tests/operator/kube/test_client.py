from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.config import incluster_config
from support.scripted_api import Answer, Rig, scripted_api

from cosmos_operator.errors import ClusterUnavailable, InvalidSpec
from cosmos_operator.kube import client
from cosmos_operator.kube.client import load_configuration
from cosmos_operator.kube.cluster import connect

PODS = "/api/v1/namespaces/n/pods"


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with scripted_api() as rig:
        yield rig


async def test_kubeconfig_with_a_token(tmp_path, rig):
    rig.api.on(f"GET {PODS}/p", Answer(body={"metadata": {}}))
    path = tmp_path / "config"
    path.write_text(kubeconfig(rig.configuration.host, {"token": "secret"}))

    cluster = await connect(path)
    await cluster.get("Pod", "n", "p")
    connection = await cluster.connection()
    await cluster.close()

    assert rig.last.headers["Authorization"] == "Bearer secret"
    assert (connection.server, connection.token) == (rig.configuration.host, "secret")


async def test_kubeconfig_of_the_environment_is_the_default(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = tmp_path / "config"
    path.write_text(kubeconfig("http://there:8080", {}))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/absent:{path}")

    assert (await load_configuration(None)).host == "http://there:8080"


async def test_kubeconfig_that_is_absent_or_wrong_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InvalidSpec, match=r"absent: no such file; run in a pod, or give"):
        await load_configuration(tmp_path / "absent")
    path = tmp_path / "config"
    path.write_text("apiVersion: v1\nkind: Config\n")
    with pytest.raises(InvalidSpec, match=r"connection to the API server: .*current-context"):
        await load_configuration(path)


async def test_token_of_a_pod_is_read_anew(tmp_path, monkeypatch):
    token, certificate = tmp_path / "token", tmp_path / "ca.crt"
    token.write_text("first")
    certificate.write_text(CERTIFICATE)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    cluster = await connect(None)
    connection = await cluster.connection()
    assert (connection.server, connection.token) == ("https://[fd00::1]:443", "first")
    assert connection.ca_file == str(certificate)

    token.write_text("second")
    monkeypatch.setattr(incluster_config, "datetime", _LaterDatetime)

    assert (await cluster.connection()).token == "second"
    token.write_text("")
    with pytest.raises(ClusterUnavailable, match="Token file exists but empty"):
        await cluster.connection()
    with pytest.raises(ClusterUnavailable, match="Token file exists but empty"):
        await cluster.get("Pod", "n", "p")
    await cluster.close()


class _LaterDatetime:
    """A module ``datetime`` whose clock is an hour later at each call."""

    import datetime as _real

    timedelta = _real.timedelta
    _hours = 0

    class datetime:  # noqa: N801 - the name in the module
        @staticmethod
        def now() -> Any:
            _LaterDatetime._hours += 1
            real = _LaterDatetime._real
            return real.datetime.now() + real.timedelta(hours=_LaterDatetime._hours)


def kubeconfig(server: str, user: dict[str, str]) -> str:
    return yaml.safe_dump(
        {
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


def test_import_is_light():
    script = (
        "import sys, cosmos_operator.kube.client\n"
        "names = [name for name in sys.modules if name.startswith('kubernetes.')]\n"
        "models = [name for name in names if '.models.' in name or '.api.' in name]\n"
        "assert not models, models\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_only_two_modules_import_the_client():
    package = Path(client.__file__).parents[1]
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "kubernetes.aio" in path.read_text() or "import kubernetes" in path.read_text()
    }
    assert users == {"kube/client.py", "kube/exec.py"}


CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBdTCCARugAwIBAgIUTtR4lIf1rK4lg7gtasHy86wMo/wwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjUwNzM3NDNaGA8yMTI2MTEwMTA3Mzc0
M1owDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABL9r
rHv1TDETkN+9b2YF5zYuGlcKDK2dHklzsaHg7PmOX7L5z/de39jd4vw8NCuNxS7E
6tOpgrcvW8aFfqULXlyjUzBRMB0GA1UdDgQWBBQMilo9zfcESDPsvnLQc0Tr/STl
5zAfBgNVHSMEGDAWgBQMilo9zfcESDPsvnLQc0Tr/STl5zAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0gAMEUCIFSIYuSHUwg6j/LMDFlfpdsYVGLaCzk9jk3k
9I5Wmr56AiEAuG4f+2JlaDoDHSKqN8obUhJna03zVGS928TAhigbbCs=
-----END CERTIFICATE-----
"""
