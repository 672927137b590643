"""The health check for Argo CD in docs/argocd.md, run as Argo CD runs it: in Lua, with the object as ``obj``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.decisions import InferenceSimulation, Simulation

lupa = pytest.importorskip("lupa", reason="lupa is not installed: run make setup")

PAGE = Path(__file__).parents[1] / "docs" / "argocd.md"
KINDS = ("PostTrainingJob", "InferenceJob")
OWN = {
    "model": {"published": "pushing-tiny"},
    "experiment": "video2world_instruction_push_tiny",
}


def health(job: dict[str, Any]) -> tuple[str, str]:
    """Status and message of an object."""
    snippet = PAGE.read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    checks = yaml.safe_load(snippet)["data"]
    assert {name.rpartition("_")[2] for name in checks} == set(KINDS)
    program = checks[f"resource.customizations.health.cosmos.dev_{job['kind']}"]
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from(job, recursive=True)
    result = lua.execute(program)
    return result["status"], result["message"]


def begun(kind: str) -> Simulation:
    simulation = Simulation() if kind == KINDS[0] else InferenceSimulation(OWN)
    simulation.settle()
    return simulation


def finish(simulation: Simulation) -> None:
    for _ in range(9):
        for (kind, _), one in list(simulation.objects.items()):
            if kind in ("Job", "PyTorchJob") and "status" not in one:
                simulation.succeed(one, result={"videos": 1})
        simulation.settle()


@pytest.mark.parametrize("kind", KINDS)
def test_job_that_nobody_has_seen_progresses(kind: str) -> None:
    job = begun(kind).document
    assert health({**job, "status": None})[0] == "Progressing"
    assert health({name: value for name, value in job.items() if name != "status"})[0] == (
        "Progressing"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_running_job_progresses_with_its_sentence(kind: str) -> None:
    simulation = begun(kind)

    assert health(simulation.document) == ("Progressing", simulation.status["message"])


@pytest.mark.parametrize("kind", KINDS)
def test_finished_job_is_healthy(kind: str) -> None:
    simulation = begun(kind)
    finish(simulation)

    assert simulation.status["state"] == "Succeeded"
    assert health(simulation.document) == ("Healthy", simulation.status["message"])


@pytest.mark.parametrize("kind", KINDS)
def test_failed_job_is_degraded(kind: str) -> None:
    simulation = begun(kind)
    simulation.fail(simulation.stage_job("fetch-model"), 2, "DataError", message="no such file")
    simulation.settle()

    status, message = health(simulation.document)
    assert status == "Degraded"
    assert "no such file" in message


@pytest.mark.parametrize("kind", KINDS)
def test_suspended_job_is_suspended(kind: str) -> None:
    simulation = begun(kind)
    simulation.document["spec"]["runPolicy"] = {"suspend": True}
    simulation.settle()

    assert health(simulation.document)[0] == "Suspended"


@pytest.mark.parametrize("kind", KINDS)
def test_edit_that_the_operator_has_not_seen_progresses(kind: str) -> None:
    simulation = begun(kind)
    finish(simulation)
    simulation.document["metadata"]["generation"] += 1

    assert health(simulation.document)[0] == "Progressing"
