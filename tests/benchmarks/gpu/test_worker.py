"""The measuring process of the GPU benchmark: what a part may do."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import device, rates, steps
from benchmarks.gpu.parts import Part, all_parts
from benchmarks.gpu.sizes import TINY, TRUE
from benchmarks.gpu.worker import Job, NotHere, carry_out


def make_job(folder: Path, device_type: str = "cpu") -> tuple[Job, list[tuple[str, Any]]]:
    said: list[tuple[str, Any]] = []
    deadline = time.monotonic() + 100
    job = Job(
        torch.device(device_type), TINY, folder, {}, deadline, lambda *message: said.append(message)
    )
    return job, said


def test_failure_says_what_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: Job) -> None:
        job.row(a=1)
        raise ValueError("too\nlarge")

    monkeypatch.setattr(rates, "measure", fail)
    job, said = make_job(tmp_path)

    failure = carry_out(Part("table", "name", 1, "rates:measure"), job)

    assert failure is not None
    assert failure.startswith("ValueError: too large (test_worker.py:")
    assert said == [("row", {"a": 1})]


def test_what_is_not_here_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(job: Job) -> None:
        raise NotHere("no such kernel")

    monkeypatch.setattr(rates, "measure", lack)
    job, said = make_job(tmp_path)

    assert carry_out(Part("table", "name", 1, "rates:measure"), job) is None
    assert said == [("absence", "no such kernel")]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_machine_without_gpu_is_told(tmp_path: Path) -> None:
    job, _ = make_job(tmp_path, "cuda")

    with pytest.raises(RuntimeError, match="finds no CUDA device; `--tiny` runs all parts"):
        device.tell_facts(job)


def test_attention_kernel_and_checkpointing_of_a_row_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    build = steps.build

    def see(experiment, where):
        seen.append((experiment.parallel.activation_checkpointing, experiment.acceleration.linear))
        flags = torch.backends.cuda
        seen.append((flags.math_sdp_enabled(), flags.flash_sdp_enabled()))
        return build(experiment, where)

    monkeypatch.setattr(steps, "build", see)
    job, said = make_job(tmp_path)

    options = {"compiled": False, "attention": "math", "checkpointing": "block", "samples": 2}
    steps.measure(job, "short", options)

    assert seen == [("block", "plain"), (True, False)]
    (row,) = [value for kind, value in said if kind == "row"]
    assert (row["blocks"], row["samples"], row["attention"]) == ("2 of 2", 2, "math")
    assert row["forward and backward ms"] > 0
    assert row["planned GiB"] > 0


def test_true_sizes_are_the_7b() -> None:
    for window, blocks in TRUE.blocks.items():
        assert TRUE.stack(window).net.num_blocks == blocks
        assert TRUE.windows[window].net.num_blocks == 28
    assert [one.net.num_blocks for one in TRUE.whole.values()] == [28, 28]


def test_parts_have_names_of_their_own() -> None:
    titles = [part.title for part in all_parts()]

    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA B200", 2250e12),
        ("CPU", None),
    ],
)
def test_peak_rate_is_known_by_the_name(name: str, rate: float | None) -> None:
    assert device.peak_rate(name) == rate
