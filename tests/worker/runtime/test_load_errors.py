"""A file that asks for code is refused with the name that it asks for, and without advice to trust it."""

from __future__ import annotations

import fractions
import os
import pickle
from pathlib import Path

import pytest
import torch
from support.text_encoders import write_t5

from cosmos_worker.errors import EXIT_USER_ERROR, CheckpointError
from cosmos_worker.runtime.failures import classify
from cosmos_worker.runtime.load_errors import describe_load_error, refused_name
from cosmos_worker.weights.tensor_files import read_saved


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> object:
        return self._call


HOSTILE = {
    "posix.system": Calls(os.system, "touch /tmp/cosmos-test-pwned"),
    "builtins.exec": Calls(exec, "raise SystemExit"),
    "builtins.eval": Calls(eval, "1"),
    "builtins.getattr": Calls(getattr, "a", "upper"),
    "fractions.Fraction": fractions.Fraction(1, 2),
    "pathlib.PosixPath": Path("/etc/passwd"),
}


@pytest.fixture(params=HOSTILE)
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, str]:
    """A file of torch.save with a call in it, and the name of what is called."""
    path = tmp_path / "weights.pt"
    torch.save({"weight": torch.zeros(2), "more": HOSTILE[request.param]}, path)
    return path, request.param


def test_refused_name_is_told(hostile: tuple[Path, str]) -> None:
    path, name = hostile

    with pytest.raises(CheckpointError) as caught:
        read_saved(path, "fetch it again")

    said = str(caught.value)
    assert name.rpartition(".")[2] in said
    assert "weights_only" not in said
    assert "safe_globals" not in said
    assert said.endswith("; fetch it again")
    assert not Path("/tmp/cosmos-test-pwned").exists()


def test_error_that_reaches_the_edge_is_no_bug(hostile: tuple[Path, str]) -> None:
    path, name = hostile

    with pytest.raises(pickle.UnpicklingError) as caught:
        torch.load(path, weights_only=True)
    outcome = classify(caught.value)

    assert (outcome.exit_code, outcome.reason) == (EXIT_USER_ERROR, "CheckpointError")
    assert name.rpartition(".")[2] in outcome.message
    assert "weights_only" not in outcome.message


def test_text_encoder_that_asks_for_code_is_refused(tmp_path: Path) -> None:
    from cosmos_worker.text.t5 import T5Encoder

    folder = write_t5(tmp_path / "t5")
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    torch.save({"shared.weight": HOSTILE["posix.system"]}, folder / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match="cannot load it") as caught:
        T5Encoder(folder)

    assert "system" in str(caught.value)
    assert "weights_only" not in str(caught.value)
    assert not Path("/tmp/cosmos-test-pwned").exists()


def test_other_errors_are_one_short_line() -> None:
    assert describe_load_error(ValueError("a\nb\x1b[31m")) == "a b\\x1b[31m"
    assert describe_load_error(EOFError()) == "EOFError"
    assert len(describe_load_error(RuntimeError("x" * 5000))) == 200
    assert refused_name("GLOBAL os.system, of no pickle") is None
