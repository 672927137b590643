"""The measuring process of the GPU benchmark: what a part may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.gpu import device, rates, steps
from benchmarks.gpu.network import Variant, build, random_batch
from benchmarks.gpu.parts import Part, all_parts
from benchmarks.gpu.sizes import TINY, TRUE
from benchmarks.gpu.worker import Job, NotHere, carry_out
from cosmos_worker.config.flops import peak_rate
from cosmos_worker.model.layers import DiTBlock
from cosmos_worker.train.step import batch_loss


def make_job(folder: Path, device_type: str = "cpu") -> tuple[Job, list[tuple[str, Any]]]:
    said: list[tuple[str, Any]] = []
    job = Job(torch.device(device_type), TINY, folder, {}, lambda *message: said.append(message))
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


def test_row_of_the_training_step_is_measured_with_its_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = count_forward(monkeypatch)
    job, said = make_job(tmp_path)

    steps.measure(job, "short", {"compiled": False, "attention": "math", "samples": 2})

    assert set(seen) == {(True, False)}
    (row,) = [value for kind, value in said if kind == "row"]
    assert (row["blocks"], row["samples"], row["attention"]) == ("2 of 2", 2, "math")
    assert row["forward and backward ms"] > 0
    assert row["planned GiB"] > 0


@pytest.mark.parametrize(("checkpointing", "times"), [("none", 1), ("selective", 2), ("block", 2)])
def test_blocks_of_a_row_are_computed_again_as_it_says(
    monkeypatch: pytest.MonkeyPatch, checkpointing: str, times: int
) -> None:
    seen = count_forward(monkeypatch)
    experiment = Variant(compiled=False, checkpointing=checkpointing).apply(TINY.stack("short"))
    batch, noise = random_batch(experiment, 1)
    device = torch.device("cpu")

    model = build(experiment, device)
    batch_loss(model, batch, noise, experiment.diffusion, device).total.backward()

    assert len(seen) == times * experiment.net.num_blocks


def count_forward(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, bool]]:
    """Of each forward pass of a block: whether the kernels math and flash may be used."""
    seen = []
    forward = DiTBlock.forward

    def see(self: DiTBlock, *inputs: object) -> Tensor:
        flags = torch.backends.cuda
        seen.append((flags.math_sdp_enabled(), flags.flash_sdp_enabled()))
        return forward(self, *inputs)

    monkeypatch.setattr(DiTBlock, "forward", see)
    return seen


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
    assert peak_rate(name) == rate
