"""Decides whether requests to the API server go through the proxy of $HTTPS_PROXY, by the rules of Go's programs.

Python's clients take the entries of $NO_PROXY for names of hosts only; kubectl and every controller in Go also know
networks such as 10.96.0.0/12 there, and one $NO_PROXY is given to all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit


def is_exempt(url: str, environment: Mapping[str, str]) -> bool:
    """True if $NO_PROXY says that requests to this address use no proxy.

    Entries are separated by commas: ``*``, an IP address, a network, or a domain, which stands for its subdomains too,
    and with a dot before it for these only; each but ``*`` and networks may end with a port. This machine itself is
    always exempt.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".")
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    if host == "localhost" or _is_loopback(host):
        return True
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    entries = (entry.strip().lower() for entry in listed.split(","))
    return any(_covers(entry, host, port) for entry in entries if entry)


def _covers(entry: str, host: str, port: int) -> bool:
    """True if an entry stands for this host and port."""
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:  # a name, or an entry with a port
        pass
    name, wanted = _split_port(entry)
    if wanted and wanted != str(port):
        return False
    try:
        return ip_address(host) == ip_address(name)
    except ValueError:
        name = name.removeprefix("*")
        suffix = name if name.startswith(".") else f".{name}"
        return host == name or host.endswith(suffix)


def _split_port(entry: str) -> tuple[str, str]:
    """Host and port of ``host``, ``host:port``, ``[address]`` or ``[address]:port``; the port may be empty."""
    if entry.startswith("["):
        address, _, port = entry[1:].partition("]")
        return address, port.removeprefix(":")
    name, colon, port = entry.rpartition(":")
    return (name, port) if colon and ":" not in name else (entry, "")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
