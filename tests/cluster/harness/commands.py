"""Run a program; the error of a failure holds its output."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.errors import CommandError, HarnessError

OUTPUT_LINES = 40


def run(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    text_in: str | None = None,
    check: bool = True,
    timeout: float | None = None,
) -> str:
    """The standard output of a program; ``environment`` is added to ours."""
    words = [str(word) for word in command]
    try:
        result = subprocess.run(
            words,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            input=text_in,
            stdin=subprocess.DEVNULL if text_in is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise HarnessError(f"{words[0]}: no such program") from error
    except subprocess.TimeoutExpired as error:
        raise HarnessError(f"{shlex.join(words)}: no end after {timeout:g} s") from error
    if check and result.returncode != 0:
        said = (result.stderr.strip() or result.stdout.strip()).splitlines()
        raise CommandError(shlex.join(words), result.returncode, "\n".join(said[-OUTPUT_LINES:]))
    return result.stdout
