"""The quickstart on a cluster, command by command as README has it, and the quality of its model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from support.real_world import NAMESPACE, RealWorld
from support.real_world import QUICKSTART as JOB

from cosmos_worker.data.video.files import read_video
from cosmos_worker.metrics.push import score_push

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

COLUMNS = ["NAME", "STATE", "PROGRESS", "LOSS", "ETA", "ATTEMPT", "AGE"]
WIDE_COLUMNS = [*COLUMNS, "GPUS", "NODES", "CHECKPOINT", "MESSAGE"]


def test_get_shows_that_it_trains(real_world: RealWorld, quickstart: Path) -> None:
    """This test runs while the quickstart begins; all others here run after its end."""
    real_world.kubectl("wait", "--for=condition=Running", f"ptj/{JOB}", "--timeout=600s")
    header, line = real_world.kubectl("get", "ptj", JOB).splitlines()

    assert header.split() == COLUMNS
    assert line.split()[:2] == [JOB, "Training"]


@pytest.fixture(scope="module")
def finished(real_world: RealWorld, quickstart: Path) -> list[str]:
    """Output of ``kubectl get ptj --watch`` from before the job's creation until its end."""
    real_world.kubectl("wait", "--for=condition=Succeeded", f"ptj/{JOB}", "--timeout=1200s")
    # two watches of the same object: this one may hear of the end a moment later
    shown = rf"{JOB} +Succeeded"
    real_world.wait("the watch shows the end", lambda: re.search(shown, quickstart.read_text()))
    return quickstart.read_text().splitlines()


def test_watch_shows_how_far_it_is(real_world: RealWorld, finished: list[str]) -> None:
    rows = [row for row in finished if row.startswith(JOB) and len(row.split()) > 2]
    states = [row.split()[1] for row in rows]
    in_turn = [s for i, s in enumerate(states) if i == 0 or s != states[i - 1]]
    # Preparing is there too, unless an earlier job of this session has prepared the same
    assert in_turn[-4:] == ["Training", "Publishing", "Generating", "Succeeded"]
    assert any(re.search(r"\b[1-6]\d0/700\b", row) for row in rows)
    wide = real_world.kubectl("get", "ptj", JOB, "--output=wide").splitlines()
    assert wide[0].split() == WIDE_COLUMNS
    assert wide[1].split()[:3] == [JOB, "Succeeded", "700/700"]
    assert "published checkpoints://pushing-tiny/model.pt" in wide[1]


def test_training_ran_as_a_master_and_a_worker(real_world: RealWorld, finished: list[str]) -> None:
    (job,) = real_world.list("/apis/kubeflow.org/v1 pytorchjobs", f"cosmos.dev/job={JOB}")

    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert {name: replica["replicas"] for name, replica in replicas.items()} == {
        "Master": 1,
        "Worker": 1,
    }
    namespace = json.loads(real_world.cluster.kubectl("get", "ns", NAMESPACE, "--output=json"))
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_logs_of_the_service_are_the_leaders(real_world: RealWorld, finished: list[str]) -> None:
    log = real_world.kubectl("logs", f"svc/{JOB}")

    assert "step=700/700 loss=" in log
    assert "checkpoint step=700" in log
    assert "samples/s=" in log


def test_describe_answers_every_question(real_world: RealWorld, finished: list[str]) -> None:
    text = real_world.kubectl("describe", f"ptj/{JOB}")

    for kind in ("Accepted", "StorageReady", "ModelReady", "DatasetReady", "EmbeddingsReady", "Admitted",
                 "Running", "Progressing", "Published", "Succeeded", "Failed"):  # fmt: skip
        assert f"Type:                  {kind}" in text
    for reason in ("AttemptStarted", "AttemptSucceeded", "Finished"):
        assert reason in text


def test_checkpoints_and_model_are_on_the_claim(real_world: RealWorld, finished: list[str]) -> None:
    published = real_world.folder / "checkpoints" / "pushing-tiny"

    assert (published / "model.pt").is_file()
    assert json.loads((published / "model.json").read_text())
    names = {Path(path).name for path in real_world.checkpoint_files(JOB)}
    assert {"iter_000000700_reg_model.pt", "iter_000000700_ema_model.pt"} <= names


def share_that_follows(real_world: RealWorld, item: str) -> float:
    """Share of videos that follow their instruction, scored from the MP4 files on the claim and their prompts."""
    results = real_world.status(JOB)["inference"]
    address = next(one["address"] for one in results if one["name"] == item)
    folder = real_world.folder / address.replace("://", "/")
    records = [json.loads(line) for line in (folder / "generated.jsonl").read_text().splitlines()]
    scores = [
        score_push(read_video(folder / f"{record['id']}.mp4"), record["prompt"]).follows
        for record in records
    ]
    assert len(scores) == 64
    return sum(scores) / len(scores)


def test_videos_follow_the_instruction(real_world: RealWorld, finished: list[str]) -> None:
    base, one, two = (share_that_follows(real_world, name) for name in ("base-one", "one", "two"))

    assert base < 0.5
    assert one >= 0.90
    assert two >= 0.75


def test_report_is_on_the_claim(real_world: RealWorld, finished: list[str]) -> None:
    outputs = {one["name"]: one["address"] for one in real_world.status(JOB)["outputs"]}

    assert (real_world.folder / outputs["report"].replace("://", "/")).is_file()
