"""The command line; tests of imports and help run it as a process."""

import subprocess
import sys

import pytest
import yaml
from support.jobs import make_document

from cosmos_operator.api.crd import build_crds
from cosmos_operator.cli import main


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
