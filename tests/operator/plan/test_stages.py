"""The plan of a job: its stages, their order, and the options that change their keys."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.jobs import make_job

from cosmos_operator.local.validate import describe_numbers
from cosmos_operator.plan import keys
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.config.sampling import DEFAULT_NEGATIVE_PROMPT
from cosmos_worker.config.stages import STAGE_CONFIGS
from cosmos_worker.storage.volumes import ADDRESS

DATA = {"fetch-model", "prepare-dataset", "embed-text", "cache-latents"}
AFTER = {"train", "publish", "generate-after", "report"}


def keys_of(job, fingerprints=None):
    return {stage.name: stage.key for stage in plan_stages(job, fingerprints)}


def changed(changes, name="push"):
    before, after = keys_of(make_job()), keys_of(make_job(changes, name))
    return {stage for stage in before | after if before.get(stage) != after.get(stage)}


def test_plan_lists_the_stages_in_an_order_in_which_they_can_run():
    stages = plan_stages(make_job())

    assert [stage.name for stage in stages] == [
        "fetch-model", "prepare-dataset", "embed-text", "cache-latents", "check-inputs", "train", "publish",
        "generate-before", "generate-after", "report",
    ]  # fmt: skip
    for number, stage in enumerate(stages):
        assert set(stage.depends_on) <= {earlier.name for earlier in stages[:number]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"compute.image": "worker:2"}, set()),
        ({"compute.resources": {"limits": {"memory": "8Gi"}}}, set()),
        ({"compute.preparation": {"gpus": 1}}, set()),
        ({"compute.processesPerNode": 1}, set()),
        ({"scheduling": {"queueName": "team", "priorityClassName": "high"}}, set()),
        ({"runPolicy": {"maxAttempts": 9, "suspend": True}}, set()),
        ({"storage.models.claimName": "other"}, set()),
        ({"backend": {"type": "Job"}}, set()),
        ({"credentials": {"huggingFace": {"name": "token"}}}, set()),
        ({"credentials": {"s3": {"name": "keys"}}}, set()),
        ({"checkpoints": {"everySteps": 10, "keepLast": 5}}, set()),
        ({"training.overrides": ["trainer.log_every_steps=1"]}, set()),
        ({"training.overrides": ["trainer.micro_batch_size=4"]}, set()),
        ({"training.overrides": ["trainer.validate_every_steps=5"]}, set()),
        ({"training.overrides": ["tokenizer.batch_size=2"]}, set()),
        ({"inference.0.parameters": {"batchSize": 4}}, set()),
        ({"inference.0.gpus": 1}, set()),
        ({"inference.0.processes": 3, "inference.0.contextParallel": 3}, set()),
        ({"inference.0.offload": ["Tokenizer", "Network"]}, set()),
        ({"inference.0.parameters": {"passes": 1}}, set()),
        ({"inference.0.parameters": {"passes": 2}}, {"check-inputs", "generate-before", "report"}),
        ({"training.steps": 41}, AFTER),
        ({"training.seed": 1}, AFTER),
        ({"training.overrides": ["optimizer.learning_rate=1e-4"]}, AFTER),
        ({"training.overrides": ["text.dropout=0.5"]}, AFTER),
        ({"outputs.weights": "Regular"}, {"publish", "generate-after", "report"}),
        ({"outputs.name": "other"}, {"publish", "generate-after", "report"}),
        ({"inference.0.parameters": {"seed": 5}}, {"generate-before", "report"}),
        ({"inference.1.parameters.seed": 5}, {"generate-after", "report"}),
        (
            {"inference.1.inputs": [{"prompt": "push the blue cube left", "conditioning": "/data/first.png"}]},
            {"check-inputs", "generate-after", "report"},
        ),
        ({"inference.1.metrics": ["Push"]}, {"check-inputs", "generate-after", "report"}),
        ({"outputs.report": False}, {"report"}),
        ({"embeddings.maxUnknownFraction": 0.05}, set()),
        ({"embeddings.maxUnknownFraction": 0.5}, {"embed-text"}),
        ({"model.source": {"path": "/other"}}, {"fetch-model", "generate-before"} | AFTER),
        (
            {"tokenizer.source": {"path": "/other"}},
            {"fetch-model", "cache-latents", "generate-before"} | AFTER,
        ),
        ({"tokenizer.runtime": "TorchScript"}, set()),
        (
            {"embeddings.source": {"path": "/other"}},
            {"fetch-model", "embed-text", "check-inputs", "generate-before"} | AFTER,
        ),
        (
            {"dataset.source": {"path": "/other"}},
            {"prepare-dataset", "embed-text", "cache-latents", "check-inputs", "generate-before"} | AFTER,
        ),
        (
            {"dataset.camera": 1},
            {"prepare-dataset", "embed-text", "cache-latents"} | AFTER,
        ),
        ({"dataset.validationSeed": 5}, set()),
        (
            {"dataset.validationFraction": 0.1},
            {"prepare-dataset", "embed-text", "cache-latents"} | AFTER,
        ),
        (
            {"training.overrides": ["video.window_stride=2"]},
            {"prepare-dataset", "embed-text", "cache-latents"} | AFTER,
        ),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)  # fmt: skip
def test_change_of_the_job_repeats_only_what_it_decides(changes, expected):
    assert changed(changes) == expected


def test_fit_reaches_all_that_brings_frames_to_the_windows_size():
    documents = {s.name: s.document for s in plan_stages(make_job({"dataset.fit": "Crop"}))}

    found = {name: one.fit for name, one in documents.items() if hasattr(one, "fit")}
    assert found == dict.fromkeys(
        ("prepare-dataset", "cache-latents", "generate-before", "generate-after"), "crop"
    )
    assert [item.fit for item in documents["check-inputs"].items] == ["crop", "crop"]


AT_A_RATE = {"training.overrides": ["video.fps=10"]}


@pytest.mark.parametrize(
    ("stage", "changes", "expected"),
    [
        ("prepare-dataset", {"dataset.layout": "Jsonl"}, {"layout": "jsonl"}),
        (
            "prepare-dataset",
            {"dataset.layout": "LeRobot", "dataset.cameraName": "observation.images.front"},
            {"layout": "lerobot", "camera_name": "observation.images.front"},
        ),
        ("prepare-dataset", {"dataset.camera": 2}, {"camera": 2}),
        ("prepare-dataset", {"dataset.frameRate": "Resample"}, {"frame_rate": "resample"}),
        (
            "prepare-dataset",
            {"dataset.validationFraction": 0.25, "dataset.validationSeed": 7},
            {"validation_fraction": 0.25, "validation_seed": 7},
        ),
        ("embed-text", {"embeddings.maxUnknownFraction": 0.5}, {"max_unknown_fraction": 0.5}),
    ],
    ids=str,
)
def test_option_of_the_data_reaches_its_document_and_key(stage, changes, expected):
    plain, other = (
        next(one for one in plan_stages(job) if one.name == stage)
        for job in (make_job(AT_A_RATE), make_job({**AT_A_RATE, **changes}))
    )

    assert {name: getattr(other.document, name) for name in expected} == expected
    assert not expected.items() & {(name, getattr(plain.document, name)) for name in expected}
    assert plain.key != other.key


def test_another_reader_of_videos_repeats_what_reads_videos(monkeypatch):
    before = keys_of(make_job())
    monkeypatch.setattr(keys, "VIDEO_READER_VERSION", keys.VIDEO_READER_VERSION + 1)
    after = keys_of(make_job())

    changed = {name for name in before if before[name] != after[name]}
    reading = {
        "prepare-dataset", "cache-latents", "check-inputs", "generate-before", "generate-after",
    }  # fmt: skip
    assert changed >= reading
    assert changed <= reading | {"embed-text"} | AFTER


CONSTANT = "optimizer.final_factor=1"


@pytest.mark.parametrize(
    ("overrides", "is_same_run"),
    [
        ([], False),
        ([CONSTANT], True),
        (["optimizer.decay_start=1"], True),
        ([CONSTANT, "optimizer.warmup_steps=null"], True),
    ],
)
def test_run_of_more_steps_continues_where_the_learning_rates_stay_the_same(overrides, is_same_run):
    """The run keeps its folder; stages that depend on its number of steps run again."""
    plans = [
        {s.name: s for s in plan_stages(make_job({"training.overrides": overrides, "training.steps": steps}))}
        for steps in (40, 80)
    ]  # fmt: skip
    old, new = plans

    addresses = [stages["train"].document.target_uri for stages in plans]
    assert (addresses[0] == addresses[1]) is is_same_run
    assert {name for name in old if old[name].key != new[name].key} == AFTER
    assert [stages["publish"].document.step for stages in plans] == [40, 80]
    assert [stages["report"].document.steps for stages in plans] == [40, 80]
    generated = [stages["generate-before"].document.target_uri for stages in plans]
    assert (generated[0] == generated[1]) is is_same_run


def test_best_of_more_steps_is_published_again():
    overrides = [CONSTANT, "trainer.keep_best=true"]
    changes = {"outputs.checkpoint": "Best", "training.overrides": overrides}
    old, new = (
        next(s for s in plan_stages(make_job({**changes, "training.steps": n})) if s.name == "publish")
        for n in (40, 80)
    )  # fmt: skip

    assert (old.document.run_uri, old.document.last_step) == (new.document.run_uri, 40)
    assert old.key != new.key


def test_seed_of_the_draw_decides_where_something_is_drawn():
    drawn = {"dataset.validationFraction": 0.1}
    before, after = (
        keys_of(make_job({**drawn, "dataset.validationSeed": seed})) for seed in (0, 5)
    )

    assert before["prepare-dataset"] != after["prepare-dataset"]


def test_name_of_the_job_leaves_shared_stages_alone():
    assert changed({}, name="other") == {"publish", "generate-after", "report"}


def test_shared_stages_of_two_jobs_are_the_same_in_every_byte():
    mine = {s.name: s.document for s in plan_stages(make_job()) if s.is_shared}
    theirs = plan_stages(make_job({"training.steps": 99}, name="other"))

    assert mine == {s.name: s.document for s in theirs if s.is_shared}
    assert set(mine) == DATA


def test_content_of_a_local_path_decides_keys():
    job = make_job()
    before = keys_of(job, {"/data/cubes": "1", "/data/first.png": "1"})
    clips = keys_of(job, {"/data/cubes": "2", "/data/first.png": "1"})
    image = keys_of(job, {"/data/cubes": "1", "/data/first.png": "2"})

    assert {n for n in before if before[n] != clips[n]} == set(before) - {"fetch-model"}
    assert {n for n in before if before[n] != image[n]} == {
        "check-inputs",
        "generate-after",
        "report",
    }


def test_archive_with_a_digest_is_known_by_it_alone():
    source = {"url": "https://a.example/cubes.tar", "sha256": "0" * 64}
    mirror = {"url": "https://b.example/cubes.tar", "sha256": "0" * 64}
    first, second = (
        plan_stages(make_job({"dataset.source": {"url": s}})) for s in (source, mirror)
    )

    assert first[1].document.data_uri == second[1].document.data_uri


@pytest.mark.parametrize(
    ("override", "changes"),
    [
        ("parallel.sharding=full", False),
        ("optimizer.implementation=apex", False),
        ("trainer.log_every_steps=1", False),
        ("acceleration.attention=transformer_engine", False),
        ("acceleration.compile=enabled", False),
        ("acceleration.linear=float8", True),
        ("optimizer.state_bits=8", True),
        ("trainer.sample_every_steps=5", False),
        ("trainer.validation_sigmas=[0.5, 1]", False),
        ("trainer.keep_best=true", False),
        ("trainer.trackers=[wandb]", False),
        ("lora.rank=4", True),
        ("buckets=[]", False),
        ("buckets=[{num_pixel_frames: 9, height: 64, width: 64}]", True),
        ("optimizer.learning_rate=1e-4", True),
    ],
)
def test_how_a_training_runs_does_not_decide_its_key(override, changes):
    plain, changed = (
        next(stage for stage in plan_stages(make_job(change)) if stage.kind == "train")
        for change in (None, {"training.overrides": [override]})
    )

    assert (plain.key != changed.key) is changes


def test_processes_that_share_frames_do_not_decide_the_key_of_a_training():
    shared = {"training.overrides": ["parallel.context_parallel=3"], "compute.processesPerNode": 6}
    plain, changed = (
        next(stage for stage in plan_stages(make_job(change)) if stage.kind == "train")
        for change in (None, shared)
    )

    assert plain.key == changed.key


def test_buckets_decide_index_latents_and_training():
    override = "buckets=[{num_pixel_frames: 9, height: 64, width: 64}]"

    assert (
        changed({"training.overrides": [override]})
        == {"prepare-dataset", "cache-latents", "embed-text"} | AFTER
    )
    stages = {s.name: s.document for s in plan_stages(make_job({"training.overrides": [override]}))}
    wanted = stages["train"].experiment.buckets
    assert stages["prepare-dataset"].buckets == stages["cache-latents"].buckets == wanted != ()


def test_validate_says_the_windows_of_every_bucket():
    override = "buckets=[{num_pixel_frames: 9, height: 64, width: 64}, {num_pixel_frames: 17, height: 32, width: 64}]"
    job = make_job({"training.overrides": [override]})

    assert next(describe_numbers(job)).endswith(
        ": windows of 9 frames, 64x64 pixels or 17 frames, 32x64 pixels"
    )


def test_training_that_samples_knows_the_tokenizer():
    plain, sampling = (
        {stage.name: stage for stage in plan_stages(make_job(changes))}
        for changes in (None, {"training.overrides": ["trainer.sample_every_steps=5"]})
    )

    assert plain["train"].document.tokenizer_uri is None
    tokenizer = sampling["train"].document.tokenizer_uri
    assert tokenizer == sampling["cache-latents"].document.tokenizer_uri
    assert "models" in sampling["train"].volumes


@pytest.mark.parametrize(
    ("changes", "runtime"),
    [({}, "native"), ({"tokenizer.runtime": "TorchScript"}, "torchscript")],
)
def test_programs_of_the_tokenizer_are_run_where_it_is_asked_for_alone(changes, runtime):
    stages = {stage.name: stage.document for stage in plan_stages(make_job(changes))}

    using = ("cache-latents", "train", "generate-before", "generate-after")
    assert {stages[name].tokenizer_runtime for name in using} == {runtime}


def test_best_checkpoint_is_published_where_it_is_asked_for():
    changes = {"outputs.checkpoint": "Best", "training.overrides": ["trainer.keep_best=true"]}
    published = next(stage for stage in plan_stages(make_job(changes)) if stage.kind == "publish")

    assert published.document.step == "best"


def test_adapter_is_published_under_the_name_of_the_model_where_it_is_asked_for():
    def published(changes):
        changes = {"training.overrides": ["lora.rank=4"], **changes}
        return next(stage for stage in plan_stages(make_job(changes)) if stage.kind == "publish")

    plain, asked = published({}), published({"outputs.adapter": True})
    of_hub = published({"outputs.adapter": True, "model.source": {"huggingFace": {"repo": "a/b"}}})

    assert plain.document.adapter_of is None
    assert asked.document.adapter_of == "Tiny"
    assert of_hub.document.adapter_of == "a/b"
    assert plain.key != asked.key


def test_addresses_carry_the_keys_of_what_made_them():
    stages = {stage.name: stage for stage in plan_stages(make_job())}
    run = stages["train"].document

    assert run.target_uri == f"checkpoints://push-{stages['train'].key}"
    assert run.dataset_uri.endswith(f"/index-{stages['prepare-dataset'].key}")
    assert run.latents_uri == f"embeddings://latents-{stages['cache-latents'].key}"
    assert run.embeddings_uri.startswith("embeddings://text-Tiny-T5-")
    assert run.model_uri.startswith("models://Tiny-")
    group = "posttraining/diffusion_video2world_instruction"
    folder = f"{run.target_uri}/{group}/video2world_instruction_push_tiny"
    assert stages["publish"].document.run_uri == folder
    assert stages["publish"].document.target_uri == "checkpoints://push"
    after = stages["generate-after"]
    assert after.document.target_uri == f"{run.target_uri}/generated/after-{after.key}"
    assert stages["report"].document.target_uri == f"{run.target_uri}/report-{stages['report'].key}"
    assert stages["report"].document.generated[1] == ("after", after.document.target_uri)


def test_base_item_uses_the_base_model_and_waits_for_no_training():
    stages = {stage.name: stage for stage in plan_stages(make_job())}

    before, after = stages["generate-before"], stages["generate-after"]
    assert before.depends_on == ("fetch-model", "prepare-dataset")
    assert before.document.checkpoint_uri == stages["train"].document.model_uri
    assert before.document.inputs_file_uri == "/data/cubes/test.jsonl"
    assert after.depends_on == ("publish",)
    assert after.document.checkpoint_uri == "checkpoints://push/model.pt"


@pytest.mark.parametrize(
    ("source", "root"),
    [
        ({"path": "/data/cubes"}, "/data/cubes/"),
        ({"claim": {"path": "sets/cubes"}}, "datasets://sets/cubes/"),
        ({"claim": {"claimName": "lab", "path": "cubes"}}, "/mnt/cosmos/claims/lab/cubes/"),
        ({"url": {"url": "https://a.example/x.tar.gz"}}, "datasets://cubes-"),
        ({"huggingFace": {"repo": "lab/cubes"}}, "datasets://cubes-"),
        ({"s3": {"uri": "s3://lab/cubes"}}, "datasets://cubes-"),
    ],
)
def test_dataset_addresses_begin_at_the_dataset(source, root):
    stages = {stage.name: stage for stage in plan_stages(make_job({"dataset.source": source}))}
    address = stages["generate-before"].document.inputs_file_uri

    assert address.startswith(root)
    assert address.endswith("/test.jsonl")
    if root.startswith("datasets://cubes-"):
        assert address == f"{stages['prepare-dataset'].document.data_uri}/test.jsonl"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"path": "/data/bridge/"}, "bridge"),
        ({"url": {"url": "https://a.example/sets/bridge.v2.tar.gz?x=1"}}, "bridge.v2"),
        ({"huggingFace": {"repo": "lab/bridge"}}, "bridge"),
        ({"s3": {"uri": "s3://lab/sets/bridge/"}}, "bridge"),
        ({"s3": {"uri": "s3://lab/sets/bridge v2.tar.gz"}}, "bridge-v2"),
        ({"s3": {"uri": "s3://bridge-lab"}}, "bridge-lab"),
        ({"claim": {"path": ""}}, "datasets"),
    ],
)
def test_dataset_without_a_name_is_called_as_its_source(source, name):
    job = make_job({"dataset.source": source, "dataset.name": None})

    assert plan_stages(job)[1].document.data_uri.startswith(f"datasets://{name}-")


def test_sources_that_are_omitted_are_on_the_hub():
    omitted = {"model": None, "tokenizer": None, "embeddings": None}
    job = make_job(
        {
            **omitted,
            "training.experiment": "video2world_instruction_bridge_57frames",
            "inference": [],
        }
    )
    artifacts = plan_stages(job)[0].document.artifacts

    assert [artifact.source.hugging_face.repo for artifact in artifacts] == [
        "nvidia/Cosmos-Predict1-7B-Video2World",
        "nvidia/Cosmos-Tokenize1-CV8x8x8-720p",
        "google-t5/t5-11b",
    ]


def test_job_without_inference_ends_with_the_published_model():
    stages = plan_stages(make_job({"inference": []}))

    assert stages[-1].name == "publish"
    assert "check-inputs" not in {stage.name for stage in stages}


def test_training_waits_for_its_model_and_for_the_check_of_what_is_sampled_from_it():
    stages = {stage.name: stage for stage in plan_stages(make_job())}

    assert set(stages["train"].depends_on) == {
        "fetch-model", "embed-text", "cache-latents", "check-inputs",
    }  # fmt: skip
    # the text encoder and the models of the guardrails, and an item names dataset:// files
    assert stages["check-inputs"].depends_on == ("fetch-model", "prepare-dataset")
    assert (stages["check-inputs"].gpus, stages["check-inputs"].is_shared) == (0, False)


def test_check_of_inputs_sees_each_item_as_its_sampling_does():
    job = make_job()
    stages = {stage.name: stage.document for stage in plan_stages(job)}

    items = stages["check-inputs"].items
    assert [item.name for item in items] == [item.name for item in job.spec.inference]
    for item in items:
        wanted = stages[f"generate-{item.name}"]
        for name in ("inputs", "inputs_file_uri", "fit", "fps_of_inputs", "metrics"):
            assert getattr(item, name) == getattr(wanted, name)
        assert item.sampling.num_pixel_frames == wanted.sampling.num_pixel_frames
    used = next(stage.volumes for stage in plan_stages(job) if stage.name == "check-inputs")
    assert used["checkpoints"], "its marker lies beside the run"


def test_random_weights_need_no_model():
    stages = plan_stages(make_job({"training.overrides": ["trainer.init=random"]}))

    document = next(stage.document for stage in stages if stage.name == "train")
    assert document.model_uri is None


def test_prompts_of_the_job_are_embedded_with_the_captions():
    assert plan_stages(make_job())[2].document.extra_captions == (
        "push the red cube left",
        DEFAULT_NEGATIVE_PROMPT,
        "blurry",
    )


def test_texts_that_guidance_moves_away_from_are_embedded_where_there_is_guidance():
    changes = {
        f"inference.{i}.parameters": {"guidance": 0, "negativePrompt": "flat"} for i in (0, 1)
    }
    plain = plan_stages(make_job(changes))[2].document
    changes["inference.1.parameters"] = {"guidance": 1, "negativePrompt": ""}
    guided = plan_stages(make_job(changes))[2].document

    assert plain.extra_captions == ("push the red cube left",)
    assert guided.extra_captions == ("push the red cube left", "")


def test_sampling_looks_for_prompts_where_the_captions_are_embedded():
    stages = {stage.name: stage.document for stage in plan_stages(make_job())}

    store = stages["embed-text"].target_uri
    assert {stages[f"generate-{name}"].embeddings_uri for name in ("before", "after")} == {store}
    assert store == stages["train"].embeddings_uri


def test_prompts_of_the_job_are_embedded_in_the_form_of_captions():
    job = make_job(
        {
            "inference.1.inputs": [{"prompt": "\ufeffpousse\u0301\r\n", "conditioning": "c.mp4"}],
            "inference.1.parameters.negativePrompt": " flou\u0301 ",
        }
    )

    stages = {stage.name: stage.document for stage in plan_stages(job)}
    texts = stages["embed-text"].extra_captions
    assert [text for text in texts if text != DEFAULT_NEGATIVE_PROMPT] == [
        "pouss\u00e9",
        "flo\u00fa",
    ]
    assert stages["generate-after"].inputs[0].prompt == "pouss\u00e9"
    assert stages["generate-after"].sampling.negative_prompt == "flo\u00fa"


def sampled(job, name="generate-before"):
    """Document of an inference item's stage."""
    return next(stage.document for stage in plan_stages(job) if stage.name == name)


def test_sampling_follows_the_item_and_otherwise_the_experiment():
    parameters = {
        "steps": 16, "sampler": "Res2Ab", "guidance": 0, "inputFrames": "First", "height": 64, "seed": 3,
    }  # fmt: skip
    item = sampled(make_job({"inference.0.parameters": parameters}))

    sampling = item.sampling
    assert (sampling.num_steps, sampling.sampler, sampling.guidance) == (16, "res_2ab", 0)
    assert (sampling.input_frames, sampling.height, sampling.seed) == ("first", 64, 3)
    assert (sampling.width, sampling.num_pixel_frames, sampling.fps) == (160, 17, 24.0)
    assert item.fps_of_inputs, "the training took the rate of each clip"
    assert item.device == "cpu"
    given = make_job({"inference.0.parameters": {**parameters, "fps": 5}})
    assert not sampled(given).fps_of_inputs


def test_blocks_are_compiled_in_sampling_as_in_training_with_the_same_result():
    change = {"training.overrides": ["acceleration.compile=disabled"]}
    plain, changed = sampled(make_job()), sampled(make_job(change))

    assert (plain.compile, changed.compile) == ("auto", "disabled")
    assert plain.key == changed.key


@pytest.mark.parametrize(
    ("changes", "gpus", "processes", "device"),
    [
        ({}, 0, 1, "cpu"),
        ({"processes": 3}, 0, 3, "cpu"),
        ({"gpus": 4}, 4, 4, "cuda"),
        ({"gpus": 8, "processes": 8}, 8, 8, "cuda"),
    ],
)
def test_inference_item_has_a_process_on_each_gpu(changes, gpus, processes, device):
    job = make_job({f"inference.0.{name}": value for name, value in changes.items()})
    stage = next(stage for stage in plan_stages(job) if stage.name == "generate-before")

    assert (stage.gpus, stage.processes_per_node, stage.document.device) == (
        gpus,
        processes,
        device,
    )


def test_passes_sharing_and_offload_reach_the_document():
    changes = {"passes": 3}
    item = {"gpus": 3, "contextParallel": 3, "offload": ["Network"]}
    job = make_job(
        {
            "inference.0.parameters": changes,
            **{f"inference.0.{name}": value for name, value in item.items()},
        }
    )
    document = next(s for s in plan_stages(job) if s.name == "generate-before").document

    assert (document.sampling.num_passes, document.context_parallel) == (3, 3)
    assert document.offload == ("network",)


@settings(max_examples=20, deadline=None)
@given(
    steps=st.integers(1, 10**6),
    seed=st.integers(0, 10**6),
    nodes=st.integers(1, 2),
    gpus=st.sampled_from([1, 2, 4, 8]),
)
def test_every_document_is_complete_and_of_its_kind(steps, seed, nodes, gpus):
    job = make_job(
        {
            "training": {
                "experiment": "video2world_instruction_push_tiny",
                "steps": steps,
                "seed": seed,
                "overrides": ["trainer.micro_batch_size=1"],
            },
            "compute": {"nodes": nodes, "gpusPerNode": gpus},
        }
    )

    stages = plan_stages(job)

    assert plan_stages(job) == stages
    for stage in stages:
        values = stage.document.model_dump(mode="json")
        assert STAGE_CONFIGS[stage.kind].model_validate(values) == stage.document
        assert set(values) == set(STAGE_CONFIGS[stage.kind].model_fields)
        assert len(stage.key) == 12
        written = [volume for volume, writes in stage.volumes.items() if writes]
        assert written == [ADDRESS.match(stage.document.target_uri)["volume"]]


def test_scale_of_loras_decides_what_is_trained_and_sampled_from():
    job = make_job({"model.loraScale": 1})
    documents = {stage.name: stage.document for stage in plan_stages(job)}

    assert changed({"model.loraScale": 1}) == AFTER | {"generate-before"}
    assert documents["train"].model_lora_scale == 1
    assert documents["generate-before"].checkpoint_lora_scale == 1
    assert documents["generate-after"].checkpoint_lora_scale is None  # published weights are merged


STORE = {"uri": "s3://lab/cubes", "endpoint": "https://minio.example.com:9000", "region": "eu"}


def test_source_in_a_bucket_reaches_the_documents():
    job = make_job({"dataset.source": {"s3": STORE}, "model.source": {"s3": STORE}})
    fetch, prepare = plan_stages(job)[:2]

    assert prepare.document.source.s3.model_dump() == STORE
    assert fetch.document.artifacts[0].source.s3.model_dump() == STORE


@pytest.mark.parametrize(
    "changes", [{"uri": "s3://lab/other"}, {"endpoint": None}, {"region": None}]
)
def test_another_bucket_is_another_dataset(changes):
    folders = {
        plan_stages(make_job({"dataset.source": {"s3": store}}))[1].document.data_uri
        for store in (STORE, {**STORE, **changes})
    }

    assert len(folders) == 2


def test_documents_without_a_bucket_are_as_they_were():
    for stage in plan_stages(make_job())[:2]:
        assert "s3" not in str(stage.document.model_dump(mode="json"))
