"""The stages of an InferenceJob: those of the same items of a PostTrainingJob."""

from __future__ import annotations

import pytest
from support.jobs import make_inference_job, make_job

from cosmos_operator.errors import InvalidSpec
from cosmos_operator.plan.inference_stages import plan_inference_stages
from cosmos_operator.plan.render import build_manifests, stage_name
from cosmos_operator.plan.sampling_job import complete_job
from cosmos_operator.plan.stages import plan_stages

OWN_MODEL = {
    "model": {"name": "Tiny", "source": {"path": "/data/model"}},
    "experiment": "video2world_instruction_push_tiny",
    "tokenizer": {"name": "Tiny-Tokenizer", "source": {"path": "/data/tokenizer"}},
    "embeddings": {"encoder": "Tiny-T5", "source": {"path": "/data/encoder"}},
}


def plan(changes=None, job=None, **more):
    request = make_inference_job(changes)
    return {one.name: one for one in plan_inference_stages(complete_job(request, job), **more)}


def stages_of(job):
    return {one.name: one for one in plan_stages(job)}


@pytest.mark.parametrize("name", ["before", "after"])
def test_item_has_the_document_and_the_key_that_it_has_in_the_list_of_the_job(name):
    job = make_job()
    item = next(one for one in job.spec.inference if one.name == name).model_dump(
        by_alias=True, exclude_unset=True
    )

    mine, theirs = plan({"items": [item]}, job), stages_of(job)

    assert mine[f"generate-{name}"].document == theirs[f"generate-{name}"].document
    assert mine["fetch-model"].key == theirs["fetch-model"].key


def test_all_items_of_a_job_are_checked_as_the_job_checks_them():
    job = make_job()
    items = [one.model_dump(by_alias=True, exclude_unset=True) for one in job.spec.inference]

    assert plan({"items": items}, job)["check-inputs"].key == stages_of(job)["check-inputs"].key


def test_videos_wait_for_the_check_and_the_check_for_the_models():
    found = plan(job=make_job())

    assert [*found] == ["fetch-model", "check-inputs", "generate-after", "report"]
    assert found["check-inputs"].depends_on == ("fetch-model",)
    assert found["generate-after"].depends_on == ("fetch-model", "check-inputs")
    assert found["report"].depends_on == ("generate-after",)


def test_item_of_a_source_has_the_key_of_a_base_item_of_a_job():
    job = make_job({"dataset.fit": "Crop"})
    item = {"name": "one", "inputs": [{"prompt": "push", "conditioning": "/data/a.png"}]}
    theirs = make_job({"dataset.fit": "Crop", "inference": [{**item, "checkpoint": "Base"}]})

    mine = plan({**OWN_MODEL, "fit": "Crop", "items": [item]})["generate-one"]

    assert mine.key == stages_of(theirs)["generate-one"].key
    assert mine.document.embeddings_uri == stages_of(theirs)["embed-text"].document.target_uri
    assert mine.document.target_uri.startswith("checkpoints://generated-with-Tiny-")
    assert job.spec.dataset.fit == "Crop"


def test_published_model_is_sampled_where_it_lies_and_another_publication_is_another_key():
    changes = {**OWN_MODEL, "model": {"published": "pushing-tiny"}}
    first, again, other = (plan(changes, identity=one) for one in ("a", "a", "b"))

    document = first["generate-after"].document
    assert document.checkpoint_uri == "checkpoints://pushing-tiny/model.pt"
    assert document.key == again["generate-after"].key != other["generate-after"].key
    fetched = [one.kind for one in first["fetch-model"].document.artifacts]
    assert fetched == ["tokenizer", "text_encoder"]
    report = first["report"].document
    assert (report.run_uri, report.dataset_uri, report.steps) == (None, None, None)


def test_omitted_blocks_are_those_of_the_job():
    job = make_job(
        {
            "compute": {"gpusPerNode": 4, "nodes": 2, "image": "worker:7"},
            "training.overrides": ["trainer.micro_batch_size=1"],
            "storage": {"checkpoints": {"claimName": "mine"}},
            "scheduling": {"queueName": "gpus"},
        }
    )
    complete = complete_job(make_inference_job(), job)
    stages = plan_inference_stages(complete)

    assert complete.spec.storage == job.spec.storage
    assert complete.spec.scheduling.queue_name == "gpus"
    assert (complete.spec.compute.image, complete.spec.compute.nodes) == ("worker:7", 1)
    assert {one.name: one.gpus for one in stages}["generate-after"] == 1


@pytest.mark.parametrize(
    ("given", "runtime"),
    [
        ({}, "torchscript"),
        ({"tokenizer": {"name": "T", "source": {"path": "/t"}}}, "native"),
        ({"tokenizer": {"name": "T", "source": {"path": "/t"}, "runtime": "TorchScript"}}, "torchscript"),
    ],
)  # fmt: skip
def test_runtime_of_the_tokenizer_is_that_of_the_block_that_names_it(given, runtime):
    changes = {"model": {"published": "mine"}, "experiment": OWN_MODEL["experiment"], **given}
    found = plan(changes) if given else plan(job=make_job({"tokenizer.runtime": "TorchScript"}))

    assert found["generate-after"].document.tokenizer_runtime == runtime


def test_given_blocks_take_the_place_of_those_of_the_job():
    job = make_job({"compute": {"processesPerNode": 2, "image": "worker:7"}})
    changes = {"compute": {"gpus": 2}, "storage": {"models": {"claimName": "other"}}}
    complete = complete_job(make_inference_job(changes), job)

    assert complete.spec.storage.models.claim_name == "other"
    assert complete.spec.compute.image is None
    assert plan(changes, job)["generate-after"].gpus == 2


def test_names_and_labels_differ_from_those_of_a_job_of_the_same_name():
    job = make_job()
    item = job.spec.inference[1].model_dump(by_alias=True, exclude_unset=True)
    request = make_inference_job({"items": [item]}, name=job.name)
    complete = complete_job(request, job)
    mine, theirs = plan_inference_stages(complete), stages_of(job)

    for stage in mine:
        same = stage_name(complete, stage) == stage_name(job, theirs[stage.name])
        assert same is stage.is_shared, stage.name
    for manifest in build_manifests(complete, mine):
        labels = manifest["metadata"]["labels"]
        assert "cosmos.dev/job" not in labels
        if manifest["kind"] == "Job" and labels["cosmos.dev/stage"] != "fetch-model":
            pod = manifest["spec"]["template"]["metadata"]["labels"]
            assert labels["cosmos.dev/inference-job"] == pod["cosmos.dev/inference-job"] == "push"
    assert {one["kind"] for one in build_manifests(complete, mine)} == {"ConfigMap", "Job"}


def test_item_that_does_not_go_with_the_model_is_refused_with_its_field():
    with pytest.raises(InvalidSpec, match=r"spec\.items\[0\]\.parameters\.numPixelFrames: 33"):
        plan({"items.0.parameters": {"numPixelFrames": 33}}, make_job())
    with pytest.raises(InvalidSpec, match=r"spec\.items\[0\]\.guardrails: true, but the job has"):
        plan({"items.0.guardrails": True}, make_job())


def test_claims_of_the_job_are_those_of_the_videos():
    job = make_job({"dataset.source": {"claim": {"claimName": "films", "path": "cubes"}}})
    with_report = complete_job(make_inference_job(), job)
    without = complete_job(make_inference_job({"outputs": {"report": False}}), job)

    assert with_report.dataset_claim is not None
    assert without.dataset_claim is None
    assert [where for where, _ in without.sources if "dataset" in where] == []


def test_pod_of_an_item_with_gpus_has_the_image_with_cuda():
    from cosmos_operator.settings import Settings

    changes = {**OWN_MODEL, "items.0.gpus": 1}
    complete = complete_job(make_inference_job(changes), None)
    settings = Settings(workerImage="cuda", workerCpuImage="cpu")
    images = {
        one["metadata"]["labels"]["cosmos.dev/stage"]: one["spec"]["template"]["spec"][
            "containers"
        ][0]["image"]
        for one in build_manifests(complete, plan_inference_stages(complete), settings=settings)
        if one["kind"] == "Job"
    }
    assert images["generate-after"] == "cuda"
    assert images["fetch-model"] == "cpu"


def template(priority):
    return {"spec": {"priorityClassName": priority}}


def priorities(changes, job):
    """Stage → the priority class of its pods."""
    complete = complete_job(make_inference_job(changes), job)
    return {
        one["metadata"]["labels"]["cosmos.dev/stage"]: one["spec"]["template"]["spec"].get(
            "priorityClassName"
        )
        for one in build_manifests(complete, plan_inference_stages(complete))
        if one["kind"] == "Job"
    }


def test_pod_templates_are_those_of_the_job_unless_it_gives_its_own():
    job = make_job(
        {"podTemplate": template("low"), "stages": {"report": {"podTemplate": template("lowest")}}}
    )

    assert priorities({}, job)["generate-after"] == "low"
    assert priorities({}, job)["report"] == "lowest"
    own = {
        "podTemplate": template("high"),
        "stages": {"generate": {"podTemplate": template("highest")}},
    }
    assert priorities(own, job)["generate-after"] == "highest"
    assert priorities(own, job)["report"] == "high"


def test_template_of_an_item_comes_last():
    job, document = make_job(), make_inference_job().spec.items[0]
    item = document.model_dump(by_alias=True, exclude_unset=True, mode="json")
    item["podTemplate"] = template("item")

    found = priorities({"items": [item], "podTemplate": template("high")}, job)
    assert (found["generate-after"], found["report"]) == ("item", "high")


def test_template_that_would_break_the_job_is_refused_with_its_field():
    wrong = {"spec": {"containers": [{"name": "worker", "command": ["true"]}]}}
    with pytest.raises(InvalidSpec, match=r"spec\.stages\.generate\.podTemplate"):
        make_inference_job({"stages": {"generate": {"podTemplate": wrong}}})


def test_queue_is_that_of_the_job_unless_it_names_its_own():
    job = make_job({"scheduling": {"queueName": "gpus"}})

    assert complete_job(make_inference_job(), job).queue_name == "gpus"
    assert complete_job(make_inference_job({"scheduling": {}}), job).queue_name == ""
    own = make_inference_job({"scheduling": {"queueName": "mine"}})
    assert complete_job(own, job).queue_name == "mine"
