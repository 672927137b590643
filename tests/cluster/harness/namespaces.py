"""The cluster's network and mount namespaces, from which no packet reaches a network outside this machine."""

from __future__ import annotations

from pathlib import Path

from harness import processes
from harness.commands import run
from harness.constants import (
    HOST_ADDRESS,
    LINK,
    NODE_ADDRESS,
    NODE_NETWORK_BITS,
    POD_NETWORK,
    SERVICE_NETWORK,
)
from harness.paths import state

READY = "/run/cosmos-cluster-ready"
NAMESPACE_SCRIPT = f"""
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
mount --bind "$1/log" /var/log
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$1/lib.upper,workdir=$1/lib.work" /var/lib
ip link set lo up
: > {READY}
exec sleep infinity
"""
"""Gives the daemons a /run, /var/log and /var/lib of their own, so that they write nothing to this machine's."""


def create() -> None:
    """Start the process that holds the namespaces, and lay the cable to them."""
    if processes.pid_of("holder"):
        return
    for name in ("log", "lib.upper", "lib.work"):
        (state() / name).mkdir(parents=True, exist_ok=True)
    unshare = ["unshare", "--mount", "--net", "--propagation", "private", "--"]
    command: list[str | Path] = [*unshare, "sh", "-ec", NAMESPACE_SCRIPT, "sh", state()]
    processes.start("holder", command, {}, in_cluster=False)
    processes.wait_ready("holder", _ready, 10)
    _lay_cable()


def _ready() -> bool:
    pid = processes.pid_of("holder")
    return pid is not None and Path(f"/proc/{pid}/root{READY}").exists()


def _lay_cable() -> None:
    """Connect the namespace to the host only: there is no default route in it.

    The host gets routes to pods and services through the cable, so that no answer to them leaves the machine.
    """
    remove_cable()
    pid = processes.pid_of("holder")
    run(["ip", "link", "add", LINK, "type", "veth", "peer", "name", "eth0", "netns", str(pid)])
    run(["ip", "address", "add", f"{HOST_ADDRESS}/{NODE_NETWORK_BITS}", "dev", LINK])
    run(["ip", "link", "set", LINK, "up"])
    for network in (POD_NETWORK, SERVICE_NETWORK):
        run(["ip", "route", "add", network, "via", NODE_ADDRESS, "dev", LINK])
    steps = (
        f"ip address add {NODE_ADDRESS}/{NODE_NETWORK_BITS} dev eth0",
        "ip link set eth0 up",
        f"ip route add {SERVICE_NETWORK} dev eth0",  # a route for the node's own calls, before kube-proxy rewrites them
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "if [ -d /proc/sys/net/bridge ]; then echo 1 > /proc/sys/net/bridge/bridge-nf-call-iptables; fi",
    )
    run(processes.inside(["sh", "-ec", "\n".join(steps)]))


def remove_cable() -> None:
    """Remove the cable, and with it the host's routes."""
    if Path(f"/sys/class/net/{LINK}").exists():
        run(["ip", "link", "delete", LINK])
