"""Libraries that need not be installed: imported when an option asks for them."""

from __future__ import annotations

import importlib
import warnings
from types import ModuleType

from cosmos_worker.errors import ConfigError


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
