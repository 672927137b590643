"""Prompt upsampler and guardrails of a job: validation, models that are fetched, documents of the items."""

import pytest
from support.jobs import make_document, make_job

from cosmos_operator.api.parse import parse_job
from cosmos_operator.api.v1alpha1 import sources
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.local.fingerprints import (
    fingerprint_paths,
    local_paths,
    with_absolute_paths,
)
from cosmos_operator.plan.stages import plan_stages
from cosmos_operator.plan.volumes import named_claims

UPSAMPLER = {"promptUpsampler.source": {"huggingFace": {"repo": "lab/pixtral"}}}
GUARDRAILS = {
    "guardrails.source": {"path": "/data/guardrails"},
    "guardrails.textClassifier": {"claim": {"claimName": "models", "path": "guard"}},
    "guardrails.imageEncoder": {"path": "/data/siglip"},
}
KEYS_BEFORE_FACE_BLUR = ("42aa6498af67", "33e1a304ae28")
"""Of fetch-model and generate; the second with the version of the reader of videos, which came later."""
USED = {"inference.1.promptUpsampler": True, "inference.1.guardrails": True}


def stages_of(changes, fingerprints=None):
    return {stage.name: stage for stage in plan_stages(make_job(changes), fingerprints)}


def changed(first, second):
    return {name for name in first if first[name].key != second[name].key}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"inference.0.promptUpsampler": True},
            "spec.inference[0].promptUpsampler: true, but the job has none; give spec.promptUpsampler.source, or "
            "remove it",
        ),
        (
            {"inference.1.guardrails": True, **UPSAMPLER},
            "spec.inference[1].guardrails: true, but the job has none; give source, textClassifier and imageEncoder "
            "in spec.guardrails, or remove it",
        ),
        (
            {"guardrails.source": {"path": "/x"}},
            "spec.guardrails: textClassifier and imageEncoder missing; give all of source, textClassifier, "
            "imageEncoder, or none",
        ),
        (
            {"guardrails.faceBlur": True},
            "spec.guardrails: faceBlur: there are no guardrails; give source, textClassifier, "
            "imageEncoder, or remove it",
        ),
        (
            {"guardrails": {"source": {}}},
            "spec.guardrails.source: got nothing; give exactly one of path, claim, url, huggingFace, s3",
        ),
    ],
    ids=str,
)
def test_what_is_asked_for_and_absent_is_refused(changes, message):
    with pytest.raises(InvalidSpec) as caught:
        parse_job(make_document(changes))

    assert caught.value.problems == (message,)


def test_sources_are_fetched_when_the_job_names_them():
    before, after = stages_of({}), stages_of({**UPSAMPLER, **GUARDRAILS})

    assert len(before["fetch-model"].document.artifacts) == 3
    assert [
        (one.kind, one.name, one.target_uri.rpartition("-")[0])
        for one in after["fetch-model"].document.artifacts[3:]
    ] == [
        ("prompt_upsampler", "pixtral", "models://pixtral"),
        ("guardrails", "guardrails", "models://guardrails"),
        ("text_classifier", "guard", "models://guard"),
        ("image_encoder", "siglip", "models://siglip"),
    ]
    assert changed(before, after) == {"fetch-model"}  # no item is generated again


def test_only_the_items_that_ask_are_told():
    stages = stages_of({**UPSAMPLER, **GUARDRAILS, **USED})
    folders = {one.kind: one.target_uri for one in stages["fetch-model"].document.artifacts}

    after, before = stages["generate-after"].document, stages["generate-before"].document

    assert after.prompt_upsampler_uri == folders["prompt_upsampler"]
    assert after.guardrails.model_dump() == {
        "folder_uri": folders["guardrails"],
        "text_classifier_uri": folders["text_classifier"],
        "image_encoder_uri": folders["image_encoder"],
        "face_blur": False,
    }
    assert (before.prompt_upsampler_uri, before.guardrails) == (None, None)


@pytest.mark.parametrize("name", ["promptUpsampler", "guardrails"])
def test_each_switch_decides_the_videos_of_its_item(name):
    before = stages_of({**UPSAMPLER, **GUARDRAILS})
    after = stages_of({**UPSAMPLER, **GUARDRAILS, f"inference.1.{name}": True})

    assert changed(before, after) == {"check-inputs", "generate-after", "report"}


def test_face_blur_brings_its_network_and_decides_the_videos_of_items_with_guardrails():
    given = {**UPSAMPLER, **GUARDRAILS, **USED}
    before, after = stages_of(given), stages_of({**given, "guardrails.faceBlur": True})
    artifact = after["fetch-model"].document.artifacts[4]
    guards = after["generate-after"].document.guardrails

    assert artifact.kind == "guardrails_with_face_blur"
    assert (guards.face_blur, guards.folder_uri) == (True, artifact.target_uri)
    assert artifact.target_uri != before["fetch-model"].document.artifacts[4].target_uri
    assert changed(before, after) == {"fetch-model", "check-inputs", "generate-after", "report"}


def test_guardrails_without_face_blur_have_the_key_that_they_had_before_there_was_one():
    # the rate was 24 for items that said nothing of it
    stages = stages_of({**UPSAMPLER, **GUARDRAILS, **USED, "inference.1.parameters.fps": 24})

    assert (stages["fetch-model"].key, stages["generate-after"].key) == KEYS_BEFORE_FACE_BLUR


def test_content_of_the_guardrails_decides_what_uses_them():
    changes = {**UPSAMPLER, **GUARDRAILS, **USED}
    first, second = (stages_of(changes, {"/data/guardrails": number}) for number in "12")

    assert changed(first, second) == {"fetch-model", "check-inputs", "generate-after", "report"}


def test_sources_have_paths_claims_and_mounts_as_all_others(tmp_path):
    (tmp_path / "lists").mkdir()
    changes = {
        f"{name}.source": {"path": "lists"}
        for name in ("model", "tokenizer", "embeddings", "dataset", "promptUpsampler")
    }
    changes |= {**GUARDRAILS, "guardrails.source": {"path": "lists"}, "inference": []}
    changes["guardrails.imageEncoder"] = {"path": "siglip"}
    (tmp_path / "siglip").mkdir()
    job = with_absolute_paths(make_job(changes), tmp_path)

    assert [where for where, _ in sources(job)][-4:] == [
        "spec.promptUpsampler.source",
        "spec.guardrails.source",
        "spec.guardrails.textClassifier",
        "spec.guardrails.imageEncoder",
    ]
    assert dict(local_paths(job))["spec.guardrails.source.path"] == f"{tmp_path}/lists"
    assert set(fingerprint_paths(job)) == {f"{tmp_path}/lists", f"{tmp_path}/siglip"}
    assert named_claims(job) == {"spec.guardrails.textClassifier.claim.claimName": "models"}
    mounts = [mount.claim_name for mount in plan_stages(job)[0].mounts(job)]
    assert "models" in mounts
