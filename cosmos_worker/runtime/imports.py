"""Imports of libraries without what they say about each other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

TELLER = logging.getLogger("torch.utils._pytree")
ABOUT_ENUMS = "is an Enum subclass and is now natively supported"
LIBRARY = "torchao"


@contextmanager
def importing_transformers() -> Iterator[None]:
    """Leave out what PyTorch logs about Enum classes of torchao, which transformers imports where it is installed.

    Nothing else is left out, and nothing afterwards.
    """
    TELLER.addFilter(_is_for_people)
    try:
        yield
    finally:
        TELLER.removeFilter(_is_for_people)


def _is_for_people(record: logging.LogRecord) -> bool:
    named = record.args[0] if isinstance(record.args, tuple) and record.args else None
    of_library = str(getattr(named, "__module__", "")).partition(".")[0] == LIBRARY
    return not (of_library and ABOUT_ENUMS in record.msg)
