"""Questions to the cluster's registry, over its HTTP interface."""

from __future__ import annotations

import urllib.error
import urllib.request

from harness.constants import REGISTRY_OF_HOST
from harness.oci import MANIFEST

TIMEOUT_S = 30
NOT_FOUND = 404


def has(name: str, tag: str) -> bool:
    """True if the registry has an image of this tag."""
    try:
        return bool(_manifest(name, tag))
    except urllib.error.HTTPError as error:
        if error.code == NOT_FOUND:
            return False
        raise


def copy_tag(name: str, tag: str, other: str) -> None:
    """Give an image a second tag."""
    headers = {"Content-Type": MANIFEST}
    content = _manifest(name, tag)
    _open(urllib.request.Request(_url(name, other), data=content, headers=headers, method="PUT"))


def _url(name: str, tag: str) -> str:
    return f"http://{REGISTRY_OF_HOST}/v2/{name}/manifests/{tag}"


def _manifest(name: str, tag: str) -> bytes:
    return _open(urllib.request.Request(_url(name, tag), headers={"Accept": MANIFEST}))


def _open(request: urllib.request.Request) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=TIMEOUT_S) as response:
        content: bytes = response.read()
    return content
