"""The parser of the command line: which commands there are, and that their help needs no library."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cosmos_worker.arguments import PRINTING_HELP, STAGE_HELP, VIEW, build_parser, parse
from cosmos_worker.commands import PRINTING
from cosmos_worker.config.choices import NEEDS
from cosmos_worker.config.presets import EXPERIMENTS
from cosmos_worker.config.stages import STAGE_CONFIGS
from cosmos_worker.runtime.machine_check import ITEMS, TOKEN

HELP_OF_ALL = """
import contextlib, io, json, sys
from cosmos_worker.cli import main
seen = {}
for arguments in json.loads(sys.argv[1]):
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        main([*arguments, "--help"])
    seen[" ".join(arguments)] = text.getvalue()
slow = ("torch", "numpy", "pydantic", "yaml", "av", "transformers", "importlib.metadata", "subprocess")
json.dump({"seen": seen, "loaded": [name for name in slow if name in sys.modules]}, sys.stdout)
"""


def test_commands_are_those_of_the_documents_and_functions() -> None:
    assert set(STAGE_HELP) == set(STAGE_CONFIGS)
    assert set(PRINTING_HELP) == {*PRINTING, VIEW}


def test_help_of_every_command_loads_no_library() -> None:
    commands = [[], *([name] for name in (*STAGE_HELP, *PRINTING_HELP, "export", "video2world"))]

    done = subprocess.run(
        [sys.executable, "-c", HELP_OF_ALL, json.dumps(commands)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )

    found = json.loads(done.stdout)
    assert found["loaded"] == []
    assert len(found["seen"]) == len(commands)
    assert all(text.startswith("usage: cosmos-worker") for text in found["seen"].values())
    assert all(name in found["seen"][""] for name in (*STAGE_HELP, *PRINTING_HELP))


def test_items_that_a_machine_is_asked_for_are_those_that_are_looked_for() -> None:
    assert (*ITEMS, TOKEN) == NEEDS


def test_default_experiment_exists() -> None:
    options = build_parser().parse_args(["check-dataset", "/data"])

    assert options.experiment in EXPERIMENTS


def test_options_of_an_experiment_may_follow_other_options() -> None:
    given = ["plan", "--gpus", "8", "--experiment", "e", "--gpu-memory", "80GiB", "video.height=64"]

    assert parse(given).overrides == ["video.height=64"]
    with pytest.raises(SystemExit):
        parse([*given, "--unknown"])
