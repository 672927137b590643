"""The node: kubelet, kube-proxy and DNS."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from harness import kernel_settings, processes, runtime
from harness.certs import certificates
from harness.constants import CGROUP, CLUSTER_DOMAIN, NODE, NODE_ADDRESS, POD_NETWORK
from harness.control_plane import kubectl
from harness.errors import CommandError
from harness.packages import environment
from harness.paths import HARNESS, state

READY = "jsonpath={.status.conditions[?(@.type=='Ready')].status}"


def start() -> None:
    """Start the node and wait until it is ready for pods."""
    tools = environment()
    kernel_settings.remember()
    config = runtime.write_if_changed(state() / "kubelet.yaml", json.dumps(_kubelet()))
    runtime.write_if_changed(state() / "resolv.conf", f"nameserver {NODE_ADDRESS}\n")
    kubelet = [
        "kubelet",
        f"--config={config}",
        f"--kubeconfig={certificates() / 'kubelet.kubeconfig'}",
        f"--root-dir={state() / 'kubelet'}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_ADDRESS}",
        "--v=2",
    ]
    processes.start("kubelet", kubelet, tools)
    settings = runtime.write_if_changed(state() / "proxy.yaml", json.dumps(_proxy()))
    processes.start("proxy", ["kube-proxy", f"--config={settings}"], tools)
    dns: list[str | Path] = [
        sys.executable,
        "-m",
        "harness.dns",
        certificates() / "dns.kubeconfig",
        NODE_ADDRESS,
    ]
    search = os.pathsep.join(filter(None, [str(HARNESS.parent), os.environ.get("PYTHONPATH")]))
    processes.start("dns", dns, {"PYTHONPATH": search})
    processes.wait_ready("kubelet", ready, 90)


def ready() -> bool:
    """True if the node reports Ready."""
    try:
        return kubectl("get", "node", NODE, "--output", READY).strip() == "True"
    except CommandError:
        return False


def _kubelet() -> dict[str, object]:
    keys = certificates()
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "cgroupsPerQOS": True,
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{runtime.SOCKET}",
        "volumePluginDir": str(state() / "kubelet" / "volume-plugins"),
        "authentication": {
            "x509": {"clientCAFile": f"{keys}/ca.crt"},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{keys}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{keys}/kubelet-server.key",
        "clusterDNS": [NODE_ADDRESS],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(state() / "resolv.conf"),
        "imageGCHighThresholdPercent": 100,  # images are expensive here: none is removed
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "registerNode": True,
        "nodeLeaseDurationSeconds": 8,  # renewed every 2 s; the controller-manager gives up after 20
    }


def _proxy() -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": NODE,
        "clientConnection": {"kubeconfig": str(certificates() / "proxy.kubeconfig")},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "conntrack": {"maxPerCore": 0},  # the connection table's size is the whole machine's
    }
