"""A job with sources in a bucket, from its YAML to the processes that fetch them on this machine."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.clips import write_bridge_dataset
from support.jobs import make_job
from support.s3_store import BUCKET, KEYS, S3Store, serve_s3, set_credentials

from cosmos_operator.local.process import (
    StageProcess,
    build_processes,
)
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.errors import EXIT_OK, EXIT_USER_ERROR


def processes_of(store: S3Store, workspace: Path) -> dict[str, StageProcess]:
    """The stages that fetch: the dataset and the model are in the bucket, the rest is on this machine."""
    changes = {
        "dataset.source": {"s3": {"uri": f"s3://{BUCKET}/bridge", "endpoint": store.url}},
        "model.source": {"s3": {"uri": f"s3://{BUCKET}/runs/model.pt", "endpoint": store.url}},
        "tokenizer.source": {"path": str(workspace / "tokenizer")},
        "embeddings.source": {"path": str(workspace / "encoder")},
        "credentials.s3": {"name": "keys"},
        "training.overrides": ["trainer.global_batch_size=2", "trainer.micro_batch_size=1"],
    }
    job = make_job(changes)
    manifests = build_manifests(job, plan_stages(job))
    return {process.kind: process for process in build_processes(manifests, workspace / "run")}


def run(process: StageProcess) -> tuple[int, str]:
    """Exit code, and the message for the user."""
    ended = subprocess.run(process.command, env=dict(process.environment), check=False)
    message = process.termination_file
    return ended.returncode, json.loads(message.read_text())["message"] if message.exists() else ""


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    set_credentials(monkeypatch, tmp_path, KEYS)
    for folder, names in {
        "tokenizer": ("encoder.jit", "decoder.jit", "mean_std.pt"),
        "encoder": ("config.json", "tokenizer.json", "model.safetensors"),
    }.items():
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_text(name)
    return tmp_path


def test_stages_fetch_from_a_bucket_with_the_keys_of_the_environment(workspace: Path) -> None:
    with serve_s3() as store:
        store.put_folder(write_bridge_dataset(workspace / "made", train=2, val=0), "bridge")
        processes = processes_of(store, workspace)
        prepare = processes["prepare-dataset"]
        assert run(prepare)[0] == EXIT_OK
        assert prepare.result()["clips"]["kept"] == 2
        assert all("AKIDTEST" in (header or "") for header in store.authorizations)

        code, message = run(processes["fetch-model"])
        assert code == EXIT_USER_ERROR
        assert f"s3://{BUCKET}/runs/model.pt at {store.url}: no object is there" in message
        assert f"s3://{BUCKET}/ holds bridge/" in message
