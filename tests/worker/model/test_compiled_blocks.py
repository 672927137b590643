"""Compiled blocks: they compute the same, without a break, and what was compiled is found by the next process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.compiled import compute, count_breaks
from support.training import small_experiment, small_model

from cosmos_worker.config.training import AccelerationConfig, CompileChoice, ParallelConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.compiled_blocks import decide_to_compile, why_unavailable
from cosmos_worker.model.dit import call
from cosmos_worker.train.parallelize import run_blocks

CPU = torch.device("cpu")
CUDA = torch.device("cuda")

told_while_tracing = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
"""PyTorch's compiler looks at the gradient of the blocks' inputs, and warns itself."""


@pytest.fixture(autouse=True)
def compiler_as_new() -> Iterator[None]:
    """Nothing is compiled before a test, and nothing is left behind."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A machine without a C++ compiler and without compiled code."""
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with inductor.patch({"cpp.cxx": ("no-such-compiler",)}):
        yield


@told_while_tracing
@pytest.mark.parametrize("kind", ["none", "block", "selective"])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_blocks_are_traced_whole_and_once(kind: str, bfloat16: bool) -> None:
    """Every block, with what it computes again, is one graph forward and one backward, shared by all blocks."""
    assert count_breaks(kind, bfloat16) == {"graphs": 1, "breaks": 0}


@told_while_tracing
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("any_length", "graphs"), [(True, 1), (False, 2)])
def test_lengths_share_one_code_only_where_they_change_all_the_time(
    any_length: bool, graphs: int
) -> None:
    found = count_breaks("none", False, text_lengths=(7, 5), any_length=any_length)

    assert found["graphs"] == graphs


@pytest.mark.usefixtures("no_compiler")
def test_missing_compiler_is_told_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert decide_to_compile("auto", CPU, pays=True, obstacles=[]) is False

    own = [record for record in caplog.records if record.name.startswith("cosmos_worker")]
    (message,) = [record.getMessage() for record in own]
    assert message.startswith("acceleration.compile: blocks are not compiled (")
    assert "No working C++ compiler found" in message
    assert "\n" not in message


@pytest.mark.usefixtures("no_compiler")
def test_missing_compiler_is_an_error_where_compiling_is_enabled() -> None:
    with pytest.raises(ConfigError, match=r"acceleration\.compile: 'enabled' cannot be used here"):
        decide_to_compile("enabled", CPU, pays=True, obstacles=[])


@pytest.mark.parametrize(("choice", "pays"), [("disabled", True), ("auto", False)])
def test_nothing_is_tried_where_nothing_is_compiled(
    monkeypatch: pytest.MonkeyPatch, choice: CompileChoice, pays: bool
) -> None:
    monkeypatch.setattr(torch, "compile", None)

    assert decide_to_compile(choice, CPU, pays, obstacles=[]) is False


def test_options_without_compiling_are_named() -> None:
    with pytest.raises(ConfigError, match=r"not made for parallel\.context_parallel=3"):
        run_blocks(small_model(), _experiment("enabled", context_parallel=3), CPU)

    model = small_model()
    run_blocks(model, _experiment("auto", context_parallel=3), CUDA)
    assert model.net.run_block is call


@pytest.mark.multiproc
@pytest.mark.timeout(900)
def test_second_process_compiles_nothing_and_computes_the_same(tmp_path: Path) -> None:
    first, second = (_run_in_process(tmp_path) for _ in range(2))

    assert first["compiled"] > 0
    assert second["compiled"] == 0
    assert second["found"] == first["compiled"]
    assert second["sums"] == first["sums"]


@pytest.mark.multiproc
@pytest.mark.timeout(900)
def test_compiled_blocks_compute_what_others_do(tmp_path: Path) -> None:
    found = _run_in_process(tmp_path)

    expected = [value.double().sum().item() for value in compute(small_model(), bfloat16=False)]
    assert found["sums"] == pytest.approx(expected, rel=1e-5)


def _experiment(choice: CompileChoice, **parallel: object) -> object:
    experiment = small_experiment(parallel=ParallelConfig(**parallel))
    kernels = AccelerationConfig(compile=choice)
    return experiment.model_copy(update={"acceleration": kernels})


def _run_in_process(folder: Path) -> dict[str, object]:
    tests = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-m", "support.compiled", str(folder)],
        cwd=tests,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_compiler_that_works_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)

    assert why_unavailable(CPU) is None
