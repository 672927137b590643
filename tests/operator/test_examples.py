"""Every job that we ship is valid and renders."""

from pathlib import Path

import pytest
import yaml

from cosmos_operator.api.parse import load_job
from cosmos_operator.local.render import render_job
from cosmos_operator.plan.stages import plan_stages

EXAMPLES = Path(__file__).parents[2] / "examples"
JOBS = sorted(EXAMPLES.glob("*.yaml"))


def test_examples_are_there():
    assert {"quickstart.yaml", "bridge-7b.yaml"} <= {path.name for path in JOBS}


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_example_is_valid_and_renders(path):
    kind = yaml.safe_load(path.read_text(encoding="utf-8"))["kind"]
    text = render_job(path, EXAMPLES / "posttrainingjob.yaml" if kind == "InferenceJob" else None)

    assert all(document["metadata"]["name"] for document in yaml.safe_load_all(text))


def test_quickstart_needs_no_gpu_and_compares_before_with_after():
    job = load_job(EXAMPLES / "quickstart.yaml")

    assert all(stage.gpus == 0 for stage in plan_stages(job))
    assert {item.checkpoint for item in job.spec.inference} == {"Base", "Published"}
