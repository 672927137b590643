"""Imports of libraries: without their warnings about each other, and of optional ones with a remedy in the error."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from cosmos_worker.errors import ConfigError

PYTREE_LOGGER = logging.getLogger("torch.utils._pytree")
ABOUT_ENUMS = "is an Enum subclass and is now natively supported"
LIBRARY = "torchao"


@contextmanager
def importing_transformers() -> Iterator[None]:
    """Suppress PyTorch's warning about Enum classes of torchao, which transformers imports where it is installed.

    No other message is suppressed, and none after the block.
    """
    PYTREE_LOGGER.addFilter(_is_not_about_torchao_enums)
    try:
        yield
    finally:
        PYTREE_LOGGER.removeFilter(_is_not_about_torchao_enums)


def _is_not_about_torchao_enums(record: logging.LogRecord) -> bool:
    named = record.args[0] if isinstance(record.args, tuple) and record.args else None
    of_library = str(getattr(named, "__module__", "")).partition(".")[0] == LIBRARY
    return not (of_library and ABOUT_ENUMS in record.msg)


def import_for(option: str, module: str, remedy: str) -> ModuleType:
    """Import a library that an option needs, without the warnings that its own code raises.

    Args:
        option: ``name: value``, for the message.
        module: dotted name; may be a module of this package that imports the library.
        remedy: advice for the message.

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
