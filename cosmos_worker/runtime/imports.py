"""Imports of libraries: without what they print about each other, and of those that need not be installed."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from cosmos_worker.errors import ConfigError

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


def import_for(option: str, module: str, remedy: str) -> ModuleType:
    """Import what an option needs; warnings of its own code are not ours.

    Args:
        option: ``name: value``, for the message.
        module: what to import; it may be ours and import the library.
        remedy: what to do where that fails.

    Raises:
        ConfigError: it cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except Exception as error:  # missing libraries of CUDA raise OSError and RuntimeError
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]
        raise ConfigError(f"{option} cannot be used here ({reason}); {remedy}") from None
