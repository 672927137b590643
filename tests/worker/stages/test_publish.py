from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.training import SMALL_NET, small_model, write_model

from cosmos_worker.config.stages import PublishConfig
from cosmos_worker.errors import CheckpointError, RetryableError
from cosmos_worker.stages import publish
from cosmos_worker.storage.volumes import (
    Volumes,
    atomic_write,
    marker_path,
    sha256_of_file,
)
from cosmos_worker.train.export import write_exports
from cosmos_worker.weights.load import read_weight_file


def write_run(root: Path, job: str) -> str:
    """A run with exports of steps 10 and 20; returns its address."""
    address = f"checkpoints://{job}-0123456789ab/posttraining/group/name"
    run = root / address.partition("://")[2]
    for step in (10, 20):
        model = small_model(seed=step)
        write_exports(run, step, model.state_dict(), dict(model.named_parameters()), torch.bfloat16)
    return address


def publish_config(run_uri: str, **options: object) -> PublishConfig:
    return PublishConfig(
        **{
            "key": "k",
            "target_uri": "checkpoints://arm_post-trained",
            "run_uri": run_uri,
            "job": "arm",
            "name": "arm_post-trained",
            "net": SMALL_NET,
            **options,
        }
    )


def test_publish_copies_the_latest_average_and_describes_it(tmp_path: Path) -> None:
    run_uri = write_run(tmp_path, "arm")

    result = publish.run(publish_config(run_uri), Volumes({"checkpoints": tmp_path}))

    model, description = (
        tmp_path / "arm_post-trained" / name for name in ("model.pt", "model.json")
    )
    facts = json.loads(description.read_text())
    assert result["step"] == 20
    assert result["name"] == facts["name"]
    assert torch.load(model, weights_only=True)["net.affline_norm.weight"].dtype == torch.float32
    assert facts["made_of"] == "checkpoints/iter_000000020_ema_model.pt"
    assert facts["sha256"] == sha256_of_file(model) == result["sha256"]
    assert facts["job"] == "arm"
    assert facts["net"]["model_channels"] == 32


def test_publish_takes_the_chosen_step_and_weights(tmp_path: Path) -> None:
    run_uri = write_run(tmp_path, "arm")

    publish.run(publish_config(run_uri, weights="reg", step=10), Volumes({"checkpoints": tmp_path}))

    state = torch.load(tmp_path / "arm_post-trained" / "model.pt", weights_only=True)
    expected = small_model(seed=10).state_dict()["net.final_layer.linear.weight"].bfloat16()
    assert torch.equal(state["net.final_layer.linear.weight"], expected)


def test_publish_forgets_the_markers_of_the_model_it_replaces(tmp_path: Path) -> None:
    volumes, run_uri = Volumes({"checkpoints": tmp_path}), write_run(tmp_path, "arm")
    publish.run(publish_config(run_uri, step=10), volumes)
    earlier = marker_path(tmp_path / "arm_post-trained", "earlier")
    earlier.write_text("{}")

    publish.run(publish_config(run_uri), volumes)

    assert not earlier.exists()


def test_publish_refuses_the_name_of_another_job(tmp_path: Path) -> None:
    volumes = Volumes({"checkpoints": tmp_path})
    publish.run(publish_config(write_run(tmp_path, "arm")), volumes)
    before = sha256_of_file(tmp_path / "arm_post-trained" / "model.pt")

    with pytest.raises(
        CheckpointError, match=r"belongs to arm, not to leg; choose another outputs\.name"
    ):
        publish.run(publish_config(write_run(tmp_path, "leg"), job="leg"), volumes)

    assert sha256_of_file(tmp_path / "arm_post-trained" / "model.pt") == before


class Killed(BaseException):
    """Stands for SIGKILL: no code of the worker may handle it."""


def kill_at(moment: str, patch: pytest.MonkeyPatch) -> None:
    """Let ``publish`` die before the model is renamed into place, or at once after it."""
    original = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target.name != "model.pt":
            return original(self, target)
        if moment == "after":
            original(self, target)
        raise Killed

    patch.setattr(Path, "replace", replace)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_publish_killed_beside_the_rename_is_repeated_by_its_job_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    volumes, target = Volumes({"checkpoints": tmp_path}), tmp_path / "arm_post-trained"
    config = publish_config(write_run(tmp_path, "arm"))
    with monkeypatch.context() as patch:
        kill_at(moment, patch)
        with pytest.raises(Killed):
            publish.run(config, volumes)
    assert (target / "model.pt").exists() == (moment == "after")

    with pytest.raises(CheckpointError, match="belongs to arm, not to leg"):
        publish.run(publish_config(write_run(tmp_path, "leg"), job="leg"), volumes)
    result = publish.run(config, volumes)

    facts = json.loads((target / "model.json").read_text())
    assert facts["sha256"] == sha256_of_file(target / "model.pt") == result["sha256"]
    assert facts["bytes"] == (target / "model.pt").stat().st_size


def test_publish_removes_the_copies_of_killed_attempts(tmp_path: Path) -> None:
    volumes, target = Volumes({"checkpoints": tmp_path}), tmp_path / "arm_post-trained"
    writer = atomic_write(target / "model.pt")
    writer.__enter__()  # never closed, as after a kill
    foreign = target / ".notes.txt.abcd_123.tmp"
    foreign.write_text("")

    publish.run(publish_config(write_run(tmp_path, "arm")), volumes)

    assert list(target.glob(".*")) == [foreign]


def test_publish_keeps_the_earlier_model_if_its_description_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes, run_uri = Volumes({"checkpoints": tmp_path}), write_run(tmp_path, "arm")
    published = publish.run(publish_config(run_uri, step=10), volumes)
    target = tmp_path / "arm_post-trained"

    def no_space(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(publish, "write_json", no_space)
    with pytest.raises(RetryableError, match="No space left on device"):
        publish.run(publish_config(run_uri), volumes)

    assert sha256_of_file(target / "model.pt") == published["sha256"]
    assert json.loads((target / "model.json").read_text())["sha256"] == published["sha256"]


def test_publish_refuses_a_file_that_does_not_fit_and_keeps_the_published_one(
    tmp_path: Path,
) -> None:
    volumes, run_uri = Volumes({"checkpoints": tmp_path}), write_run(tmp_path, "arm")
    publish.run(publish_config(run_uri, step=10), volumes)
    before = sha256_of_file(tmp_path / "arm_post-trained" / "model.pt")
    latest = tmp_path / run_uri.partition("://")[2] / "checkpoints" / "iter_000000020_ema_model.pt"
    latest.write_bytes(latest.read_bytes()[:500])

    with pytest.raises(CheckpointError, match="cannot be read as a file of torch tensors"):
        publish.run(publish_config(run_uri), volumes)

    assert sha256_of_file(tmp_path / "arm_post-trained" / "model.pt") == before


def test_publish_refuses_weights_that_are_not_finite(tmp_path: Path) -> None:
    volumes, run_uri = Volumes({"checkpoints": tmp_path}), write_run(tmp_path, "arm")
    run = tmp_path / run_uri.partition("://")[2]
    state = small_model().state_dict()
    state["net.final_layer.linear.weight"][0, 0] = float("nan")
    write_exports(run, 30, state, dict(state), torch.bfloat16)

    message = r"iter_000000030_ema_model\.pt: 1 value in 1 tensor is NaN or infinite: net\.final_l"
    with pytest.raises(CheckpointError, match=message):
        publish.run(publish_config(run_uri), volumes)

    assert not (tmp_path / "arm_post-trained" / "model.pt").exists()


def test_published_model_that_was_changed_is_not_loaded(tmp_path: Path) -> None:
    volumes, target = Volumes({"checkpoints": tmp_path}), tmp_path / "arm_post-trained"
    publish.run(publish_config(write_run(tmp_path, "arm")), volumes)
    assert read_weight_file(target)

    write_model(target / "model.pt", seed=3)

    with pytest.raises(
        CheckpointError, match=r"model\.pt: not the file that model\.json records, of"
    ):
        read_weight_file(target / "model.pt")


def test_publishing_does_not_wait_for_the_import_of_sharded_checkpoints() -> None:
    """It takes seconds, and is needed only where tensors of a training are saved or loaded."""
    program = (
        "import sys\n"
        "import cosmos_worker.stages.publish\n"
        "sys.exit('torch.distributed.checkpoint.state_dict' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
