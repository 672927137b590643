"""The benchmark of start-up: what it runs, and the time of its processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from start_up import SAVED_STEP, processor_time, runs, trains, write_training

from cosmos_worker.config.stages import TrainConfig


def test_time_is_that_of_the_processes() -> None:
    before = processor_time()

    runs("-c", "sum(range(2_000_000))")()

    assert processor_time() > before


def test_training_logs_its_first_step(tmp_path: Path) -> None:
    document, target = write_training(tmp_path)

    config = TrainConfig.model_validate(yaml.safe_load(document.read_text()))
    assert config.target_uri == str(target)
    assert config.experiment.trainer.log_every_steps == 1
    assert config.experiment.trainer.save_every_steps == SAVED_STEP


def test_process_that_ends_before_it_says_so_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"absent\.yaml: no such file"):
        trains(tmp_path / "absent.yaml", tmp_path / "out", "step=1/")()
