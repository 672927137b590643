"""Addresses as messages, log lines and reports show them: without passwords and signatures."""

from __future__ import annotations

import re
import urllib.parse

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]*")


def shown_address(url: str) -> str:
    """One address with dots for user and query, which may hold a password or a signature.

    Args:
        url: of any scheme; need not be a proper one.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:  # such as a bracket of an IPv6 address that is not closed
        return f"{url.partition('://')[0]}://..."
    user, _, host = parts.netloc.rpartition("@")
    host = f"...@{host}" if user else host
    query = "..." if parts.query else ""
    return urllib.parse.urlunsplit((parts.scheme, host, parts.path, query, ""))


def without_secrets(text: str) -> str:
    """Text with each address in it as :func:`shown_address` shows it; the rest is as it was.

    Args:
        text: what begins as an address is one as a whole, even with spaces in it.
    """
    if ADDRESS.match(text):
        return shown_address(text)
    return ADDRESS.sub(lambda match: shown_address(match[0]), text)
