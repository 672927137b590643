"""The InferenceJob: what is accepted, and what is said about what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from support.jobs import make_inference_document, make_inference_job, make_job

from cosmos_operator.api.check_inference_job import check_inference_job
from cosmos_operator.api.inferencejob import InferenceJob
from cosmos_operator.api.parse import load_job, parse_inference_job
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.errors import InvalidSpec

OWN = {
    "model": {"published": "pushing-tiny"},
    "experiment": "video2world_instruction_push_tiny",
}


def problems_of(changes):
    with pytest.raises(InvalidSpec) as raised:
        parse_inference_job(make_inference_document(changes))
    return raised.value.problems


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"model": {}}, "spec.model: got nothing; give exactly one of job, published, and name or source"),
        ({"model": {"job": "a", "published": "b"}}, "spec.model: got job and published; give exactly one"),
        ({"model": {"job": "a", "loraScale": 2}}, "loraScale: is for weights by name or source"),
        ({"model": {"published": "b"}}, "experiment: missing; give that of the model"),
        ({"experiment": "x"}, "experiment: come from the PostTrainingJob 'push' of model.job; remove them"),
        ({**OWN, "items.0.checkpoint": "Base"}, "items: checkpoint Base of after needs model.job"),
        ({**OWN, "items.0.inputs.0.conditioning": "dataset://a.png"}, "needs spec.model.job; give a volume address"),
        ({**OWN, "items.0.inputs.0.conditioning": "vido://a.png"}, "use one of models://, datasets://"),
        ({**OWN, "items.0.guardrails": True}, "spec.items[0].guardrails: true, but the job has none"),
        ({**OWN, "experiment": "video2wrld"}, "spec.experiment: "),
        ({**OWN, "overrides": ["trainer.max_steps=4"]}, "spec.overrides[0]: got 'trainer.max_steps=4'; remove it"),
        ({**OWN, "overrides": ["text.max_length=4"]}, "use spec.embeddings.maxLength instead"),
        ({**OWN, "overrides": ["net.width=4"]}, "spec.overrides[0]: "),
        ({**OWN, "items.0.parameters": {"numPixelFrames": 33}}, "spec.items[0].parameters.numPixelFrames: 33"),
        ({"item": []}, "spec: unknown field 'item'; did you mean 'items'?"),
        ({"compute": {"nodes": 2}}, "spec.compute: unknown field 'nodes'"),
    ],
)  # fmt: skip
def test_wrong_field_is_named_with_what_to_do(changes, text):
    assert any(text in problem for problem in problems_of(changes)), problems_of(changes)


def test_what_depends_on_the_job_of_the_model_is_checked_once_that_is_known():
    request = make_inference_job({"items.0.parameters": {"numPixelFrames": 33}})

    (problem,) = check_inference_job(request, make_job())
    assert problem.startswith("spec.items[0].parameters.numPixelFrames: 33 is not a multiple")


def test_file_of_either_kind_is_read(tmp_path: Path):
    for name, kind in (("posttrainingjob", PostTrainingJob), ("inferencejob", InferenceJob)):
        path = Path(__file__).parents[3] / "examples" / f"{name}.yaml"
        assert isinstance(load_job(path), kind)
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({**make_inference_document(), "kind": "VideoJob"}))
    with pytest.raises(InvalidSpec, match="kind"):
        load_job(path)


def test_item_without_a_number_of_gpus_has_that_of_compute():
    job = make_inference_job({"compute": {"gpus": 2}})
    own = make_inference_job({"compute": {"gpus": 2}, "items.0.gpus": 1})

    assert [one.items[0].gpus for one in (job, own)] == [2, 1]
    assert make_inference_job().items[0].gpus is None
