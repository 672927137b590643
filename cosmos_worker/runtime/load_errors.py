"""Errors of loading a file of somebody else, in words for people. No torch here.

PyTorch answers a pickle that names anything but tensors with the advice to read it without its protection, which
would run what the file says. The message here names what was refused and gives no such advice.
"""

from __future__ import annotations

import pickle
import re
import struct

from cosmos_worker.config.addresses import redacted
from cosmos_worker.config.log_lines import escaped

LOAD_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,  # RecursionError too
    LookupError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    ImportError,
    AssertionError,
    struct.error,
    pickle.UnpicklingError,
)
"""Errors that libraries raise for damaged and hostile files."""
MAX_REASON = 200

_REFUSED = re.compile(
    r"(?:GLOBAL|global|class|function|[Tt]ype) (?P<name>[A-Za-z_][\w]*(?:\.[\w<>]+)+)(?= was not| whose|,| |$)"
)
_ADVICE = re.compile(r"weights_only|add_safe_globals|safe_globals|[Ww]eights only load")
_DETAIL = re.compile(
    r"WeightsUnpickler error:\s*(?P<detail>.*?)(?=Please|Check the documentation|$)", re.DOTALL
)


def refused_name(text: str) -> str | None:
    """The name in a pickle that PyTorch has refused, such as ``os.system``; None if the error is another one."""
    match = _REFUSED.search(text) if _ADVICE.search(text) else None
    return match["name"] if match else None


def describe_load_error(error: BaseException) -> str:
    """An error of loading a file in one short line, without advice to trust the file."""
    text = str(error)
    if name := refused_name(text):
        return (
            f"refused: it asks for {escaped(name)}, which is no part of a tensor and could run code"
        )
    if _ADVICE.search(text):
        match = _DETAIL.search(text)
        detail = " ".join(match["detail"].split()) if match else ""
        found = f": {escaped(detail)[:MAX_REASON]}" if detail and not _ADVICE.search(detail) else ""
        return f"refused: it holds something else than tensors{found}"
    return escaped(" ".join(redacted(text).split()))[:MAX_REASON] or type(error).__name__
