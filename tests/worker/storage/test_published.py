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
        check_name_is_free(published, "leg", None, Volumes())


def test_own_folder_and_no_folder_are_free(published: str, tmp_path: Path) -> None:
    check_name_is_free(published, "arm", None, Volumes())
    check_name_is_free(str(tmp_path / "new"), "leg", None, Volumes())
    check_name_is_free(None, None, None, Volumes())


def test_training_looks_before_it_does_anything(published: str) -> None:
    config = TrainConfig.model_construct(published_uri=published, job="leg", job_namespace=None)

    with pytest.raises(CheckpointError, match="belongs to arm, not to leg"):
        train.run(config, Volumes())


@pytest.mark.parametrize(
    ("recorded", "namespace", "said"),
    [
        ("one", "two", "belongs to arm of namespace one, not to arm of namespace two"),
        ("one", None, "belongs to arm of namespace one, not to arm"),
        (None, "two", "belongs to arm, not to arm of namespace two"),
    ],
)
def test_namesake_of_another_namespace_is_another_job(
    tmp_path: Path, recorded: str | None, namespace: str | None, said: str
) -> None:
    (tmp_path / "model.json").write_text(json.dumps({"job": "arm", "namespace": recorded}))

    with pytest.raises(CheckpointError, match=said):
        check_name_is_free(str(tmp_path), "arm", namespace, Volumes())
    check_name_is_free(str(tmp_path), "arm", recorded, Volumes())


def test_model_of_before_namespaces_were_recorded_goes_by_the_name(published: str) -> None:
    check_name_is_free(published, "arm", "any", Volumes())


def test_description_that_is_cut_off_belongs_to_nobody_who_asks(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"job": "arm", "na')

    with pytest.raises(CheckpointError, match=r"model\.json: is no JSON .* move that folder away"):
        check_name_is_free(str(tmp_path), "arm", None, Volumes())
