"""Messages of transformers' import about torchao, and no others, are suppressed; in processes of their own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from support.auxiliary_models import write_classifier
from support.text_encoders import write_t5

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="torchao is not installed"
)
LOADS = """
import enum, logging, sys
from pathlib import Path
import torch
from cosmos_worker.guardrails.text_classifier import TextClassifier
from cosmos_worker.runtime.imports import ABOUT_ENUMS, PYTREE_LOGGER, importing_transformers
from cosmos_worker.text.t5 import T5Encoder

t5, classifier = map(Path, sys.argv[1:])
if t5.exists():
    T5Encoder(t5)
else:
    TextClassifier(classifier, torch.device("cpu"), torch.float32)
assert "torchao.quantization" in sys.modules, "the import that is told about"

class Ours(enum.Enum):
    ONE = 1

with importing_transformers():
    PYTREE_LOGGER.warning("%s " + ABOUT_ENUMS, Ours)
    PYTREE_LOGGER.warning("else")
Ours.__module__ = "torchao.later"
PYTREE_LOGGER.warning("%s " + ABOUT_ENUMS, Ours)
"""


@pytest.mark.parametrize("what", ["encoder", "classifier"])
def test_only_torchao_s_enums_are_left_out_and_only_during_the_import(
    tmp_path: Path, what: str
) -> None:
    t5, classifier = tmp_path / "t5", tmp_path / "classifier"
    write_t5(t5) if what == "encoder" else write_classifier(classifier)

    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(t5), str(classifier)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "Enum" in line or line.endswith("else")]
    assert len(told) == 3, done.stderr
    assert "<enum 'Ours'>" in told[0]
    assert told[1].endswith("else")
    assert "<enum 'Ours'>" in told[2]
