"""Web pages where a file was expected, as login pages, proxies and mirrors send them with status 200."""

from __future__ import annotations

import html
import re
from pathlib import Path, PurePosixPath

from cosmos_worker.errors import DataError

PEEK_BYTES = 1 << 14
"""Bytes in which a page's beginning and its title are looked for."""
MAX_TITLE = 100
BEFORE_PAGE = re.compile(r"^(?:\ufeff|\s+|<\?xml[^>]*\?>|<!--.*?-->)+", re.DOTALL)
"""Text that may stand before the first tag."""
FIRST_TAG = re.compile(r"<(?:!doctype\s+html|html|head|body|title|meta|script)\b", re.IGNORECASE)
TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
PAGE_SUFFIXES = (".html", ".htm", ".xhtml", ".svg", ".xml", ".md", ".txt")
"""Endings of files that may begin as a page does."""


def describe_page(first_bytes: bytes) -> str | None:
    """``an HTML page titled 'Sign in'``, or None if the bytes are not the beginning of a web page."""
    text = first_bytes[:PEEK_BYTES].decode("utf-8", errors="replace")
    if FIRST_TAG.match(BEFORE_PAGE.sub("", text)) is None:
        return None
    return f"an HTML page {_titled(text)}"


def _titled(text: str) -> str:
    match = TITLE.search(text)
    title = " ".join(html.unescape(match[1]).split()) if match else ""
    title = "".join(character for character in title if character.isprintable())
    if not title:
        return "without a title"
    return f"titled {title[:MAX_TITLE]!r}"


def refuse_page(path: Path, where: str, name: str) -> None:
    """Refuse a file that is a web page although its name promises something else.

    Args:
        path: the file.
        where: address that it came from, for the message.
        name: name that it has, or will have; files that may be pages by their ending are not looked at.

    Raises:
        DataError: with the page's title.
    """
    if PurePosixPath(name).suffix.lower() in PAGE_SUFFIXES:
        return
    with path.open("rb") as stream:
        page = describe_page(stream.read(PEEK_BYTES))
    if page is not None:
        raise page_error(where, page)


def page_error(where: str, page: str) -> DataError:
    """The error for an address that gives a page."""
    return DataError(
        f"{where}: got {page} instead of the file; a login page, a proxy or a mirror answers there: open the address "
        "in a browser, then correct the address, the credentials or the proxy"
    )
