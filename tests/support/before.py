"""An installation of the chart of 2026-11-30, the first one, with a job in the middle of its training.

The files are kept as they were: what that chart rendered, its values and CustomResourceDefinition, and a job as its API
server stored it. The job is in its second attempt, after a crash, with all its objects and pods.
"""

from __future__ import annotations

import copy
import json
import shutil
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

from cosmos_operator.api.crd import build_crd
from support.decisions import Simulation
from support.helm_chart import CHART

FOLDER = Path(__file__).parents[1] / "chart" / "before"


def read(name: str) -> list[Any]:
    """The documents of a file."""
    return list(yaml.load_all((FOLDER / name).read_bytes(), yaml.CSafeLoader))


def chart_with_values_of_before(folder: Path) -> Chart:
    """The chart of today as ``helm upgrade --reuse-values`` takes it: the defaults are those of the earlier chart."""
    copy = shutil.copytree(CHART, folder / "cosmos")
    shutil.copy(FOLDER / "values.yaml", copy)
    return Chart.load(copy)


@lru_cache
def _running_job() -> str:
    (document,) = read("running-job.yaml")
    return json.dumps(document)


def stored_job() -> Any:
    """The job as the API server of before has stored it."""
    return json.loads(_running_job())["job"]


def as_read(document: Any) -> Any:
    """A stored job as an API server with today's CustomResourceDefinition gives it back: pruned and with its defaults.

    Nothing is checked: rules are for what is written. tests/api_server/test_upgrade.py compares with a real server.
    """
    (version,) = build_crd()["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]
    parts = {name: _as_read(document[name], schema[name]) for name in ("spec", "status")}
    return {**document, **parts}


def _as_read(value: Any, schema: Any) -> Any:
    if isinstance(value, list):
        return [_as_read(one, schema.get("items", {})) for one in value]
    fields = schema.get("properties")
    if not isinstance(value, dict) or fields is None:
        return value
    keeps = schema.get("x-kubernetes-preserve-unknown-fields", False)
    known = {name: one for name, one in value.items() if keeps or name in fields}
    missing = {
        name: copy.deepcopy(field["default"])
        for name, field in fields.items()
        if name not in known and "default" in field
    }
    return {name: _as_read(one, fields.get(name, {})) for name, one in {**known, **missing}.items()}


def running_job() -> Simulation:
    """The job with its objects, in the simulated cluster of today's decisions."""
    kept = json.loads(_running_job())
    simulation = Simulation()
    simulation.now = datetime.fromisoformat(kept["now"])
    simulation.document = as_read(kept["job"])
    simulation.objects = {(one["kind"], one["metadata"]["name"]): one for one in kept["objects"]}
    simulation.pods = {one["metadata"]["name"]: one for one in kept["pods"]}
    simulation.logs = kept["logs"]
    return simulation
