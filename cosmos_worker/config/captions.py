"""The one form of a caption or prompt, in which it is embedded and compared. No heavy imports."""

from __future__ import annotations

import unicodedata

BYTE_ORDER_MARK = "\ufeff"
INVISIBLE_EDGES = f"{BYTE_ORDER_MARK}\u200b\u2060"
"""Characters without width that mean nothing at the ends of a text: byte order mark, zero-width space, word joiner."""
INVISIBLE_CATEGORIES = ("Cc", "Cf", "Zs", "Zl", "Zp")


class TextError(ValueError):
    """Text or JSON that cannot be used; the message is one line that names neither file nor remedy."""


def normalise_caption(text: str) -> str:
    """A caption or prompt in its one form: NFC, LF as line end, nothing invisible around it.

    Args:
        text: of a text file or of a string in JSON, CSV or YAML; may be empty.

    Returns:
        The caption; empty if no character of the text can be seen.

    Raises:
        TextError: half of a surrogate pair, which no encoding can hold, or a NUL character.
    """
    lone = next((mark for mark in text if "\ud800" <= mark <= "\udfff"), None)
    if lone is not None:
        raise TextError(f"the lone surrogate {lone!r}, half of a character")
    if "\0" in text:
        raise TextError(f"a NUL character at position {text.index(chr(0))}")
    if all(unicodedata.category(mark) in INVISIBLE_CATEGORIES for mark in text):
        return ""
    caption, whole = text.replace("\r\n", "\n").replace("\r", "\n"), ""
    while caption != whole:
        whole = caption
        caption = caption.strip().strip(INVISIBLE_EDGES)
    return unicodedata.normalize("NFC", caption)
