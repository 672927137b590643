"""``cosmos view``: serves the pages of a folder to browsers until it is stopped."""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.volumes import expanded_path

MISSING = "view: the package {name} is missing; install the extra 'view': pip install 'cosmos-post-training[view]'"
EVERY = "*"
ANY_ADDRESS = ("0.0.0.0", "::", EVERY)  # noqa: S104 - only compared with


def run(options: argparse.Namespace) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        options: folder, host, port, data, allow_host, tensorboard.

    Raises:
        ConfigError: no such folder, a port that is taken, or packages that are not installed.
    """
    try:
        import uvicorn

        from cosmos_worker.view.app import build_app
        from cosmos_worker.view.folders import Folders
        from cosmos_worker.view.pages import Viewer
    except ModuleNotFoundError as error:
        raise ConfigError(MISSING.format(name=error.name)) from None
    main, further = _folder(options.folder), tuple(map(_folder, options.data))
    viewer = Viewer(Folders.of(main, further), tensorboard=_checked_link(options.tensorboard))
    hosts = [*options.allow_host, *([] if options.host in ANY_ADDRESS else [options.host])]
    listener = open_listener(options.host, options.port)
    config = uvicorn.Config(
        build_app(viewer, hosts), log_level="warning", access_log=False, server_header=False,
        timeout_graceful_shutdown=3,
    )  # fmt: skip
    port = listener.getsockname()[1]
    host = "localhost" if options.host in ANY_ADDRESS else options.host
    name = f"[{host}]" if ":" in host else host
    sys.stdout.write(f"http://{name}:{port}/ shows {main}; Ctrl-C ends it\n")
    sys.stdout.flush()
    uvicorn.Server(config).run(sockets=[listener])


def _folder(text: str) -> Path:
    path = expanded_path(text)
    if not path.is_dir():
        raise ConfigError(
            f"{text}: is no folder; name the workspace of cosmos run (runs/JOB), a claim's folder, or one above"
        )
    return path


def _checked_link(address: str | None) -> str:
    if address and not address.startswith(("http://", "https://")):
        raise ConfigError(
            f"--tensorboard {address}: is no address; give one such as http://localhost:6006"
        )
    return address or ""


def open_listener(host: str, port: int) -> socket.socket:
    """A socket at an address; at every one of this machine, IPv4 and IPv6 alike, for ``*``."""
    both = host == EVERY and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    address = "" if host == EVERY else host
    try:
        return socket.create_server((address, port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise ConfigError(
            f"{host}:{port}: cannot be listened at ({error.strerror}); choose another --port (0 = any that is free) "
            "or --host"
        ) from None
