"""``cosmos run``: how processes, signals and the workspace are handled."""

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.jobs import make_document, make_inference_document, make_job
from support.stage_processes import FINISH, make_process

from cosmos_operator.errors import InvalidSpec, WorkspaceBusy
from cosmos_operator.local import run as run_module
from cosmos_operator.local.fingerprints import (
    fingerprint_paths,
    with_absolute_paths,
)
from cosmos_operator.local.process import build_processes
from cosmos_operator.local.run import (
    explain,
    lock,
    print_changed_length,
    run_job,
    run_processes,
)
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.storage.earlier_runs import folder_of
from cosmos_worker.storage.volumes import (
    Volumes,
    marker_path,
    write_json,
)

EXPERIMENT = "video2world_instruction_push_tiny"
SUPPORT = Path(__file__).parents[2] / "support"


def run(tmp_path, *processes):
    lines = []
    with lock(tmp_path) as handle:
        code = run_processes(processes, handle, lines.append)
    return code, lines


def start(tmp_path, program):
    """A run in a process of its own whose worker is ready."""
    process = subprocess.Popen(
        [sys.executable, str(SUPPORT / "stage_processes.py"), str(tmp_path), program],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert any(line == "ready\n" for line in iter(process.stdout.readline, ""))
    return process


def test_stages_run_once_and_are_told(tmp_path):
    first, second = make_process(tmp_path, FINISH, "embed-text"), make_process(tmp_path, FINISH)

    code, lines = run(tmp_path, first, second)

    assert code == 0
    assert [line.split("  ")[-1][:7] for line in lines] == ["running", "done in"] * 2
    assert lines[0].startswith("[ 1/2] embed-text  0123")
    code, lines = run(tmp_path, first, second)
    assert code == 0
    assert [line.split("  ")[-1] for line in lines] == ["already done"] * 2


@pytest.mark.parametrize(
    ("program", "code", "sentence"),
    [
        ("raise SystemExit(1)", 1, "a bug in cosmos_worker"),
        ("raise SystemExit(2)", 2, "correct it, then run the same command"),
        ("raise SystemExit(74)", 74, "the same command tries again"),
        ("raise SystemExit(75)", 75, "stopped; the same command continues from the last checkpoint"),
        ("raise SystemExit(9)", 9, "an unknown exit code; please report it"),
        ("import os; os.kill(os.getpid(), 9)", 137, "ended by SIGKILL"),
        ("", 1, "ended without a completion marker"),
    ],
)  # fmt: skip
def test_exit_code_of_a_failed_stage_ends_the_run_with_a_sentence(
    tmp_path, program, code, sentence
):
    failed = make_process(tmp_path, program, "embed-text")

    got, lines = run(tmp_path, failed, make_process(tmp_path, FINISH))

    assert got == code
    assert sentence in lines[-1]
    assert not any("train" in line for line in lines)


@pytest.mark.parametrize("has_begun", [False, True])
def test_inputs_are_checked_before_a_training_goes_on(tmp_path, has_begun):
    check = make_process(tmp_path, "raise SystemExit(2)", "check-inputs")
    train = make_process(tmp_path, FINISH, "train", ("check-inputs",))
    if has_begun:  # and was interrupted
        (train.target / "project/group/run").mkdir(parents=True)

    code, lines = run(tmp_path, check, train)

    assert code == 2
    assert not any(" train " in line for line in lines)


def test_inputs_are_not_checked_once_the_training_is_done(tmp_path):
    check = make_process(tmp_path, "raise SystemExit(2)", "check-inputs")
    train = make_process(tmp_path, FINISH, "train")
    assert run(tmp_path, train)[0] == 0

    code, lines = run(tmp_path, check, train)

    assert code == 0
    assert any("skipped: the training is done" in line for line in lines)


def test_reason_that_the_worker_gives_is_shown(tmp_path):
    record = json.dumps({"reason": "DataError", "message": "cubes/one.mp4: truncated"})
    program = f"""
import os, pathlib, sys
pathlib.Path(os.environ["COSMOS_TERMINATION_LOG"]).write_text({record!r})
sys.exit(2)
"""

    _, lines = run(tmp_path, make_process(tmp_path, program))

    assert "exit code 2: cubes/one.mp4: truncated\nthe input is wrong" in lines[-1]


def test_reason_of_an_earlier_run_is_forgotten(tmp_path):
    process = make_process(tmp_path, "raise SystemExit(2)")
    process.termination_file.write_text(json.dumps({"reason": "DataError", "message": "old"}))

    _, lines = run(tmp_path, process)

    assert "old" not in lines[-1]


def test_explain_survives_an_unreadable_reason(tmp_path):
    process = make_process(tmp_path, "")
    process.termination_file.write_text("{")

    assert "exit code 2: the input is wrong" in explain(process, 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_is_passed_on_as_sigterm_and_waited_for(tmp_path, number):
    process = start(tmp_path, "WAIT_FOR_STOP")

    process.send_signal(number)
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 75
    assert (tmp_path / "target" / "train" / "saved").read_text() == "SIGTERM"
    assert "stopped; the same command continues" in output


def test_second_stop_kills_the_worker(tmp_path):
    process = start(tmp_path, "STUBBORN")

    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 75


def test_worker_saves_when_the_run_is_killed_and_holds_the_workspace_until_then(tmp_path):
    process = start(tmp_path, "WAIT_FOR_STOP")

    process.kill()
    process.communicate(timeout=60)
    handle = os.open(tmp_path / ".lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)  # waits for the worker that was left
    os.close(handle)

    assert (tmp_path / "target" / "train" / "saved").read_text() == "SIGTERM"


def test_second_run_in_a_workspace_is_refused(tmp_path):
    process = start(tmp_path, "WAIT_FOR_STOP")

    with pytest.raises(WorkspaceBusy, match=r"uses this workspace; wait for it"), lock(tmp_path):
        pass
    process.terminate()
    process.communicate(timeout=60)
    with lock(tmp_path):
        pass


def test_workspace_on_a_file_system_without_locks_is_explained(tmp_path, monkeypatch):
    def flock(handle, operation):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", flock)

    with (
        pytest.raises(InvalidSpec, match=r"\.lock: got 'Function not.* another --workspace"),
        lock(tmp_path),
    ):
        pass


# --- a whole job -----------------------------------------------------------------------------


@pytest.fixture
def job_file(tmp_path):
    """The YAML file of a job whose local paths exist beside it."""
    document = make_document({"inference.1.inputs.0.conditioning": "first.png"})
    for name in ("model", "tokenizer", "embeddings", "dataset"):
        document["spec"][name]["source"] = {"path": name}
        (tmp_path / name).mkdir()
    (tmp_path / "first.png").write_bytes(b"png")
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def plan_of(path, workspace):
    """The processes of a job by their stages, their documents written."""
    job = with_absolute_paths(make_job(yaml.safe_load(path.read_text())["spec"]), path.parent)
    stages = plan_stages(job, fingerprint_paths(job))
    return {one.stage: one for one in build_processes(build_manifests(job, stages), workspace)}


def finish_all(path, workspace):
    """Leave the completion markers of every stage, as the worker would."""
    for process in plan_of(path, workspace).values():
        rows = [["item", "follows"], ["before", "22.5 %"], ["after", "98 %"]]
        write_json(marker_path(process.target, process.key), {"result": {"table": rows}})


def test_run_of_a_finished_job_repeats_nothing_and_says_where_to_look(job_file, tmp_path, capfd):
    workspace = tmp_path / "work"
    finish_all(job_file, workspace)

    assert run_job(job_file, workspace) == 0

    output = capfd.readouterr().out
    assert output.count("already done") == 10
    assert f"model   {workspace}/cosmos/checkpoints/push/model.pt" in output
    assert "report.html" in output
    assert "(0 MP4 files)" in output
    assert "  before   22.5 %\n  after      98 %\n" in output


def test_run_without_its_files_names_every_one(job_file, tmp_path):
    (tmp_path / "model").rmdir()
    (tmp_path / "first.png").unlink()

    with pytest.raises(InvalidSpec) as caught:
        run_job(job_file, tmp_path / "work")

    assert [line.split(":")[0] for line in caught.value.problems] == [
        "spec.model.source.path",
        "spec.inference[1].inputs[0].conditioning",
    ]


def test_changed_number_of_steps_is_told_before_anything_runs(job_file, tmp_path, capfd):
    """The learning rate of this experiment falls towards the end, so a longer training is another run."""
    workspace = tmp_path / "work"
    finish_all(job_file, workspace)
    assert run_job(job_file, workspace) == 0
    assert "note:" not in capfd.readouterr().out
    trained = plan_of(job_file, workspace)["train"]
    config = load_stage_config("train", trained.folder / "stage.yaml", ())
    run = folder_of(config, Volumes.from_environment(trained.environment))
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "iter_000000040_reg_model.pt").touch()
    (run / "config.yaml").write_text((trained.folder / "stage.yaml").read_text())

    document = yaml.safe_load(job_file.read_text())
    document["spec"]["training"]["steps"] = 60
    job_file.write_text(yaml.safe_dump(document))
    lines = []
    print_changed_length(plan_of(job_file, workspace).values(), lines.append)

    (line,) = lines
    assert line.startswith("note: training begins anew in ")
    assert (
        "60 steps have another schedule of the learning rate (warm-up of 20 steps, constant to step 24, linear to 0 at "
        f"step 60) than the run of 40 steps in {run} (warm-up of 20 steps, linear to 0 at step 40)"
    ) in line


# --- an InferenceJob -------------------------------------------------------------------------


@pytest.fixture
def inference_file(job_file):
    """The YAML file of an InferenceJob with the item of the job beside it, and another."""
    document = make_inference_document({"items.0.inputs.0.conditioning": "first.png"})
    (item,) = document["spec"]["items"]
    document["spec"]["items"].append({**item, "name": "more"})
    path = job_file.parent / "more.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def test_inference_job_finds_the_model_and_the_videos_of_the_job_that_ran_before(
    job_file, inference_file, tmp_path, capfd, monkeypatch
):
    workspace = tmp_path / "work"
    finish_all(job_file, workspace)
    assert run_job(job_file, workspace) == 0
    (tmp_path / "dataset" / "new.mp4").write_bytes(b"since then the dataset has grown")
    capfd.readouterr()
    ran = []
    monkeypatch.setattr(run_module, "run_process", lambda process, *_: ran.append(process) or 9)

    assert run_job(inference_file, workspace) == 9

    output = capfd.readouterr().out
    assert "job more: 5 stages" in output
    assert [process.stage for process in ran] == ["check-inputs"]
    done = [line.split()[2] for line in output.splitlines() if "already done" in line]
    assert done == ["fetch-model"]
    check = ran[0].target
    write_json(marker_path(check, ran[0].key), {"result": {}})
    ran.clear()
    assert run_job(inference_file, workspace) == 9
    assert [process.stage for process in ran] == ["generate-more"]


def test_inference_job_whose_job_never_ran_says_so(job_file, inference_file, tmp_path):
    with pytest.raises(InvalidSpec, match=r"no job 'push' has run in .*; run its file first"):
        run_job(inference_file, tmp_path / "work")

    with pytest.raises(InvalidSpec, match=r"'push' has published no model in .*; run its file to"):
        run_job(inference_file, tmp_path / "work", job_file)


def test_published_model_that_is_not_in_the_workspace_is_named(inference_file, tmp_path):
    document = make_inference_document({"model": {"published": "tiny"}, "experiment": EXPERIMENT})
    document["spec"]["items"][0]["inputs"][0]["conditioning"] = "first.png"
    inference_file.write_text(yaml.safe_dump(document))

    missing = f"{tmp_path}/work/cosmos/checkpoints/tiny/model.pt"
    with pytest.raises(InvalidSpec, match=f"spec.model.published: no file {missing}; give the"):
        run_job(inference_file, tmp_path / "work")


def test_file_of_another_job_is_refused(job_file, inference_file, tmp_path):
    document = yaml.safe_load(job_file.read_text())
    document["metadata"]["name"] = "other"
    job_file.write_text(yaml.safe_dump(document))

    with pytest.raises(InvalidSpec, match=r"spec\.model\.job: 'push', but .* has the job 'other'"):
        run_job(inference_file, tmp_path / "work", job_file)
