"""The commands of ``cosmos`` for jobs on a cluster, and the Python client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from support.scenario_world import ITEM, ScenarioWorld

from cosmos_operator.cli import main
from cosmos_operator.client import Cosmos, connect


@pytest.fixture(scope="module")
def options(world: ScenarioWorld) -> list[str]:
    """Options that name the cluster and the namespace."""
    world.start_operator()
    return [f"--kubeconfig={world.kubeconfig}", f"--namespace={world.api.namespace}"]


@pytest.fixture
def cosmos(options: list[str]) -> Iterator[Cosmos]:
    """The Python client for the same namespace."""
    file, namespace = (one.partition("=")[2] for one in options)
    with connect(file, namespace=namespace) as found:
        yield found


def write(folder: Path, document: object) -> str:
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def finished(
    world: ScenarioWorld, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """A job with a video that was submitted and waited for by the commands."""
    document = world.document("by-command", inference=[ITEM])
    file = write(tmp_path_factory.mktemp("job"), document)
    assert main(["submit", file, "--wait", "--timeout", str(world.patience * 10), *options]) == 0
    return "by-command"


def test_submitted_job_is_waited_for_and_its_results_are_copied(
    world: ScenarioWorld, options: list[str], finished: str, tmp_path: Path, capsys
) -> None:
    target = tmp_path / "out"
    assert main(["pull", finished, "--to", str(target), *options]) == 0
    said = capsys.readouterr().out
    addresses = {one["name"]: one["address"] for one in world.status(finished)["outputs"]}

    for address in addresses.values():
        assert (target / address.removeprefix("checkpoints://")).stat().st_size > 0
    videos = world.status(finished)["inference"][0]["address"].removeprefix("checkpoints://")
    assert [one.suffix for one in (target / videos).iterdir() if one.suffix == ".mp4"] == [".mp4"]
    assert not [one for one in target.rglob("*") if one.name.startswith("complete-")]
    assert said.count("copied") == len([one for one in target.rglob("*") if one.is_file()])
    assert world.list("/apis/batch/v1 jobs", "cosmos.dev/pull") == []

    assert main(["pull", finished, "--to", str(target), "--only", "model", *options]) == 0
    assert "copied" not in capsys.readouterr().out


def test_logs_follow_the_stages_one_after_another(
    world: ScenarioWorld, options: list[str], tmp_path: Path, capsys
) -> None:
    embeddings = world.document("logged")["spec"]["embeddings"] | {"maxLength": 84}
    waiting = {"suspend": True}
    file = write(tmp_path, world.document("logged", embeddings=embeddings, runPolicy=waiting))
    assert main(["submit", file, *options]) == 0
    begin = threading.Timer(3, world.patch, ("logged", {"runPolicy": {"suspend": False}}))
    begin.start()
    assert main(["logs", "-f", "logged", *options]) == 0
    begin.join()
    shown = capsys.readouterr()
    stages = [line.split()[1] for line in shown.err.splitlines() if "(pod " in line]

    assert stages.index("embed-text") < stages.index("train") < stages.index("publish")
    lines = shown.out.splitlines()
    assert [line for line in lines if f"step={world.steps}/{world.steps}" in line]
    assert len(lines) == len(set(lines)), "a line was shown twice"


def test_stopped_job_is_listed_as_suspended_and_goes_on(
    world: ScenarioWorld, options: list[str], capsys
) -> None:
    world.submit("paused", **world.endless)
    world.wait_step("paused", 5)
    assert main(["stop", "paused", *options]) == 0
    world.wait_state("paused", "Suspended")
    capsys.readouterr()
    assert main(["ls", "ptj", *options]) == 0
    row = next(one for one in capsys.readouterr().out.splitlines() if one.startswith("paused "))
    assert row.split()[1] == "Suspended"
    assert main(["wait", "paused", "--timeout", "0.1", *options]) == 124
    assert main(["resume", "paused", *options]) == 0
    world.wait_state("paused", "Training")
    world.delete("paused")


def test_program_of_ten_lines_reads_the_results(cosmos: Cosmos, finished: str) -> None:
    assert cosmos.wait(finished) == "Succeeded"
    assert cosmos.status(finished)["state"] == "Succeeded"
    assert [(one.part, one.name) for one in cosmos.results(finished)] == [
        ("model", "model"),
        ("report", "report"),
        ("videos", "clip"),
    ]
