"""``cosmos prune``: what belongs to no job is told and removed; never what a job refers to, and never a result."""

import fcntl
import os

import pytest
from support.jobs import make_document, make_inference_document, make_job
from support.volume_folders import (
    KEY,
    OLD,
    RESULTS,
    UNUSED,
    files,
    fill,
    make_old,
    make_volumes,
    unused,
    write,
)

from cosmos_operator.api.parse import parse_job
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.local.prune import Rules, prune
from cosmos_operator.local.references import References, find_references
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import plan_stages


@pytest.fixture
def volumes(tmp_path):
    return make_volumes(tmp_path)


def run(volumes, references, *, delete=False, also=(), older_than_s=86400.0):
    lines = []
    read = references if callable(references) else lambda: references
    prune(volumes, read, Rules(older_than_s, frozenset(also)), lines.append, delete=delete)
    return lines


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
    dataset = next(s for s in plan_stages(parse_job(document)) if s.kind == "prepare-dataset")
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
    own = next(s for s in plan_stages(parse_job(document)) if s.kind == "train")
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
