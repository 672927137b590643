"""``python -m fuzz.resources``: mutated jobs given to an API server with a running operator.

Each is refused by the API server in words, or gets a status from the operator that says what it is about it; and once
it has been answered, a job that is not accepted is not written to again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from support.api_client import Api, connect, prepared, wait_for
from support.jobs import INFERENCE_DOCUMENT, make_document
from support.operator_process import OperatorProcess

from fuzz.mutate import mutate_value

CHART = Path(__file__).parents[2] / "charts/cosmos/files"
WAVE = 25
"""Jobs that exist at a time."""
QUIET_S = 2.0
"""Seconds for which refused jobs are watched for further writes."""
MAX_MESSAGE = 1 << 16


@dataclass
class Answers:
    """What became of the jobs."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def mutated_jobs(seed: int) -> Iterator[dict[str, Any]]:
    """Jobs of both kinds, one after the other, the same for the same seed; each has a valid name."""
    rng = random.Random(seed)
    number = 0
    while True:
        base = INFERENCE_DOCUMENT if rng.random() < 0.3 else make_document({"compute.nodes": 1})
        document = mutate_value({"spec": base["spec"]}, rng)
        name = {"name": f"fuzz-{seed}-{number}"}
        yield {
            "apiVersion": base["apiVersion"], "kind": base["kind"], "metadata": name, **document,
        }  # fmt: skip
        number += 1


def try_jobs(api: Api, number: int, seed: int, patience_s: float = 60.0) -> Answers:
    """Give jobs to an API server whose operator watches the namespace of ``api``."""
    answers, jobs = Answers(), mutated_jobs(seed)
    for first in range(0, number, WAVE):
        made = []
        for _ in range(min(WAVE, number - first)):
            made += _create(api, next(jobs), answers)
        _await_answers(api, made, answers, patience_s)
        for path in made:
            api.call("DELETE", path)
    return answers


def _path(api: Api, kind: str) -> str:
    plural = "inferencejobs" if kind == "InferenceJob" else "posttrainingjobs"
    return f"/apis/cosmos.dev/v1alpha1/namespaces/{api.namespace}/{plural}"


def _create(api: Api, document: dict[str, Any], answers: Answers) -> list[str]:
    """The path of the job, if the API server has taken it."""
    name, path = document["metadata"]["name"], _path(api, document["kind"])
    status, body = api.call("POST", path, document)
    if status == 201:
        return [f"{path}/{name}"]
    message = str(body.get("message", "")) if isinstance(body, dict) else str(body)
    if 400 <= status < 500 and message.strip() and len(message) <= MAX_MESSAGE:
        answers.counts["refused by the API server"] += 1
    else:
        answers.faults.append(f"{name}: HTTP {status}: {message[:200]!r}")
    return []


def _await_answers(api: Api, made: list[str], answers: Answers, patience_s: float) -> None:
    """Wait until the operator has answered every job, then see that those that it refused are left alone."""
    end, waiting, refused = time.monotonic() + patience_s, list(made), dict[str, str]()
    while waiting and time.monotonic() < end:
        for path in list(waiting):
            job = api.call("GET", path)[1]
            said = _answer(job)
            if said is not None:
                waiting.remove(path)
                answers.counts[said] += 1
                if said == "not accepted, with a condition":
                    refused[path] = job["metadata"]["resourceVersion"]
        time.sleep(0.1)
    answers.faults += [f"{path}: no status within {patience_s:g} s" for path in waiting]
    if refused:
        time.sleep(QUIET_S)
    for path, version in refused.items():
        now = api.call("GET", path)[1]["metadata"]["resourceVersion"]
        if now != version:
            answers.faults.append(f"{path}: written to again after it was refused")


def _answer(job: dict[str, Any]) -> str | None:
    """What the operator says of a job; None if it has said nothing of this generation."""
    status = job.get("status") or {}
    if status.get("observedGeneration") != job["metadata"]["generation"]:
        return None
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    accepted = conditions.get("Accepted")
    if accepted is None or not accepted.get("message", "").strip():
        return None
    return "accepted" if accepted["status"] == "True" else "not accepted, with a condition"


@contextmanager
def operated(api: Api, kubeconfig: Path, folder: Path) -> Iterator[OperatorProcess]:
    """An operator that watches the namespace of ``api`` during the block."""
    operator = OperatorProcess(folder, kubeconfig, watchNamespaces=[api.namespace])
    operator.start()
    wait_for(lambda: "delivered all existing objects" in operator.log(), 120)
    try:
        yield operator
    finally:
        operator.stop()


def main() -> int:
    """Entry point; 1 if there was a fault."""
    parser = argparse.ArgumentParser(prog="fuzz.resources", description=__doc__)
    parser.add_argument("--number", type=int, default=10_000, help="jobs (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from harness import api_server as programs

    crds = [
        yaml.load((CHART / name).read_bytes(), yaml.CSafeLoader)
        for name in ("crd.yaml", "crd-inferencejob.yaml")
    ]
    with (
        tempfile.TemporaryDirectory() as name,
        programs.running(Path(name) / "server") as server,
        prepared(connect(server.kubeconfig), *crds) as api,
    ):
        wait_for(lambda: api.call("GET", api.jobs)[0] == 200)
        with operated(api, server.kubeconfig, Path(name)):
            answers = try_jobs(api, options.number, options.seed)
    for fault in answers.faults[:50]:
        sys.stdout.write(f"FAULT {fault}\n")
    sys.stdout.write(f"seed {options.seed}\n\n| answer | jobs |\n|---|---|\n")
    for what, count in [*sorted(answers.counts.items()), ("faults", len(answers.faults))]:
        sys.stdout.write(f"| {what} | {count} |\n")
    return 1 if answers.faults else 0


if __name__ == "__main__":
    sys.exit(main())
