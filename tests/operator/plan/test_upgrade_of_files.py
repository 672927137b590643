"""Files of the version before this round (commit 50b1c44): its stage documents are read, and what it has made is used.

``tests/data/before_50b1c44`` has the example job of that version and the documents that its ``cosmos render`` gave.
"""

from pathlib import Path

import pytest
import yaml

from cosmos_operator.api.parse import load_job
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.errors import ConfigError

BEFORE = Path(__file__).parents[2] / "data/before_50b1c44"
DOCUMENTS = yaml.safe_load((BEFORE / "documents.yaml").read_text())
STAGES = {stage.name: stage for stage in plan_stages(load_job(BEFORE / "job.yaml"))}
FREE = {"published_uri", "job", "embeddings_uri"}
"""Fields that say where things are, and were added later; they do not decide a result."""


def decisive(document):
    """The values of a document but for those in FREE, and for defaults that changed since and decide no weights."""
    values = document.model_dump(exclude=FREE)
    if experiment := values.get("experiment"):
        del experiment["trainer"]["validation_draws"], experiment["acceleration"]["attention"]
    return values


def test_stages_are_the_same():
    assert [*DOCUMENTS] == [*STAGES]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_result_of_before_is_used_and_its_document_is_read(name, tmp_path):
    """A job that runs during an upgrade keeps its ConfigMaps, and its next pods have the worker of today."""
    stage, before = STAGES[name], DOCUMENTS[name]
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(before))

    read = load_stage_config(stage.kind, path, ())

    assert before["key"] == stage.key, "another key would make the work of before anew"
    assert before["target_uri"] == stage.document.target_uri
    assert decisive(read) == decisive(stage.document)


def test_single_option_of_before_is_still_refused_with_advice(tmp_path):
    document = STAGES["train"].document.model_dump(mode="json")
    document["experiment"]["text"]["padding"] = "pad"
    path = tmp_path / "stage.yaml"
    path.write_text(yaml.safe_dump(document))

    with pytest.raises(ConfigError, match=r"compat\.trimmed_text"):
        load_stage_config("train", path, ())
