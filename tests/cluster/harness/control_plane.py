"""The control plane: etcd, API server, controller-manager and scheduler."""

from __future__ import annotations

from pathlib import Path

from harness import processes
from harness.certs import certificates
from harness.commands import run
from harness.constants import (
    API_SERVER_PORT,
    CLUSTER_DOMAIN,
    NODE_ADDRESS,
    POD_NETWORK,
    SERVICE_NETWORK,
)
from harness.errors import CommandError
from harness.packages import environment
from harness.paths import kubeconfig, state

ETCD = "http://127.0.0.1:2379"
ETCD_PEER = "http://127.0.0.1:2380"
SCHEDULER_HEALTH = "https://127.0.0.1:10259/healthz"
DAEMONS = ("scheduler", "controller-manager", "apiserver", "etcd")
"""In the order of stopping."""


def start() -> None:
    """Start the control plane and wait until it answers."""
    tools = environment()
    processes.start("etcd", _etcd(), tools)
    processes.start("apiserver", _api_server(), tools)
    processes.wait_ready("apiserver", _answers, 90)
    processes.start("controller-manager", _controller_manager(), tools)
    processes.start("scheduler", _scheduler(), tools)
    processes.wait_ready("controller-manager", _controls, 60)
    processes.wait_ready("scheduler", _schedules, 60)


def kubectl(*arguments: str, text_in: str | None = None, check: bool = True) -> str:
    """Run kubectl as the administrator."""
    # kubectl's own cache of what the server has would outlive a cluster; this one is removed with it.
    settings = {"KUBECONFIG": str(kubeconfig()), "KUBECACHEDIR": str(state() / "kubectl-cache")}
    return run(
        ["kubectl", *arguments],
        environment={**environment(), **settings},
        text_in=text_in,
        check=check,
    )


def _succeeds(*arguments: str) -> bool:
    try:
        kubectl(*arguments)
    except CommandError:
        return False
    return True


def _answers() -> bool:
    return _succeeds("get", "--raw", "/readyz")


def _controls() -> bool:
    return _succeeds("--namespace=default", "get", "serviceaccount", "default")


def _schedules() -> bool:
    curl = ["curl", "--silent", "--fail", "--insecure", "--noproxy", "*", SCHEDULER_HEALTH]
    try:
        return run(processes.inside(curl)).strip() == "ok"
    except CommandError:
        return False


def _etcd() -> list[str]:
    return etcd_command(state() / "etcd", ETCD, ETCD_PEER)


def etcd_command(folder: Path, url: str, peer_url: str) -> list[str]:
    """The command line of an etcd that keeps its data in a folder and need not survive the machine."""
    return [
        "etcd",
        "--name=etcd",
        f"--data-dir={folder}",
        "--unsafe-no-fsync",
        "--log-level=warn",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=etcd={peer_url}",
    ]


def _api_server() -> list[str]:
    keys = certificates()
    return [
        *api_server_command(ETCD, NODE_ADDRESS, API_SERVER_PORT),
        "--bind-address=0.0.0.0",
        f"--kubelet-client-certificate={keys}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={keys}/apiserver-kubelet-client.key",
        f"--kubelet-certificate-authority={keys}/ca.crt",
        "--kubelet-preferred-address-types=InternalIP",
        f"--requestheader-client-ca-file={keys}/ca.crt",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={keys}/front-proxy-client.crt",
        f"--proxy-client-key-file={keys}/front-proxy-client.key",
    ]


def api_server_command(etcd_url: str, address: str, port: int) -> list[str]:
    """The command line of the API server, as far as it is the same with and without a node."""
    keys = certificates()
    return [
        "kube-apiserver",
        f"--etcd-servers={etcd_url}",
        f"--advertise-address={address}",
        f"--secure-port={port}",
        "--authorization-mode=Node,RBAC",
        # the second one is on where rights are guarded more closely, such as on OpenShift
        "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
        "--allow-privileged=true",
        f"--client-ca-file={keys}/ca.crt",
        f"--tls-cert-file={keys}/apiserver.crt",
        f"--tls-private-key-file={keys}/apiserver.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-account-key-file={keys}/service-accounts.pub",
        f"--service-account-signing-key-file={keys}/service-accounts.key",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--profiling=false",
    ]


def _identity(name: str) -> list[str]:
    """Flags with a controller's kubeconfig, and with that for checking its own callers."""
    path = certificates() / f"{name}.kubeconfig"
    return [
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--profiling=false",
    ]


def _controller_manager() -> list[str]:
    keys = certificates()
    return [
        "kube-controller-manager",
        *_identity("controller-manager"),
        "--use-service-account-credentials",
        f"--service-account-private-key-file={keys}/service-accounts.key",
        f"--root-ca-file={keys}/ca.crt",
        f"--cluster-signing-cert-file={keys}/ca.crt",
        f"--cluster-signing-key-file={keys}/ca.key",
        "--allocate-node-cidrs",
        f"--cluster-cidr={POD_NETWORK}",
        "--node-cidr-mask-size=24",
        f"--service-cluster-ip-range={SERVICE_NETWORK}",
        "--kube-api-qps=300",  # the default of 20 makes a fresh cluster take 5 s longer
        "--kube-api-burst=600",
        "--node-monitor-grace-period=20s",  # instead of 50: tests wait for it
    ]


def _scheduler() -> list[str]:
    return ["kube-scheduler", *_identity("scheduler")]
