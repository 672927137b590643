"""Models that are taken from the Hugging Face Hub by their names."""

from __future__ import annotations

import pytest
from support.jobs import make_document, make_job

from cosmos_operator.api.parse import parse_job
from cosmos_operator.errors import InvalidSpec

BRIDGE = "video2world_instruction_bridge_57frames"


def changes(experiment: str, **model: object) -> dict[str, object]:
    return {
        "training": {"experiment": experiment},
        "model": model,
        "embeddings": {},
        "inference": [],
        "compute": {},
    }


@pytest.mark.parametrize(
    ("experiment", "name"),
    [
        (BRIDGE, "Cosmos-Predict1-7B-Video2World"),
        (BRIDGE, "nvidia/Cosmos-Predict1-7B-Video2World"),
        (BRIDGE, "lab/pushing-7b"),
        (BRIDGE, "lab/Cosmos-Predict1-7B-Video2World-pushing"),
        (f"{BRIDGE}_14b", "Cosmos-Predict1-14B-Video2World"),
    ],
)
def test_model_of_the_experiment(experiment: str, name: str) -> None:
    assert make_job(changes(experiment, name=name)).spec.model.name == name


@pytest.mark.parametrize(
    ("experiment", "name", "allowed"),
    [
        (BRIDGE, "Cosmos-Predict2.5-2B", "7B"),
        (BRIDGE, "nvidia/Cosmos-Predict2-14B-Video2World", "7B"),
        (BRIDGE, "Cosmos-Predict1-7B-Text2World", "7B"),
        (BRIDGE, "Cosmos-Predict1-14B-Video2World", "7B"),
        (BRIDGE, "Cosmos-Predict1-7B-Video2Wordl", "7B"),
        (BRIDGE, "lab/Cosmos-Predict2.5-2B-pushing", "7B"),
        (f"{BRIDGE}_14b", "Cosmos-Predict1-7B-Video2World", "14B"),
    ],
)
def test_model_of_another_family_or_size_is_refused(
    experiment: str, name: str, allowed: str
) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_job(make_document(changes(experiment, name=name)))

    (problem,) = caught.value.problems
    assert problem == (
        f"spec.model.name: {name!r} is not the model of experiment {experiment}; use Cosmos-Predict1-{allowed}-"
        "Video2World, or give spec.model.source, with which the name is free"
    )


def test_name_is_free_with_a_source() -> None:
    make_job(changes(BRIDGE, name="Cosmos-Predict2.5-2B", source={"path": "/data/model"}))


def test_network_of_no_model_on_the_hub_needs_a_source() -> None:
    with pytest.raises(
        InvalidSpec, match=r"spec\.model\.source: missing; the network of experiment"
    ):
        parse_job(make_document({"model": {}}))


def test_network_that_begins_at_random_needs_none() -> None:
    make_job({"model": {}, "training.overrides": ["trainer.init=random"]})


def test_encoder_of_another_width_is_refused() -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_job(make_document(changes(BRIDGE) | {"embeddings": {"encoder": "google-t5/t5-base"}}))

    (problem,) = caught.value.problems
    assert "has embeddings of width 768" in problem
    assert "takes 1024 (net.text_channels)" in problem
    assert "use google-t5/t5-large or google-t5/t5-3b or google-t5/t5-11b" in problem


def test_encoder_of_any_name_may_have_any_width() -> None:
    make_job(changes(BRIDGE) | {"embeddings": {"encoder": "lab/t5"}})
