"""The benchmark of the training step, at a tiny size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.utils.flop_counter
import training_step
from matrix_products import products_of
from networks import check_same, our_network, random_inputs, their_network


def test_benchmark_runs_at_a_tiny_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = tmp_path / "figures.json"

    training_step.main(["--tiny", "--without", "compiled", "--rounds", "1", "--json", str(written)])

    result = json.loads(written.read_text())
    assert [one["title"] for one in result["comparisons"]] == ["float32", "bfloat16"]
    assert result["facts"]["tokens"] == 12
    assert "| ours, eager |" in capsys.readouterr().out


def test_networks_that_differ_are_not_compared() -> None:
    ours = our_network(training_step.TINY)
    theirs = their_network(ours)
    given = random_inputs(training_step.TINY, training_step.TINY_SIZE, 8)
    check_same(ours, theirs, given)
    with torch.no_grad():
        ours.net.blocks["block0"].self_attention.to_v[0].weight += 0.1

    with pytest.raises(AssertionError):
        check_same(ours, theirs, given)


def test_products_are_those_of_forward_and_backward() -> None:
    x, weight = torch.ones(3, 4), torch.ones(5, 4, requires_grad=True)
    done = []

    def work() -> None:
        (x @ weight.t()).relu().sum().backward()

    products = products_of(work)
    weight.grad = None
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        products()
        done.append(counter.get_total_flops())

    assert done == [2 * 2 * 3 * 4 * 5]  # the output, and the gradient of the weight
    assert weight.grad is None
