"""Stage documents between an operator and a worker of different versions; the earlier worker is that of a fixture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cosmos_operator.api.parse import load_job
from cosmos_operator.plan.render import build_config_map
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.config import document_version
from cosmos_worker.config.document_version import (
    ADDITIONS,
    DOCUMENT_VERSION,
    Addition,
    dump_document,
    without_version,
)
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.config.stages import STAGE_CONFIGS, CheckInputsConfig, TrainConfig
from cosmos_worker.errors import ImageTooOld
from cosmos_worker.runtime.machine_check import stage_of

ROOT = Path(__file__).parents[3]
LAST_RELEASE = ROOT / "tests/data/last_release"
EXAMPLES = ("quickstart", "posttrainingjob", "bridge-7b")
READ = """
import json, sys, yaml
import cosmos_worker
from cosmos_worker.config.stages import STAGE_CONFIGS
read = {}
for stage, text in json.load(sys.stdin):
    read[stage] = STAGE_CONFIGS[stage].model_validate(yaml.safe_load(text)).model_dump(mode="json")
schemas = {stage: model.model_json_schema() for stage, model in STAGE_CONFIGS.items()}
json.dump({"read": read, "schemas": schemas, "from": cosmos_worker.__file__}, sys.stdout)
"""


def ask_last_release(documents: list[tuple[str, str]]) -> dict[str, Any]:
    """Read documents with the worker of the last release; also gives its schemas, and where it was imported from."""
    environment = {**os.environ, "PYTHONPATH": str(LAST_RELEASE / "worker.zip")}
    done = subprocess.run(
        [sys.executable, "-c", READ],
        input=json.dumps(documents),
        env=environment,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    assert "worker.zip" in answer["from"], "it is not the worker of today that has read them"
    return answer


@pytest.mark.parametrize("example", EXAMPLES)
def test_worker_of_the_last_release_reads_the_documents_of_today(example: str) -> None:
    job = load_job(ROOT / f"examples/{example}.yaml")
    stages = {stage.name: stage for stage in plan_stages(job)}
    texts = {
        name: build_config_map(job, stage, "stage")["data"]["stage.yaml"]
        for name, stage in stages.items()
    }

    for name, text in texts.items():
        kind = stages[name].kind
        read = ask_last_release([(kind, text)])["read"][kind]
        expected = stages[name].document.model_dump(mode="json")
        for path, one in ADDITIONS.get(kind, {}).items():
            for block, option in document_version._places(expected, path.split(".")):
                if one.instead is not None and not one.is_earlier(block[option]):
                    block[option] = one.instead
        assert _contains(expected, read), name


@pytest.mark.parametrize("example", EXAMPLES)
def test_worker_of_today_reads_the_documents_of_the_last_release(
    example: str, tmp_path: Path
) -> None:
    documents = list(yaml.safe_load_all((LAST_RELEASE / f"{example}.yaml").read_text()))
    assert len(documents) >= 7

    for document in documents:
        stage = stage_of(document, example)
        path = tmp_path / "stage.yaml"
        path.write_text(yaml.safe_dump(document))
        read = load_stage_config(stage, path, ())
        assert dump_document(stage, read) == document, (
            "what was not said then means what was done then"
        )


def test_every_option_that_the_last_release_lacks_is_an_addition() -> None:
    """One that is not would be refused by its worker, whatever its value."""
    before = ask_last_release([])["schemas"]
    for stage, model in STAGE_CONFIGS.items():
        lacking = set(_options(model.model_json_schema())) - set(_options(before[stage]))
        found = {path for path, one in ADDITIONS.get(stage, {}).items() if one.is_option}
        undeclared = {
            path for path in lacking if not any(f"{path}.".startswith(f"{one}.") for one in found)
        }
        assert not undeclared, f"{stage}: declare them in ADDITIONS of config/document_version.py"


def test_option_of_before_is_left_out_and_another_value_states_its_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    added = {
        "check-inputs": {
            "items.*.sampling.num_steps": Addition(2, (35,)),
            "items.*.fit": Addition(3, ("stretch", "crop"), is_option=False),
        }
    }
    monkeypatch.setattr(document_version, "ADDITIONS", added)
    job = load_job(ROOT / "examples/quickstart.yaml")
    (document,) = (s.document for s in plan_stages(job) if s.kind == "check-inputs")
    assert isinstance(document, CheckInputsConfig)
    first = document.items[0]

    def dump(**changes: Any) -> dict[str, Any]:
        item = first.model_copy(update=changes)
        return dump_document("check-inputs", document.model_copy(update={"items": (item,)}))

    plain = first.sampling.model_copy(update={"num_steps": 35})
    assert "version" not in dump(sampling=plain, fit="crop")
    assert "num_steps" not in dump(sampling=plain)["items"][0]["sampling"]
    assert dump(sampling=plain)["items"][0]["fit"] == "stretch", "the option itself is not new"
    assert dump(sampling=plain.model_copy(update={"num_steps": 5}))["version"] == 2
    assert dump(sampling=plain, fit="pad")["version"] == 3


def test_document_for_a_newer_worker_is_refused_by_its_version(tmp_path: Path) -> None:
    newer = {"version": DOCUMENT_VERSION + 1, "key": "k", "target_uri": "models://m", "colour": 1}
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(newer))

    with pytest.raises(ImageTooOld, match=f"version {DOCUMENT_VERSION + 1}.*spec.compute.image"):
        load_stage_config("fetch-model", path, ())
    assert without_version({"version": DOCUMENT_VERSION, "key": "k"}, "d") == {"key": "k"}


def test_additions_name_options_that_exist() -> None:
    for stage, added in ADDITIONS.items():
        options = set(_options(STAGE_CONFIGS[stage].model_json_schema()))
        assert set(added) <= options
        assert all(one.version >= 2 for one in added.values())


def _contains(whole: Any, part: Any) -> bool:
    """True if a JSON value has everything that another has; objects may have more."""
    if isinstance(part, dict):
        return all(name in whole and _contains(whole[name], part[name]) for name in part)
    if isinstance(part, list):
        return len(part) == len(whole) and all(map(_contains, whole, part))
    return bool(whole == part)


def _options(schema: dict[str, Any]) -> Iterator[str]:
    """Paths of all options of a JSON schema, items of lists as ``*``."""
    definitions = schema.get("$defs", {})

    def walk(part: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
        if "$ref" in part:
            part = definitions[part["$ref"].rpartition("/")[2]]
        for choice in part.get("anyOf", ()):
            yield from walk(choice, path)
        if isinstance(part.get("items"), dict):
            yield from walk(part["items"], (*path, "*"))
        for name, value in part.get("properties", {}).items():
            yield ".".join((*path, name))
            yield from walk(value, (*path, name))

    return walk(schema, ())


def test_hints_stand_beside_the_document_and_unknown_ones_are_ignored(tmp_path: Path) -> None:
    job = load_job(ROOT / "examples/quickstart.yaml")
    (stage,) = (stage for stage in plan_stages(job) if stage.kind == "train")
    assert isinstance(stage.document, TrainConfig)
    assert stage.document.published_uri is not None
    for name, text in build_config_map(job, stage, "stage")["data"].items():
        (tmp_path / name).write_text(text)
    hints = tmp_path / "hints.yaml"
    assert load_stage_config("train", tmp_path / "stage.yaml", ()) == stage.document

    hints.write_text(hints.read_text() + "of_a_newer_version: 1\n")
    assert load_stage_config("train", tmp_path / "stage.yaml", ()) == stage.document
    hints.unlink()
    read = load_stage_config("train", tmp_path / "stage.yaml", ())
    assert isinstance(read, TrainConfig)
    assert (read.job, read.published_uri) == (None, None)


def test_what_is_left_to_the_gpu_is_a_hint_beside_what_any_gpu_can_do(tmp_path: Path) -> None:
    job = load_job(ROOT / "examples/bridge-7b.yaml")
    (stage,) = (stage for stage in plan_stages(job) if stage.kind == "train")
    for name, text in build_config_map(job, stage, "stage")["data"].items():
        (tmp_path / name).write_text(text)

    document = yaml.safe_load((tmp_path / "stage.yaml").read_text())["experiment"]
    assert document["parallel"]["activation_checkpointing"] == "block"
    assert document["acceleration"]["attention"] == "torch"
    read = load_stage_config("train", tmp_path / "stage.yaml", ())
    assert read == stage.document
    assert isinstance(read, TrainConfig)
    assert read.experiment.parallel.activation_checkpointing == "auto"


@pytest.mark.parametrize("windows", ["null", "3"])
def test_hint_inside_a_block_reaches_the_worker(tmp_path: Path, windows: str) -> None:
    job = load_job(ROOT / "examples/quickstart.yaml")
    overrides = [*job.spec.training.overrides, f"trainer.validation_windows={windows}"]
    training = job.spec.training.model_copy(update={"overrides": overrides})
    job = job.model_copy(update={"spec": job.spec.model_copy(update={"training": training})})
    (stage,) = (stage for stage in plan_stages(job) if stage.kind == "train")
    for name, text in build_config_map(job, stage, "stage")["data"].items():
        (tmp_path / name).write_text(text)

    read = load_stage_config("train", tmp_path / "stage.yaml", ())

    assert "validation_windows" not in (tmp_path / "stage.yaml").read_text()
    assert isinstance(read, TrainConfig)
    assert read.experiment.trainer.validation_windows == yaml.safe_load(windows)
