"""Folders of published models, and the stages that look at them before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.errors import CheckpointError
from cosmos_worker.stages import train
from cosmos_worker.storage.published import check_name_is_free
from cosmos_worker.storage.volumes import Volumes


@pytest.fixture
def published(tmp_path: Path) -> str:
    """A folder in which the job arm has published."""
    (tmp_path / "model.json").write_text(json.dumps({"job": "arm"}))
    return str(tmp_path)


def test_folder_of_another_job_is_refused(published: str) -> None:
    with pytest.raises(CheckpointError, match="belongs to arm, not to leg"):
        check_name_is_free(published, "leg", Volumes())


def test_own_folder_and_no_folder_are_free(published: str, tmp_path: Path) -> None:
    check_name_is_free(published, "arm", Volumes())
    check_name_is_free(str(tmp_path / "new"), "leg", Volumes())
    check_name_is_free(None, None, Volumes())


def test_training_looks_before_it_does_anything(published: str) -> None:
    config = TrainConfig.model_construct(published_uri=published, job="leg")

    with pytest.raises(CheckpointError, match="belongs to arm, not to leg"):
        train.run(config, Volumes())
