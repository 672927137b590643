"""The whole GPU benchmark at tiny sizes on the CPU, on a machine that has next to no packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.bare_python import link_packages

from benchmarks.gpu.__main__ import main
from benchmarks.gpu.parts import MACHINE, all_parts

ROOT = Path(__file__).parents[3]
THERE = ("torch", "transformers", "safetensors", "numpy")
"""What the machine has, see docs/benchmarks.md."""
CARRIED = ("pydantic", "torchao")
ON_GPUS = {"cudnn", "efficient", "flash3"}


@pytest.mark.timeout(1500)
def test_every_part_runs_on_a_bare_machine(tmp_path: Path) -> None:
    packages, output = tmp_path / "packages", tmp_path / "output"
    link_packages(packages, (*THERE, *CARRIED))
    assert not any((packages / name).exists() for name in ("av", "pyarrow", "boto3", "kopf"))

    ended = subprocess.run(
        [
            *(sys.executable, "-S", "-m", "benchmarks.gpu", "--tiny", "--minutes", "20"),
            f"--output={output}",
        ],
        env={**os.environ, "PYTHONPATH": str(packages), "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr
    parts = json.loads((output / "gpu.json").read_text())["parts"]
    assert [one["part"]["name"] for one in parts] == [part.name for part in (MACHINE, *all_parts())]
    left_out = {one["part"]["name"]: one["reason"] for one in parts if one["status"] != "done"}
    assert {name.rpartition("=")[2] for name in left_out} == ON_GPUS, left_out
    tables = {part.table for part in all_parts()}
    markdown = (output / "gpu.md").read_text()
    assert all(f"## {table}\n" in markdown for table in tables)
    assert not list(output.glob("scratch-*")), "checkpoints are removed"
    assert f"{len(parts) - len(ON_GPUS)} parts done, 0 failed" in ended.stdout


def test_parts_are_listed_and_chosen_by_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--only", "float8, tokenizer network"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert "   15 s  tokenizer network: short" in lines
    assert "   60 s  training step: short, linear=float8" in lines


def test_word_of_no_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "flaot8"]) == 2
    assert "--only: no part's title contains 'flaot8'; --list shows all" in capsys.readouterr().err
