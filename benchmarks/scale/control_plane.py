"""A real control plane without a node: etcd, kube-apiserver, the controllers of Jobs, kube-scheduler."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import api_server
from harness.certs import certificates

OPERATOR, ADMINISTRATOR = "cosmos-operator", "benchmark"
"""Users, whose names are their tokens too: this API server listens on loopback only, and ends with the benchmark."""
CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "ttl-after-finished-controller",
)
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "users": [OPERATOR]}, {"level": "None"}],
}
"""The requests of the operator when they have been answered, a watch also when it begins, and nobody else's."""


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane."""

    url: str
    kubeconfig: Path
    """Kubeconfig of the operator."""
    audit_log: Path
    tls: ssl.SSLContext
    """Trusts the API server."""
    controllers: subprocess.Popen[bytes]
    """The kube-controller-manager."""


@contextmanager
def running(folder: Path) -> Iterator[ControlPlane]:
    """A control plane that ends with the block; its data and logs are in the folder.

    Raises:
        HarnessError: it did not start.
    """
    tokens, policy, audit = (folder / n for n in ("tokens.csv", "audit-policy.json", "audit.log"))
    policy.write_text(json.dumps(AUDIT_POLICY), encoding="utf-8")
    tokens.write_text(
        f"{OPERATOR},{OPERATOR},1\n{ADMINISTRATOR},{ADMINISTRATOR},2,system:masters\n",
        encoding="utf-8",
    )
    options = [
        f"--token-auth-file={tokens}",
        f"--audit-policy-file={policy}",
        f"--audit-log-path={audit}",
        "--audit-log-maxsize=10000",  # MB: the log is not rotated
        "--kubelet-preferred-address-types=InternalIP",
    ]
    with api_server.running(folder, options) as server, ExitStack() as stack:
        controllers = api_server.start_program(
            [
                "kube-controller-manager",
                f"--kubeconfig={server.kubeconfig}",
                f"--controllers={','.join(CONTROLLERS)}",
                "--concurrent-job-syncs=20",
                "--kube-api-qps=1000",
                "--kube-api-burst=2000",
                "--leader-elect=false",
                "--secure-port=0",
            ],
            folder / "controller-manager.log",
            stack,
        )
        scheduler = ["kube-scheduler", f"--kubeconfig={server.kubeconfig}", "--leader-elect=false"]
        scheduler += ["--secure-port=0", "--kube-api-qps=1000", "--kube-api-burst=2000"]
        api_server.start_program(scheduler, folder / "scheduler.log", stack)
        kubeconfig = folder / "operator.kubeconfig"
        kubeconfig.write_text(_kubeconfig(server.url), encoding="utf-8")
        tls = ssl.create_default_context(cafile=str(certificates() / "ca.crt"))
        yield ControlPlane(server.url, kubeconfig, audit, tls, controllers)


def _kubeconfig(url: str) -> str:
    cluster = {"server": url, "certificate-authority": str(certificates() / "ca.crt")}
    context = {"cluster": "local", "user": OPERATOR, "namespace": "default"}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": OPERATOR, "user": {"token": OPERATOR}}],
        "contexts": [{"name": "local", "context": context}],
        "current-context": "local",
    }
    return json.dumps(document)
