"""containerd with its network plugin, and the image registry: what runs containers before the kubelet asks."""

from __future__ import annotations

import json
from pathlib import Path

from harness import pause_image, processes
from harness.commands import run
from harness.constants import PAUSE_IMAGE, POD_NETWORK, REGISTRY_PORT
from harness.errors import CommandError
from harness.packages import debian, environment
from harness.paths import cache, state

SOCKET = "/run/containerd/containerd.sock"
NAMESPACE = "k8s.io"
"""containerd's namespace of what the kubelet runs; nothing to do with Kubernetes' namespaces."""


def write_if_changed(path: Path, content: str) -> Path:
    """Write a configuration file. kube-proxy ends when its file is touched, even with the same content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text() != content:
        path.write_text(content)
    return path


def start(*, keep_containers: bool = False) -> None:
    """Start containerd and the registry. Images stay; containers of an earlier cluster are removed unless kept."""
    tools = environment()
    write_if_changed(state() / "cni/10-pods.conflist", json.dumps(_network()))
    config = write_if_changed(state() / "containerd.toml", _containerd())
    fresh = processes.pid_of("containerd") is None
    _start_containerd(config, tools)
    if fresh and not keep_containers and _remove_containers():
        processes.stop("containerd")  # it read them at its start and would go on managing them
        _start_containerd(config, tools)
    settings = write_if_changed(state() / "registry.yaml", json.dumps(_registry()))
    processes.start("registry", ["docker-registry", "serve", settings], tools)
    pause_image.import_missing()


def ctr(*arguments: str | Path) -> str:
    """Run containerd's own client, in the namespace of the kubelet's containers."""
    command = ["ctr", "--address", SOCKET, "--namespace", NAMESPACE, *arguments]
    return run(processes.inside(command), environment=environment())


def images() -> dict[str, str]:
    """The names of the node's images, with the digests that they stand for."""
    lines = ctr("images", "list").splitlines()[1:]
    return {words[0]: words[2] for words in map(str.split, lines)}


def pull(image: str) -> None:
    """Let the node pull an image from the registry."""
    ctr("images", "pull", "--plain-http", image)


def _remove_containers() -> bool:
    """Remove the containers, whose processes have gone; returns whether there were any."""
    containers = ctr("containers", "list", "--quiet").split()
    if containers:
        ctr("containers", "delete", *containers)
    return bool(containers)


def _start_containerd(config: Path, tools: dict[str, str]) -> None:
    processes.start("containerd", ["containerd", "--config", config], tools)
    processes.wait_ready("containerd", _answers, 30)


def _answers() -> bool:
    try:
        ctr("version")
    except CommandError:
        return False
    return True


def _network() -> dict[str, object]:
    """A bridge for pods, without address translation: the node has no route to the outside."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_NETWORK}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": "/run/cni-addresses",
    }
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _containerd() -> str:
    """Without CAP_SYS_RESOURCE runc fails on a negative oom_score_adj, hence restrict_oom_score_adj."""
    root = debian()
    runtime = "plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc"
    return f"""version = 2
root = '{state()}/containerd'
state = '/run/containerd'

[grpc]
address = '{SOCKET}'

[plugins.'io.containerd.grpc.v1.cri']
sandbox_image = '{PAUSE_IMAGE}'
restrict_oom_score_adj = true

[plugins.'io.containerd.grpc.v1.cri'.containerd]
snapshotter = 'overlayfs'
discard_unpacked_layers = true

[{runtime}]
runtime_type = 'io.containerd.runc.v2'

[{runtime}.options]
BinaryName = '{root}/usr/sbin/runc'
SystemdCgroup = false

[plugins.'io.containerd.grpc.v1.cri'.cni]
bin_dir = '{root}/usr/lib/cni'
conf_dir = '{state()}/cni'
"""


def _registry() -> dict[str, object]:
    """Configuration of the registry. Its data outlives the cluster, so that only changed layers are pushed."""
    return {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {
            "filesystem": {"rootdirectory": str(cache() / "registry")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f":{REGISTRY_PORT}"},
    }
