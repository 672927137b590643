from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.jobs import make_job

from cosmos_operator.api.docs import (
    FIRST_OPTIONS,
    experiment_page,
    group_of,
    inference_job_page,
    job_page,
)
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.moved_options import MOVED_OPTIONS
from cosmos_worker.config.overrides import all_keys

DOCS = Path(__file__).resolve().parents[3] / "docs"


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("posttrainingjob.md", job_page),
        ("inferencejob.md", inference_job_page),
        ("experiments.md", experiment_page),
    ],
)
def test_page_is_in_step_with_the_models(
    name: str, page: Callable[[], str], update_golden: bool
) -> None:
    if update_golden:
        (DOCS / name).write_text(page(), encoding="utf-8")
    assert (DOCS / name).read_text(encoding="utf-8") == page()


def test_every_option_is_of_one_group_and_ten_are_named_first() -> None:
    options = all_keys(Experiment)

    assert all(group_of(path) for path in options)
    assert len(set(FIRST_OPTIONS) & set(options)) == 10
    with pytest.raises(LookupError, match=r"trainer\.unknown is of 0 groups"):
        group_of("trainer.unknown")
    page = experiment_page()
    assert [page.count(f"| `{path}` |") for path in options] == [
        2 if path in FIRST_OPTIONS else 1 for path in options
    ]


PAGES = [*DOCS.glob("*.md"), *DOCS.parent.glob("*.md")]


def test_pages_name_no_option_that_has_moved() -> None:
    named = {
        f"{page.name}: {option}"
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for option in MOVED_OPTIONS
        if f"`{option}" in page.read_text(encoding="utf-8")
    }
    assert len(PAGES) > 20
    assert named == set()


def test_every_option_that_a_page_names_exists() -> None:
    options = all_keys(Experiment)
    groups = {option.split(".")[0] for option in options if "." in option}
    pattern = re.compile(
        rf"(?<![\w./])(?:{'|'.join(groups)})\.[a-z_]+(?:\.[a-z_]+)*\b(?!\(|\.py|/)"
    )
    elsewhere = {
        "reference-cli.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
    }  # other programs' options, names of files

    named = {
        f"{page.name}: {name}"
        for page in PAGES
        if page.name not in elsewhere
        for name in pattern.findall(page.read_text(encoding="utf-8"))
        if name not in options
        and not name.endswith(("_", ".txt", ".md", ".py", ".json", ".yaml", ".pt"))
    }

    assert named == set()


@pytest.mark.parametrize("page", [job_page, inference_job_page, experiment_page])
def test_every_field_is_described(page: Callable[[], str]) -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert not [row for row in rows if row.rstrip().endswith("|  |")]


def test_snippets_of_the_page_on_datasets_are_valid() -> None:
    snippets = (DOCS / "datasets.md").read_text(encoding="utf-8").split("```yaml\n")[1:]

    jobs = [make_job(yaml.safe_load(snippet.split("```")[0])) for snippet in snippets]

    layouts = [job.spec.dataset.layout for job in jobs]
    assert layouts == ["LeRobot", "Bridge", "Videos", "LeRobot", "Jsonl"]
