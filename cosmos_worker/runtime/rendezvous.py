"""The meeting of a training's nodes: torchrun's options, and the wait for the first node's name. No torch here.

Pods start at different times, and a headless Service gives a pod's name an address only when the pod runs.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cosmos_worker.errors import ConfigError, RetryableError
from cosmos_worker.runtime.process_group import read_rank

logger = logging.getLogger(__name__)

TIMEOUT_VARIABLE = "COSMOS_RENDEZVOUS_SECONDS"
DEFAULT_TIMEOUT_S = 600
LOG_INTERVAL_S = 10.0
ATTEMPT_INTERVAL_S = 1.0
DEFAULT_PORT = 29400


def read_seconds(environment: Mapping[str, str], variable: str, default: int) -> int:
    """A time of at least one second from the environment.

    Raises:
        ConfigError: not a whole number above 0.
    """
    text = environment.get(variable, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"{variable}: got {text!r}; give whole seconds, at least 1")
    return int(text)


@dataclass(frozen=True)
class Rendezvous:
    """The nodes of a run: their number, the number of this one, and the address where they meet."""

    nodes: int
    node_rank: int
    address: str
    port: int
    timeout_s: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Rendezvous:
        """Read the variables of a PyTorchJob, a TrainJob or our indexed Job (PET_*, MASTER_*); without them one node.

        Raises:
            ConfigError: several nodes without an address, or values that are not numbers.
        """

        def read(name: str, default: str) -> str:
            return environment.get(f"PET_{name}") or environment.get(name) or default

        numbers = {
            "PET_NNODES": read("NNODES", "1"),
            "PET_NODE_RANK": environment.get("PET_NODE_RANK") or read_rank(environment),
            "MASTER_PORT": read("MASTER_PORT", str(DEFAULT_PORT)),
        }
        for name, text in numbers.items():
            if not text.isdecimal():
                raise ConfigError(f"{name}: got {text!r}; give a whole number")
        nodes, node_rank, port = (int(text) for text in numbers.values())
        address = read("MASTER_ADDR", "")
        if nodes > 1 and not address:
            raise ConfigError(
                f"MASTER_ADDR: not set, and PET_NNODES is {nodes}; set it to the name of the first node"
            )
        timeout_s = read_seconds(environment, TIMEOUT_VARIABLE, DEFAULT_TIMEOUT_S)
        return cls(nodes, node_rank, address, port, timeout_s)

    def torchrun_arguments(self, processes: int) -> list[str]:
        """Options of torchrun for a fixed group of processes that is never restarted."""
        where = ["--standalone"]
        if self.nodes > 1:
            where = [
                f"--nnodes={self.nodes}",
                f"--node-rank={self.node_rank}",
                f"--master-addr={self.address}",
                f"--master-port={self.port}",
                f"--rdzv-conf=timeout={self.timeout_s}",
            ]
        return [*where, f"--nproc-per-node={processes}", "--max-restarts=0"]


def resolves(address: str) -> bool:
    """True if a host name has an address now."""
    try:
        return bool(socket.getaddrinfo(address, None))
    except OSError:
        return False


def wait_for_address(
    rendezvous: Rendezvous,
    is_stopping: Callable[[], bool],
    resolve: Callable[[str], bool] = resolves,
) -> bool:
    """Wait until the first node's name has an address; returns False if a stop was asked for before.

    Raises:
        RetryableError: it has none after ``timeout_s``.
    """
    found, given_up = threading.Event(), threading.Event()

    def look_up() -> None:
        while not resolve(rendezvous.address):
            if given_up.wait(ATTEMPT_INTERVAL_S):
                return
        found.set()

    # in a thread of its own: a resolver may block for half a minute, a stop must not wait for it
    threading.Thread(target=look_up, daemon=True).start()
    try:
        return _wait(rendezvous, found, is_stopping)
    finally:
        given_up.set()


def _wait(rendezvous: Rendezvous, found: threading.Event, is_stopping: Callable[[], bool]) -> bool:
    started = logged = time.monotonic()
    while not found.wait(0.1):
        now = time.monotonic()
        if is_stopping():
            return False
        if now - started >= rendezvous.timeout_s:
            raise RetryableError(
                f"MASTER_ADDR: {rendezvous.address!r} has no address after {rendezvous.timeout_s} s; is the pod of "
                f"the first node running, and does its Service select it? {TIMEOUT_VARIABLE} sets the time"
            )
        if now - logged >= LOG_INTERVAL_S:
            logged = now
            logger.info(
                "waiting for the first node address=%s waited_s=%.0f of_s=%d",
                rendezvous.address,
                now - started,
                rendezvous.timeout_s,
            )
    return True
