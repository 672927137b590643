"""Addresses and secrets as messages, log lines, records and reports show them: without passwords and signatures.

Log lines and the messages of outcomes go through :func:`redacted`, records of sources through :func:`recorded`. No
torch here.
"""

from __future__ import annotations

import hashlib
import os
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"]*")


SECRET_NAME = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_KEY|ACCESS_KEY)$", re.IGNORECASE
)
"""Names of environment variables whose values are never shown."""
MIN_SECRET = 6
"""Characters of the shortest value that counts as a secret: shorter ones stand in many words."""
DIGEST_DIGITS = 16


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


def secrets_of(environment: Mapping[str, str]) -> list[str]:
    """The values of an environment that are never shown, the longest first; passwords in its addresses too."""
    found = {value for name, value in environment.items() if SECRET_NAME.search(name)}
    for value in environment.values():
        if "://" in value:
            found.update(match[1] for match in re.finditer(r"://[^/\s:@]*:([^/\s]+)@", value))
    return sorted((one for one in found if len(one) >= MIN_SECRET), key=len, reverse=True)


def redacted(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A text of any origin without the secrets of this process, its addresses as :func:`shown_address` has them.

    Args:
        text: such as a log line or the text of an exception.
        environment: whose secrets are meant; None = that of this process.
    """
    for secret in secrets_of(os.environ if environment is None else environment):
        text = text.replace(secret, "...")
    return ADDRESS.sub(lambda match: shown_address(match[0]), text) if "://" in text else text


def recorded(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value as records on a volume have it: an address with a secret is shown, with a digest of the whole.

    The digest leaves out user and password, which are the same file's whatever they are.
    """
    if isinstance(value, dict):
        return {name: recorded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [recorded(one) for one in value]
    if not isinstance(value, str) or not ADDRESS.match(value):
        return value
    shown = shown_address(value)
    if shown == value:
        return value
    scheme, _, rest = value.partition("://")
    host, slash, path = rest.partition("/")
    whole = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    return f"{shown}#{hashlib.sha256(whole.encode()).hexdigest()[:DIGEST_DIGITS]}"
