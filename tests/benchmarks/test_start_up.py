"""The benchmark of start-up: what it runs, and the time of its processes."""

from __future__ import annotations

from pathlib import Path

import yaml
from start_up import FIRST_STEP, processor_time, runs, write_training

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
    assert FIRST_STEP == "step=1/"
