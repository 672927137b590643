"""Errors of the harness: every message says what failed and what to do."""

from __future__ import annotations


class HarnessError(Exception):
    """The local cluster could not be built, started or used."""


class CommandError(HarnessError):
    """A program ended with an error."""

    def __init__(self, command: str, exit_code: int, output: str) -> None:
        super().__init__(f"{command}: exit code {exit_code}\n{output}".rstrip())
        self.exit_code = exit_code
        self.output = output
