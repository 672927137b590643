"""An installation of the chart of 2026-11-30, the first one, with a job in the middle of its training.

The files are kept as they were: what that chart rendered, its values and CustomResourceDefinition, and a job as its API
server stored it. The job is in its second attempt, after a crash, with all its objects and pods.
"""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

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


def running_job() -> Simulation:
    """The job with its objects, in the simulated cluster of today's decisions."""
    kept = json.loads(_running_job())
    simulation = Simulation()
    simulation.now = datetime.fromisoformat(kept["now"])
    simulation.document = kept["job"]
    simulation.objects = {(one["kind"], one["metadata"]["name"]): one for one in kept["objects"]}
    simulation.pods = {one["metadata"]["name"]: one for one in kept["pods"]}
    simulation.logs = kept["logs"]
    return simulation
