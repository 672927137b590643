"""Validation of PostTrainingJobs: specifications that are accepted, and messages about those that are not."""

import pytest
from support.jobs import make_document, make_job

from cosmos_operator.api import parse
from cosmos_operator.api.docs import job_page
from cosmos_operator.api.parse import load_job, parse_job
from cosmos_operator.api.status import PostTrainingJobStatus
from cosmos_operator.errors import InvalidSpec


def problems_of(document):
    with pytest.raises(InvalidSpec) as caught:
        parse_job(document)
    return caught.value.problems


def test_job_needs_only_a_dataset_and_an_experiment():
    job = parse_job(
        {
            "apiVersion": "cosmos.dev/v1alpha1",
            "kind": "PostTrainingJob",
            "metadata": {"name": "short", "uid": "1", "generation": 3},
            "spec": {
                "dataset": {"source": {"claim": {"path": "bridge"}}},
                "training": {"experiment": "video2world_instruction_bridge_57frames"},
            },
        }
    )

    assert job.spec.model.name == "Cosmos-Predict1-7B-Video2World"
    assert job.spec.tokenizer.name == "Cosmos-Tokenize1-CV8x8x8-720p"
    assert job.spec.embeddings.encoder == "google-t5/t5-11b"
    assert job.published_name == "short"


def test_model_may_be_published_under_the_name_of_the_recipe():
    name = "Cosmos-Predict1-7B-Video2World_instruction_post-trained"

    assert make_job({"outputs.name": name}).published_name == name


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden", ""])
def test_name_of_a_published_model_is_one_folder(name):
    assert "spec.outputs.name" in "".join(problems_of(make_document({"outputs.name": name})))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset.source": {}},
            "spec.dataset.source: got nothing; give exactly one of path, claim, url, huggingFace, s3",
        ),
        (
            {"dataset.source": {"path": "a", "claim": {"path": "b"}}},
            "spec.dataset.source: got path and claim; give exactly one of",
        ),
        ({"dataset.source": {"url": {"url": "ftp://x/y.tar"}}}, "spec.dataset.source.url.url: "),
        (
            {"dataset.source": {"url": {"url": "https://x/y.tar"}, "s3": {"uri": "s3://lab/y"}}},
            "spec.dataset.source: got url and s3; give exactly one of",
        ),
        ({"dataset.source": {"s3": {"uri": "lab/y"}}}, "spec.dataset.source.s3.uri: String should match"),
        (
            {"dataset.source": {"s3": {"uri": "s3://lab/y", "endpoint": "https://me:secret@minio"}}},
            "(got 'https://...@minio')",
        ),
        ({"credentials.s3": {"name": "a", "key": "b"}}, "spec.credentials.s3: unknown field 'key'"),
        (
            {"dataset.source": {"claim": {"path": "../secrets"}}},
            "spec.dataset.source.claim.path: String should match pattern",
        ),
        ({"dataset.layout": "bridge"}, "spec.dataset.layout: Input should be 'Bridge', 'Videos', 'LeRobot' or 'Jsonl'"),
        ({"dataset": None}, "spec.dataset: missing; this field is required"),
        (
            {"trainning": {}},
            "spec: unknown field 'trainning'; did you mean 'training'? allowed here: model, ",
        ),
        (
            {"scheduling": {"affinity": {}}},
            "spec.scheduling: unknown field 'affinity'; give it as spec.podTemplate.spec.affinity; allowed here: ",
        ),
        (
            {"inference.0.parameters": {"num_pixel_frames": 17}},
            "spec.inference[0].parameters: unknown field 'num_pixel_frames'; did you mean 'numPixelFrames'?",
        ),
        (
            {"inference.0.gpus": 4, "inference.0.processes": 2},
            "spec.inference[0]: processes: 2 is not gpus 4; omit it where there are GPUs",
        ),
        (
            {"inference.0.offload": ["Network", "Network"]},
            "spec.inference[0]: offload: ['Network', 'Network'] repeats a value; name each once",
        ),
        ({"inference.0.gpus": 9}, "spec.inference[0].gpus: Input should be less than or equal to 8 (got 9)"),
        (
            {"inference.0.parameters": {"numPixelFrames": 16}},
            "spec.inference[0].parameters: numPixelFrames: 16 is not 8n+1; use 9 or 17",
        ),
        (
            {"inference.0.parameters": {"height": 100}},
            "spec.inference[0].parameters.height: Input should be a multiple of 16 (got 100)",
        ),
        (
            {"inference.0.inputs": [{"prompt": "p", "conditioning": "c"}]},
            "spec.inference[0]: got inputs and inputsFile; give exactly one",
        ),
        (
            {"inference.0": {"name": "a", "inputs": [{"prompt": " \u200b", "conditioning": "c"}]}},
            "spec.inference[0].inputs[0].prompt: is blank; write what the video shows",
        ),
        (
            {"inference.0": {"name": "a", "inputs": [{"prompt": "a\0b", "conditioning": "c"}]}},
            "spec.inference[0].inputs[0].prompt: a NUL character at position 1",
        ),
        ({"inference.0.inputsFile": None}, "spec.inference[0]: got nothing; give exactly one of inputs"),
        ({"inference.0.metrics": ["Psnr", "Psnr"]}, "repeats a value; name each once"),
        (
            {"compute.gpusPerNode": 8},
            "spec.compute: processesPerNode: 2 is not gpusPerNode 8; omit it where there are GPUs",
        ),
        ({"compute.sharedMemory": "8 GB"}, "spec.compute.sharedMemory: '8 GB' is no quantity, such as"),
        ({"runPolicy.maxAttempts": 0}, "spec.runPolicy.maxAttempts: "),
        ({"storage.models.claimName": "Not_A_Name"}, "spec.storage.models.claimName: "),
    ],
)  # fmt: skip
def test_parse_says_where_what_and_what_to_do(changes, message):
    problems = problems_of(make_document(changes))

    assert any(message in problem for problem in problems), problems


def test_field_of_pods_is_taken_where_the_message_sends_it():
    parse_job(make_document({"podTemplate": {"spec": {"affinity": {}}}}))


def test_parse_reports_all_problems_at_once():
    document = make_document(
        {
            "dataset.layout": "bridge",
            "runPolicy.suspended": True,
            "training.experiment": "video2world_instruction_push_tinny",
        }
    )

    problems = problems_of(document)

    assert len(problems) == 3
    assert any("did you mean 'video2world_instruction_push_tiny'?" in line for line in problems)


@pytest.mark.parametrize("name", ["Push", "1push", "push_it", "p" * 41, "push-", ""])
def test_job_name_must_be_a_short_dns_label(name):
    document = make_document()
    document["metadata"]["name"] = name

    assert problems_of(document)[0].startswith("metadata.name: ")


def test_job_of_another_kind_is_refused():
    document = make_document() | {"kind": "PyTorchJob"}

    assert problems_of(document) == ("kind: Input should be 'PostTrainingJob' (got 'PyTorchJob')",)


@pytest.mark.parametrize("value", ["text", 3, None, []])
def test_document_that_is_no_mapping_is_refused(value):
    assert "expected a mapping" in problems_of(value)[0]


def test_quantities_may_be_numbers():
    job = make_job({"compute.resources": {"limits": {"cpu": 4, "memory": "16Gi"}}})

    assert job.spec.compute.resources.limits == {"cpu": "4", "memory": "16Gi"}


def test_status_reads_what_the_operator_writes():
    document = make_document()
    document["status"] = {
        "observedGeneration": 2,
        "state": "Training",
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "reason": "Valid",
                "lastTransitionTime": "2026-01-31T12:00:00Z",
            }
        ],
        "progress": {"step": 3, "totalSteps": 40, "loss": "-0.0831", "samplesPerSecond": "3.4"},
        "attempts": [{"number": 1, "backend": "PyTorchJob", "workload": "push-1"}],
    }

    status = parse_job(document).status

    assert isinstance(status, PostTrainingJobStatus)
    assert status.model_dump(by_alias=True, exclude_unset=True, mode="json") == document["status"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [", "not YAML"),
        (b"\xff\xfe", "not YAML"),
        (b"", "got no PostTrainingJob or InferenceJob; give at least one"),
        (
            b"apiVersion: v1\nkind: Secret\n",
            r"got no PostTrainingJob or InferenceJob \(there: Secret None on line 1\)",
        ),
        (b"- 1\n", "expected a mapping"),
    ],
)
def test_file_without_one_job_is_refused(tmp_path, content, message):
    path = tmp_path / "job.yaml"
    path.write_bytes(content)

    with pytest.raises(InvalidSpec, match=message):
        load_job(path)


def test_file_that_is_missing_a_folder_or_too_big_is_refused(tmp_path):
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (1 << 20) + b"##")

    with pytest.raises(InvalidSpec, match="no such file"):
        load_job(tmp_path / "absent.yaml")
    with pytest.raises(InvalidSpec, match="is a folder"):
        load_job(tmp_path)
    with pytest.raises(InvalidSpec, match="at most 1 MiB"):
        load_job(big)


def test_moved_field_is_answered_with_its_new_path(monkeypatch):
    monkeypatch.setitem(parse.MOVED_FIELDS, "spec.dataset.resize", "spec.dataset.fit")
    monkeypatch.setitem(
        parse.MOVED_FIELDS, "spec.inference.numSteps", "spec.inference[].parameters.steps"
    )
    document = make_document({"dataset.resize": "Crop"})
    document["spec"]["inference"][1]["numSteps"] = 3

    with pytest.raises(InvalidSpec) as raised:
        parse_job(document)

    assert raised.value.problems == (
        "spec.dataset.resize: this field is now spec.dataset.fit; give that instead",
        "spec.inference[1].numSteps: this field is now spec.inference[].parameters.steps; give that instead",
    )


def test_every_moved_field_is_gone_and_its_new_path_exists():
    paths = {
        line.split("`")[1].replace("[]", "")
        for line in job_page().splitlines()
        if line.startswith("| `")
    }

    for old, new in parse.MOVED_FIELDS.items():
        assert old not in paths
        assert new.partition(",")[0].replace("[]", "").replace("*", "train") in paths
