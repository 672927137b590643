"""One certificate authority, the servers' certificates, and a kubeconfig for each client."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.commands import run
from harness.constants import (
    API_SERVER,
    CLUSTER_DOMAIN,
    KUBERNETES_SERVICE_ADDRESS,
    NODE,
    NODE_ADDRESS,
)
from harness.paths import artifact

DAYS = 3650
API_SERVER_NAMES = (
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    f"DNS:kubernetes.default.svc.{CLUSTER_DOMAIN}",
    "DNS:localhost",
    "IP:127.0.0.1",
    f"IP:{NODE_ADDRESS}",
    f"IP:{KUBERNETES_SERVICE_ADDRESS}",
)
NODE_NAMES = (f"DNS:{NODE}", f"IP:{NODE_ADDRESS}", "IP:127.0.0.1")


@dataclass(frozen=True)
class Certificate:
    """Subject and names of a certificate."""

    name: str
    subject: str
    alternative_names: tuple[str, ...] = ()
    """Host names and addresses of a server; empty for a client."""


SERVERS = (
    Certificate("apiserver", "/CN=kube-apiserver", API_SERVER_NAMES),
    Certificate("kubelet-server", f"/O=system:nodes/CN=system:node:{NODE}", NODE_NAMES),
)
CLIENTS = (
    Certificate("apiserver-kubelet-client", "/O=system:masters/CN=apiserver-kubelet-client"),
    Certificate("front-proxy-client", "/CN=front-proxy-client"),
)
KUBECONFIGS = (
    Certificate("admin", "/O=system:masters/CN=admin"),
    Certificate("controller-manager", "/CN=system:kube-controller-manager"),
    Certificate("scheduler", "/CN=system:kube-scheduler"),
    Certificate("proxy", "/CN=system:kube-proxy"),
    Certificate("kubelet", f"/O=system:nodes/CN=system:node:{NODE}"),
    Certificate("dns", "/O=system:masters/CN=cosmos-cluster-dns"),
)


def certificates() -> Path:
    """The folder with all keys (NAME.key), certificates (NAME.crt) and kubeconfigs (NAME.kubeconfig)."""
    return artifact(
        "certificates", [repr((SERVERS, CLIENTS, KUBECONFIGS, API_SERVER, DAYS))], _make
    )


def _make(folder: Path) -> None:
    folder.chmod(0o700)  # the folder's mode protects the keys in it
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "ca.key")
    extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    added = [word for extension in extensions for word in ("-addext", extension)]
    subject = ("-subj", "/CN=cosmos-cluster", "-days", str(DAYS))
    _openssl(folder, "req", "-x509", "-new", "-key", "ca.key", *subject, "-out", "ca.crt", *added)
    _openssl(folder, "genrsa", "-out", "service-accounts.key", "2048")
    _openssl(
        folder, "rsa", "-in", "service-accounts.key", "-pubout", "-out", "service-accounts.pub"
    )
    for certificate in (*SERVERS, *CLIENTS, *KUBECONFIGS):
        _issue(folder, certificate)
    for certificate in KUBECONFIGS:
        _write_kubeconfig(folder, certificate.name)


def _issue(folder: Path, certificate: Certificate) -> None:
    key, request, extensions = (f"{certificate.name}.{end}" for end in ("key", "csr", "ext"))
    usage = "serverAuth" if certificate.alternative_names else "clientAuth"
    lines = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", f"extendedKeyUsage={usage}"]
    if certificate.alternative_names:
        lines.append(f"subjectAltName={','.join(certificate.alternative_names)}")
    (folder / extensions).write_text("\n".join(lines))
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    _openssl(folder, "req", "-new", "-key", key, "-subj", certificate.subject, "-out", request)
    authority: Sequence[str] = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
    validity = ("-days", str(DAYS), "-extfile", extensions)
    signed = ("-out", f"{certificate.name}.crt")
    _openssl(folder, "x509", "-req", "-in", request, *authority, *validity, *signed)
    (folder / request).unlink()
    (folder / extensions).unlink()


def _write_kubeconfig(folder: Path, name: str) -> None:
    text = json.dumps(kubeconfig_document(folder, name, API_SERVER), indent=1)
    (folder / f"{name}.kubeconfig").write_text(text)


def kubeconfig_document(folder: Path, name: str, server: str) -> dict[str, object]:
    """A kubeconfig, with the keys of a client inside, for the API server at this URL."""

    def embedded(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    context = {"cluster": "local", "user": name, "namespace": "default"}
    cluster = {"server": server, "certificate-authority-data": embedded("ca.crt")}
    user = {
        "client-certificate-data": embedded(f"{name}.crt"),
        "client-key-data": embedded(f"{name}.key"),
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": "local", "context": context}],
        "current-context": "local",
    }


def _openssl(folder: Path, *arguments: str) -> None:
    run(["openssl", *arguments], folder=folder)
