"""``cosmos prune``: what belongs to no job is told and removed; never what a job refers to, and never a result."""

import fcntl
import os
import time
from pathlib import Path

import pytest
import yaml
from support.jobs import make_document, make_inference_document, make_job

from cosmos_operator.cli import main
from cosmos_operator.errors import InvalidSpec, WorkspaceBusy
from cosmos_operator.local.prune import Rules, prune
from cosmos_operator.local.references import References, find_references
from cosmos_operator.local.run import lock
from cosmos_operator.plan.render import build_manifests, to_yaml
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.storage.volumes import VOLUMES, Volumes

OLD = time.time() - 30 * 86400
KEY = "0123456789ab"
UNUSED = (
    f"datasets/old-{KEY}",
    f"embeddings/latents-{KEY}",
    f"embeddings/text-t5-{KEY}",
    f"models/old-{KEY}",
)
RESULTS = (f"checkpoints/gone-{KEY}", "checkpoints/model-of-gone", "models/by-hand")


@pytest.fixture
def volumes(tmp_path):
    roots = {name: tmp_path / name for name in VOLUMES}
    for root in roots.values():
        root.mkdir()
    return Volumes(roots)


def write(volumes, address, text="x" * 5000):
    volume, _, name = address.partition("/")
    path = volumes.roots[volume] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_old(volumes):
    for root in volumes.roots.values():
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                os.utime(Path(folder, name), (OLD, OLD), follow_symlinks=False)


def fill(volumes, documents=()):
    """What the stages of jobs leave, and what those of a deleted job have left; all of it is old."""
    for document in documents:
        for stage in plan_stages(make_job_of(document)):
            address = stage.document.target_uri.replace("://", "/")
            write(volumes, f"{address}/complete-{stage.key}.json")
            for one in getattr(stage.document, "artifacts", ()):
                write(volumes, f"{one.target_uri.replace('://', '/')}/fetched-{one.kind}.json")
            if stage.kind == "prepare-dataset":
                write(volumes, f"{stage.document.data_uri.replace('://', '/')}/a.mp4")
    write(volumes, f"datasets/old-{KEY}/data/a.mp4")
    write(volumes, f"datasets/old-{KEY}/index-{KEY}/index.jsonl")
    write(volumes, f"embeddings/latents-{KEY}/shard.safetensors")
    write(volumes, f"embeddings/text-t5-{KEY}/shard.safetensors")
    write(volumes, f"models/old-{KEY}/fetched-model.json")
    write(volumes, f"checkpoints/gone-{KEY}/p/g/n/config.yaml")
    write(volumes, "checkpoints/model-of-gone/model.json")
    write(volumes, "models/by-hand/model.pt")
    make_old(volumes)


def make_job_of(document):
    from cosmos_operator.api.parse import parse_job

    return parse_job(document)


def files(volumes):
    return {
        path.relative_to(root.parent).as_posix()
        for root in volumes.roots.values()
        for path in root.rglob("*")
        if path.is_file()
    }


def run(volumes, references, *, delete=False, also=(), older_than_s=86400.0):
    lines = []
    read = references if callable(references) else lambda: references
    prune(volumes, read, Rules(older_than_s, frozenset(also)), lines.append, delete=delete)
    return lines


def unused(lines):
    return tuple(line.split()[3] for line in lines if line.startswith("unused"))


def test_what_no_job_refers_to_is_told_with_size_and_nothing_is_changed(volumes):
    document = make_document()
    fill(volumes, [document])
    before = files(volumes)

    lines = run(volumes, find_references([document]))

    assert unused(lines) == UNUSED
    assert "8.0 KiB  models/old" in "\n".join(lines) or "12.0 KiB  models/old" in "\n".join(lines)
    assert lines[0] == "1 job: PostTrainingJob push"
    assert lines[-1].endswith("nothing was changed: --delete removes what is listed as unused")
    assert files(volumes) == before
    kept = [line for line in lines if line.startswith("kept")]
    assert any("used by PostTrainingJob push" in line for line in kept)
    assert all(any(result in line for line in kept) for result in RESULTS)


def test_deletion_removes_what_was_told_and_nothing_else(volumes):
    document = make_document()
    fill(volumes, [document])
    before = files(volumes)

    lines = run(volumes, find_references([document]), delete=True)

    assert lines[-1].startswith("freed ")
    gone = before - files(volumes)
    assert gone
    assert all(name.startswith(UNUSED) for name in gone)
    assert unused(run(volumes, find_references([document]))) == ()


def test_without_any_job_results_still_stay(volumes):
    fill(volumes)

    run(volumes, References(), delete=True)

    assert {"/".join(name.split("/")[:2]) for name in files(volumes)} == set(RESULTS)


def test_old_index_of_a_dataset_that_is_used_goes_alone(volumes):
    document = make_document()
    fill(volumes, [document])
    dataset = next(s for s in plan_stages(make_job_of(document)) if s.kind == "prepare-dataset")
    folder = dataset.document.data_uri.replace("://", "/").removesuffix("/data")
    write(volumes, f"{folder}/index-{KEY}/index.jsonl")
    make_old(volumes)

    run(volumes, find_references([document]), delete=True)

    assert f"{folder}/data/a.mp4" in files(volumes)
    assert f"{folder}/index-{dataset.key}/complete-{dataset.key}.json" in files(volumes)
    assert f"{folder}/index-{KEY}/index.jsonl" not in files(volumes)


def test_recent_content_stays(volumes):
    fill(volumes)
    write(volumes, f"models/old-{KEY}/part")

    lines = run(volumes, References(), delete=True)

    assert f"models/old-{KEY}" not in unused(lines)
    assert any("changed 0 min ago; --older-than is 1.0 d" in line for line in lines)
    assert f"models/old-{KEY}" in unused(run(volumes, References(), older_than_s=0.0))


@pytest.mark.parametrize("name", [f".latents-{KEY}.{KEY}.lock", f"latents-{KEY}/.lock"])
def test_content_whose_lock_is_held_stays(volumes, name):
    fill(volumes)
    path = write(volumes, f"embeddings/{name}", "")
    make_old(volumes)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        os.utime(path, (OLD, OLD))
        lines = run(volumes, References(), delete=True)

    assert any("a process holds its lock" in line for line in lines)
    assert f"embeddings/latents-{KEY}/shard.safetensors" in files(volumes)
    run(volumes, References(), delete=True)
    assert f"embeddings/latents-{KEY}/shard.safetensors" not in files(volumes)


def test_results_go_only_when_they_are_named_and_no_job_uses_them(volumes):
    document = make_document()
    fill(volumes, [document])
    own = next(s for s in plan_stages(make_job_of(document)) if s.kind == "train")
    run_of_job = own.document.target_uri.replace("://", "/")

    with pytest.raises(
        InvalidSpec, match=f"--also {run_of_job}: stays, used by PostTrainingJob push"
    ):
        run(volumes, find_references([document]), delete=True, also=[run_of_job])
    with pytest.raises(InvalidSpec, match="--also checkpoints/typo: is not there; there is: "):
        run(volumes, find_references([document]), delete=True, also=["checkpoints/typo"])
    run(volumes, find_references([document]), delete=True, also=["checkpoints/model-of-gone"])

    assert "checkpoints/model-of-gone/model.json" not in files(volumes)
    assert f"checkpoints/gone-{KEY}/p/g/n/config.yaml" in files(volumes)


def test_leftovers_of_killed_processes_go_and_links_are_passed_over(volumes, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    fill(volumes)
    for name in (".model.pt.abcd_123.tmp", f".x-{KEY}.{KEY}.lock", f".x-{KEY}.{KEY}.partial/part"):
        write(volumes, f"models/{name}")
    (volumes.roots["models"] / f"linked-{KEY}").symlink_to(outside)
    (volumes.roots["models"] / f"old-{KEY}" / "link").symlink_to(outside)
    make_old(volumes)

    run(volumes, References(), delete=True)

    assert not [one for one in files(volumes) if "/." in one]
    assert (outside / "precious").exists()
    assert (volumes.roots["models"] / f"linked-{KEY}").is_symlink()


def test_what_a_job_refers_to_since_the_first_look_is_put_back(volumes):
    document = make_document()
    fill(volumes, [document])
    before = files(volumes)
    looks = iter([References(), find_references([document])])

    lines = run(volumes, lambda: next(looks), delete=True)

    assert any(line.startswith("put back models/") for line in lines)
    assert all(name.startswith(UNUSED) for name in before - files(volumes))


def test_everything_is_put_back_when_the_jobs_cannot_be_read_again(volumes):
    fill(volumes)
    before = files(volumes)

    def read():
        if any("/.pruned." in name for name in files(volumes)):
            raise InvalidSpec(["the API server is gone"])
        return References()

    with pytest.raises(InvalidSpec, match="gone"):
        run(volumes, read, delete=True)

    assert files(volumes) == before


def test_what_a_killed_prune_had_set_aside_is_put_back_for_a_job_or_removed(volumes):
    fill(volumes)
    folder = volumes.roots["models"] / f"old-{KEY}"
    folder.rename(folder.with_name(f".pruned.old-{KEY}"))
    references = References(jobs=["job"])
    references.add("job", f"target_uri: models://old-{KEY}")

    assert f"models/.pruned.old-{KEY}" not in unused(run(volumes, references))
    run(volumes, references, delete=True)
    assert folder.is_dir()
    folder.rename(folder.with_name(f".pruned.old-{KEY}"))
    run(volumes, References(), delete=True)
    assert not [one for one in files(volumes) if one.startswith("models/") and "old-" in one]


# --- what jobs refer to ----------------------------------------------------------------------


def test_documents_of_both_kinds_of_job_and_config_maps_count():
    training, sampling = make_document(), make_inference_document()
    job = make_job()
    shared = next(
        one for one in build_manifests(job, plan_stages(job)) if one["kind"] == "ConfigMap"
    )

    both = find_references([training, sampling])
    alone = find_references([shared])

    assert both.jobs == ["PostTrainingJob push", "InferenceJob more"]
    for stage in plan_stages(job):
        assert stage.document.target_uri.split("://")[1].split("/")[0] in both.users
    assert "Tiny-4dadb51fd5f2" in alone.users
    assert find_references([{**shared, "metadata": {"name": "foreign"}}]).users == {}


def test_job_that_was_accepted_and_cannot_be_planned_stops_the_prune():
    wrong = make_document({"training.steps": -1})
    accepted = {
        "conditions": [
            {
                "type": "Accepted",
                "status": "True",
                "reason": "Valid",
                "message": "",
                "lastTransitionTime": "2026-11-30T00:00:00Z",
            }
        ]
    }

    assert find_references([wrong]).notes[0].startswith("PostTrainingJob push was never accepted")
    with pytest.raises(InvalidSpec, match="nothing is removed: use the version of cosmos"):
        find_references([{**wrong, "status": accepted}])


# --- the command -----------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path):
    """A workspace in which a job has run, whose dataset was another one before."""
    job, folder = make_job(), tmp_path / "runs"
    (folder / "cosmos").mkdir(parents=True)
    (folder / "manifests.yaml").write_text(to_yaml(build_manifests(job, plan_stages(job))))
    volumes = Volumes({name: folder / "cosmos" / name for name in VOLUMES})
    for root in volumes.roots.values():
        root.mkdir()
    fill(volumes, [make_document()])
    return folder, volumes


def test_workspace_is_pruned_by_its_manifests(workspace, capsys):
    folder, volumes = workspace
    before = files(volumes)

    assert main(["prune", "--workspace", str(folder)]) == 0
    assert unused(capsys.readouterr().out.splitlines()) == UNUSED
    assert files(volumes) == before
    assert main(["prune", "--workspace", str(folder), "--delete"]) == 0
    assert all(name.startswith(UNUSED) for name in before - files(volumes))
    assert before != files(volumes)


def test_workspace_that_a_run_uses_is_left_alone(workspace, capsys):
    folder, volumes = workspace
    before = files(volumes)
    with lock(folder):
        assert main(["prune", "--workspace", str(folder), "--delete"]) == WorkspaceBusy.exit_code

    assert files(volumes) == before


def test_jobs_may_come_from_a_file(volumes, tmp_path, monkeypatch, capsys):
    fill(volumes, [make_document()])
    listed = tmp_path / "jobs.yaml"
    listed.write_text(
        yaml.safe_dump({"kind": "List", "apiVersion": "v1", "items": [make_document()]})
    )
    for name, root in volumes.roots.items():
        monkeypatch.setenv(f"COSMOS_{name.upper()}", str(root))

    assert main(["prune", "--jobs", str(listed)]) == 0
    assert unused(capsys.readouterr().out.splitlines()) == UNUSED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("items: 3\nkind: List", "not the objects of a cluster"),
        ("just words", "not the objects of a cluster"),
        ("a: [", "--jobs"),
    ],
)
def test_file_that_is_no_list_of_jobs_removes_nothing(volumes, tmp_path, text, message, capsys):
    fill(volumes)
    before = files(volumes)
    listed = tmp_path / "jobs.yaml"
    listed.write_text(text)
    folders = [f"--{name}={root}" for name, root in volumes.roots.items()]

    assert main(["prune", "--jobs", str(listed), "--delete", *folders]) == 2
    assert message in capsys.readouterr().err
    assert files(volumes) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "from where comes the list of living jobs?"),
        (["--jobs", "a", "--namespace", "b"], "from where comes the list of living jobs?"),
        (["--workspace", "/nowhere"], "no job has been run here"),
        (["--jobs", "/dev/null", "--models", "/nowhere"], "is empty"),
    ],
)
def test_wrong_arguments_are_told(arguments, message, capsys):
    assert main(["prune", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_rendered_job_mounts_what_jobs_mount_and_may_list_only(tmp_path, capsys):
    document = make_document({"storage": {"models": {"claimName": "shared", "subPath": "m"}}})
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    arguments = ["prune", "--render", str(path), "--image", "op:1", "--namespace", "lab"]

    assert main([*arguments, "--also", "checkpoints/x", "--delete"]) == 0
    found = list(yaml.safe_load_all(capsys.readouterr().out))

    kinds = [one["kind"] for one in found]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "Job"]
    assert {one["metadata"]["namespace"] for one in found} == {"lab"}
    assert {verb for rule in found[1]["rules"] for verb in rule["verbs"]} == {"list"}
    pod = found[3]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == [
        "cosmos", "prune", "--namespace", "lab", "--older-than=1440m", "--also=checkpoints/x", "--delete",
    ]  # fmt: skip
    mounts = {one["mountPath"]: (one["name"], one["subPath"]) for one in container["volumeMounts"]}
    assert mounts["/mnt/cosmos/models"] == ("claim-0", "m")
    assert mounts["/mnt/cosmos/checkpoints"] == ("claim-1", "checkpoints")
    claims = [one["persistentVolumeClaim"]["claimName"] for one in pod["volumes"]]
    assert claims == ["shared", "cosmos"]
    assert main(["prune", "--render", str(path)]) == 2
