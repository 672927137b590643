"""kube-apiserver with etcd alone, on loopback: no node, no controllers, no root.

It validates, completes and merges objects as the API server of the whole cluster does. No controller acts on them.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import build, training_operator
from harness.certs import certificates, kubeconfig_document
from harness.control_plane import api_server_command, etcd_command
from harness.errors import HarnessError

ADDRESS = "127.0.0.1"
CLIENT = "admin"
STARTS = 3
"""Tries to start: another program may take a free port before ours listens on it; then other ports are tried."""
READY_S = 60
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
"""Prefix of a command: the kernel kills the program when the process that started it has ended."""
TOOLS = ("openssl", "setpriv")


@dataclass(frozen=True)
class ApiServer:
    """A running API server."""

    url: str
    kubeconfig: Path
    """Kubeconfig of a client with all permissions."""


def missing() -> list[str]:
    """The programs and files without which the API server, or a test of it, cannot run, in words."""
    found = [tool for tool in TOOLS if not shutil.which(tool)]
    if not build.kubernetes_is_built():
        found.append("kube-apiserver")
    if not build.etcd_is_built():
        found.append("etcd")
    if not training_operator.crd_file().exists():
        found.append("the CustomResourceDefinition of PyTorchJobs")
    return found


def build_programs() -> None:
    """Make what is missing, from Go modules.

    Raises:
        HarnessError: something is missing that is not made here.
    """
    if not missing():
        return
    with build.shared_objects():
        build.kubernetes()
        build.etcd()
        training_operator.controller().build()
    left = missing()
    if left:
        raise HarnessError(f"missing, and not built by this command: {', '.join(left)}")


@contextmanager
def running(folder: Path, options: Sequence[str] = ()) -> Iterator[ApiServer]:
    """An empty API server that ends with the block; its data and logs are in the folder.

    Args:
        folder: for data and logs.
        options: further options of kube-apiserver.

    Raises:
        HarnessError: it did not start; the message ends with its log.
    """
    with ExitStack() as stack:
        yield _start(folder, options, stack)


def _start(folder: Path, options: Sequence[str], stack: ExitStack) -> ApiServer:
    for number in range(1, STARTS + 1):
        with ExitStack() as attempt:
            data = folder / f"start-{number}"
            data.mkdir()
            attempt.callback(shutil.rmtree, data / "etcd", ignore_errors=True)
            try:
                server = _start_once(data, options, attempt)
            except _PortTakenError:
                if number == STARTS:
                    raise
                continue
            stack.enter_context(attempt.pop_all())
            return server
    raise AssertionError("unreachable")


class _PortTakenError(HarnessError):
    """The port, free when it was chosen, is used by another program now."""


def _start_once(folder: Path, options: Sequence[str], stack: ExitStack) -> ApiServer:
    etcd_port, peer_port, port = _free_ports(3)
    etcd_url, url = f"http://{ADDRESS}:{etcd_port}", f"https://{ADDRESS}:{port}"
    keys = certificates()
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(json.dumps(kubeconfig_document(keys, CLIENT, url)))
    etcd = etcd_command(folder / "etcd", etcd_url, f"http://{ADDRESS}:{peer_port}")
    alone = [
        f"--bind-address={ADDRESS}",
        "--endpoint-reconciler-type=none",
        # nobody makes the service accounts that it asks for
        "--disable-admission-plugins=ServiceAccount",
    ]
    server = [*api_server_command(etcd_url, ADDRESS, port), *alone, *options]
    daemons = [
        start_program(etcd, folder / "etcd.log", stack),
        start_program(server, folder / "api-server.log", stack),
    ]
    _wait_ready(url, keys, daemons, folder)
    return ApiServer(url, kubeconfig)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind((ADDRESS, 0))
        return [int(one.getsockname()[1]) for one in sockets]


def start_program(command: list[str], log: Path, stack: ExitStack) -> subprocess.Popen[bytes]:
    """Start a program of Kubernetes or etcd, which ends with the stack at the latest."""
    folders = [build.kubernetes(), build.etcd(), os.environ["PATH"]]
    environment = {**os.environ, "PATH": ":".join(map(str, folders))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*WITH_US, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the tests, which then stop it in order
        )
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill a daemon: it keeps no data that an orderly end would save."""
    process.kill()
    process.wait()


def _wait_ready(url: str, keys: Path, daemons: list[subprocess.Popen[bytes]], folder: Path) -> None:
    context = ssl.create_default_context(cafile=str(keys / "ca.crt"))
    context.load_cert_chain(keys / f"{CLIENT}.crt", keys / f"{CLIENT}.key")
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
    )
    end = time.monotonic() + READY_S
    while not _answers(opener, f"{url}/readyz"):
        has_ended = any(daemon.poll() is not None for daemon in daemons)
        if has_ended or time.monotonic() > end:
            what = "ended" if has_ended else f"was not ready after {READY_S} s"
            said = "\n".join(_tail(folder / name) for name in ("etcd.log", "api-server.log"))
            error = _PortTakenError if "address already in use" in said else HarnessError
            raise error(f"the API server {what}:\n{said}")
        time.sleep(0.05)


def _answers(opener: urllib.request.OpenerDirector, url: str) -> bool:
    try:
        with opener.open(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join([f"{log} ends with:", *log.read_text(errors="replace").splitlines()[-lines:]])
