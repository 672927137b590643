"""The command line; tests of imports and help run it as a process."""

import os
import subprocess
import sys

import pytest
import yaml
from support.jobs import make_document, make_job

from cosmos_operator.api.crd import build_crds
from cosmos_operator.cli import main
from cosmos_operator.errors import InvalidSpec


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(make_document()))
    return path


def test_nothing_imports_torch():
    program = """
import sys
import cosmos_operator.cli, cosmos_operator.local.run, cosmos_operator.local.validate
import cosmos_operator.api.crd, cosmos_operator.plan.render
print([name for name in ("torch", "numpy", "transformers") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert result.stdout == "[]\n"


@pytest.mark.parametrize("command", ["validate", "render"])
def test_reading_a_job_loads_no_torch(command, job_file):
    program = """
import sys
from cosmos_operator.cli import main
code = main(sys.argv[1:])
loaded = [name for name in ("torch", "numpy", "transformers", "av") if name in sys.modules]
sys.exit(code or ", ".join(loaded) or 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, command, str(job_file)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("command", ["run", "render", "validate", "prune", "crd", "fields"])
def test_help_of_every_command_loads_no_library(command):
    program = """
import contextlib, sys
from cosmos_operator.cli import main
with contextlib.suppress(SystemExit):
    main([sys.argv[1], "--help"])
sys.exit(", ".join(name for name in ("torch", "pydantic", "yaml") if name in sys.modules) or 0)
"""
    result = subprocess.run(
        [sys.executable, "-c", program, command], capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: cosmos {command}")


def test_help_names_the_commands():
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cosmos_operator.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert all(name in result.stdout for name in ("run", "render", "validate", "crd"))
    assert "pydantic" not in result.stderr  # --help is quick


def test_validate_summarises_a_valid_job(job_file, capsys):
    assert main(["validate", str(job_file)]) == 0

    output = capsys.readouterr().out
    assert output.startswith("valid: push\n")
    assert "batch: 2 processes x 8 samples x 1 accumulated = 16; 40 steps = 640 samples" in output
    assert "generate-before" in output
    assert "note: spec.model.source.path: /data/model is not on this machine" in output


def test_validate_counts_the_processes_that_share_frames_once(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    overrides = ["parallel.context_parallel=3", "trainer.micro_batch_size=1"]
    changes = {"training.overrides": overrides, "compute.processesPerNode": 12}
    path.write_text(yaml.safe_dump(make_document(changes)))

    assert main(["validate", str(path)]) == 0
    output = capsys.readouterr().out
    assert "training: 1 node x 12 processes on cpu" in output
    assert "batch: 4 groups of 3 processes x 1 sample x 4 accumulated = 16; 40 steps" in output


def test_validate_counts_in_the_right_number(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    compute = {"nodes": 1, "gpusPerNode": 1}
    path.write_text(yaml.safe_dump(make_document({"compute": compute, "training.steps": 1})))

    assert main(["validate", str(path)]) == 0
    output = capsys.readouterr().out
    assert "training: 1 node x 1 process on cuda" in output
    assert "batch: 1 process x 8 samples x 2 accumulated = 16; 1 step = 16 samples" in output
    assert "1 x 1 GPU  " in output
    assert "1 x 1 GPUs" not in output


def test_validate_tells_what_an_installation_must_allow(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(make_document({"podTemplate": {"spec": {"hostIPC": True}}})))

    assert main(["validate", str(path)]) == 0
    assert "note: spec.podTemplate.spec.hostIPC: hostIPC opens the node" in capsys.readouterr().out


def test_validate_lists_every_problem(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    path.write_text(
        yaml.safe_dump(make_document({"dataset.layout": "x", "compute.sharedMemory": "y"}))
    )

    assert main(["validate", str(path)]) == 2

    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(":")[0] for line in captured.err.splitlines()] == [
        "spec.dataset.layout",
        "spec.compute.sharedMemory",
    ]


def test_validate_names_the_line_of_each_problem(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    good = yaml.safe_dump(make_document())
    wrong = make_document({"compute.nodes": 0})
    wrong["metadata"]["name"] = "second"
    text = f"{good}---\n{yaml.safe_dump(wrong)}"
    path.write_text(text)

    assert main(["validate", str(path)]) == 2

    number = text.splitlines().index("    nodes: 0") + 1
    assert capsys.readouterr().err == (
        f"spec.compute.nodes: Input should be greater than or equal to 1 (got 0) (line {number})\n"
    )


def test_validate_describes_every_job_and_names_what_it_does_not_check(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    second = make_document()
    second["metadata"]["name"] = "second"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}}
    path.write_text(yaml.safe_dump_all([make_document(), secret, second]))

    assert main(["validate", str(path)]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("valid")] == ["valid: push", "valid: second"]
    assert lines[-1].startswith("note: not checked: Secret 'token' on line ")


def test_render_of_two_jobs_is_refused(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    second = make_document()
    second["metadata"]["name"] = "second"
    path.write_text(yaml.safe_dump_all([make_document(), second]))

    assert main(["render", str(path)]) == 2
    assert "got 2 jobs (push, second); give a file" in capsys.readouterr().err


def test_validate_takes_a_list_and_a_generated_name(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    job = make_document()
    job["metadata"] = {"generateName": "push-"}
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": [job]}))

    assert main(["validate", str(path)]) == 0
    assert capsys.readouterr().out.startswith("valid: push\n")


def test_validate_says_what_is_fetched(tmp_path, capsys):
    path = tmp_path / "job.yaml"
    sources = {"dataset.source": {"url": {"url": "https://me:secret@example.org/d.tar"}}}
    sources["training.experiment"] = "video2world_instruction_bridge_57frames"
    sources |= {"model": {}, "embeddings": {}, "inference": [], "compute": {}}
    path.write_text(yaml.safe_dump(make_document(sources)))

    assert main(["validate", str(path)]) == 0

    output = capsys.readouterr().out
    model = "nvidia/Cosmos-Predict1-7B-Video2World of the Hugging Face Hub, revision main"
    assert f"  fetches model: {model}\n" in output
    assert "  fetches text encoder: google-t5/t5-11b of" in output
    assert "fetches tokenizer" not in output
    assert "  fetches dataset: https://" in output
    assert "secret" not in output


def test_render_prints_manifests_that_kubectl_can_read(job_file, capsys):
    assert main(["render", str(job_file)]) == 0

    manifests = list(yaml.safe_load_all(capsys.readouterr().out))
    assert {m["kind"] for m in manifests} == {"ConfigMap", "Job", "PyTorchJob", "Service"}
    assert len({(m["kind"], m["metadata"]["name"]) for m in manifests}) == len(manifests)


def test_crd_prints_the_definition(capsys):
    assert main(["crd"]) == 0

    assert list(yaml.safe_load_all(capsys.readouterr().out)) == build_crds()


def test_run_of_a_job_that_is_not_there_is_a_user_error(tmp_path, capsys):
    assert main(["run", str(tmp_path / "job.yaml")]) == 2

    assert "no such file" in capsys.readouterr().err


HOSTILE_LINES = {
    "!!int abc": "'abc' is no !!int",
    "2001-99-99": "spec.training",
    "9" * 5000: "at most 512",
    "[" * 400: "not a YAML value",
    "{" * 400: "not a YAML value",
    "[&a {x: 1}, {<<: [*a, *a]}]": "has an anchor or an alias",
    "!e!x 5": "not a YAML value",
    '"\\ud800"': "not",
    ".inf": "is no number that Kubernetes has",
}


@pytest.mark.parametrize("value", HOSTILE_LINES, ids=lambda value: value[:20])
def test_hostile_override_is_answered_with_its_line(tmp_path, capsys, value):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(make_document({"training.overrides": [f"video.fps={value}"]})))

    assert main(["validate", str(path)]) == 2

    error = capsys.readouterr().err
    assert HOSTILE_LINES[value] in error
    assert "(line " in error
    assert max(map(len, error.splitlines())) < 1000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("~nosuchuser/model", "knows no home folder of '~nosuchuser'"),
        ("a\0b", "has a control character"),
        ("a\nb", "has a control character"),
        ("x" * 300, "is not on this machine"),
    ],
)
def test_hostile_path_is_answered(tmp_path, capsys, source, message):
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(make_document({"model.source": {"path": source}})))

    code = main(["validate", str(path)])

    said = capsys.readouterr()
    assert (message in said.err) if code else (message in said.out)


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "x" * 300, "a\0b"])
def test_what_is_no_plain_file_is_no_job(tmp_path, capsys, name):
    os.mkfifo(tmp_path / "pipe")

    assert main(["validate", str(tmp_path / name)]) == 2
    assert "give the YAML file of a job" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a/../b", "a//b", "../b", "a/.b", "a/..", "/a"])
def test_name_of_an_artifact_that_leaves_its_folder_is_refused(name):
    with pytest.raises(InvalidSpec, match=r"spec\.model\.name"):
        make_job({"model.name": name})
