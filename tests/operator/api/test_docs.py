from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.jobs import make_job

from cosmos_operator.api.docs import experiment_page, job_page

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize(
    ("name", "page"), [("posttrainingjob.md", job_page), ("experiments.md", experiment_page)]
)
def test_page_is_in_step_with_the_models(
    name: str, page: Callable[[], str], update_golden: bool
) -> None:
    if update_golden:
        (DOCS / name).write_text(page(), encoding="utf-8")
    assert (DOCS / name).read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("page", [job_page, experiment_page])
def test_every_field_is_described(page: Callable[[], str]) -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert not [row for row in rows if row.rstrip().endswith("|  |")]


def test_snippets_of_the_page_on_datasets_are_valid() -> None:
    snippets = (DOCS / "datasets.md").read_text(encoding="utf-8").split("```yaml\n")[1:]

    jobs = [make_job(yaml.safe_load(snippet.split("```")[0])) for snippet in snippets]

    layouts = [job.spec.dataset.layout for job in jobs]
    assert layouts == ["LeRobot", "Bridge", "Videos", "LeRobot", "Jsonl"]
