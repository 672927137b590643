"""Results copied from a claim, on the API server in this process, whose pods run real commands."""

from __future__ import annotations

import hashlib
import json

import pytest
from support.fakekube import FakeKube
from support.jobs import make_document
from support.pod_security import openshift_violations, violations

from cosmos_operator.api.crd import build_crds
from cosmos_operator.client import connect, pod_program, pull
from cosmos_operator.client.pod import build_workload
from cosmos_operator.errors import ClusterUnavailable, InvalidSpec

KEY = "posttrainingjobs.cosmos.dev"
WEIGHTS = bytes(range(256)) * 1000
FILES = {
    "checkpoints/mine/model.pt": WEIGHTS,
    "checkpoints/mine/model.json": b"{}",
    "checkpoints/mine/complete-x.json": b"{}",
    "checkpoints/mine-report/report.html": b"<html>",
    "checkpoints/videos/clip/000.mp4": b"video",
    "checkpoints/other/model.pt": b"of another job",
}


@pytest.fixture
def kube(monkeypatch):
    monkeypatch.setattr(pull, "PAUSE_S", 0.001)
    with FakeKube(kinds=()) as found:
        for crd in build_crds():
            found.install_crd(crd)
        claim = {
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            }
        }
        found.create(
            "persistentvolumeclaims",
            {"metadata": {"name": "cosmos", "namespace": "default"}, **claim},
        )
        document = make_document()
        document["metadata"] = {"name": "mine", "namespace": "default"}
        document["spec"].pop("storage", None)
        job = found.create(KEY, document)
        status = {
            "state": "Succeeded",
            "outputs": [
                {"name": "model", "address": "checkpoints://mine/model.pt"},
                {"name": "report", "address": "checkpoints://mine-report/report.html"},
            ],
            "inference": [
                {"name": "clip", "state": "Succeeded", "address": "checkpoints://videos/clip"},
                {"name": "lost", "state": "Failed"},
            ],
        }
        found.call(lambda: found.store.update(KEY, {**job, "status": status}, subresource="status"))
        found.disk("cosmos").update(FILES)
        yield found
        assert found.find("jobs.batch") == []


@pytest.fixture
def cosmos(kube, tmp_path):
    with connect(kube.write_kubeconfig(tmp_path / "config")) as found:
        yield found


def test_results_are_copied_by_their_paths_and_nothing_else(cosmos, tmp_path):
    files = cosmos.pull("mine", tmp_path / "out", image="python:3.12")

    found = {
        str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()
    }
    assert found == {
        "mine/model.pt",
        "mine/model.json",
        "mine-report/report.html",
        "videos/clip/000.mp4",
    }
    assert (tmp_path / "out/mine/model.pt").read_bytes() == WEIGHTS
    assert {one.path.name: one.sha256 for one in files}["model.pt"] == hashlib.sha256(
        WEIGHTS
    ).hexdigest()


def test_broken_connection_is_continued_where_it_broke(cosmos, kube, tmp_path):
    del kube.disk("cosmos")["checkpoints/mine/model.json"]
    kube.world.exec_cuts.extend([10**9, 100_000, 50_000])  # the list of files comes whole
    seen = []
    report = lambda path, done, size: seen.append(done)  # noqa: E731
    (file,) = cosmos.pull("mine", tmp_path, parts=("model",), image="x", report=report)

    assert file.path.read_bytes() == WEIGHTS
    assert len(kube.calls(subresource="exec")) == 4  # the list, and three reads
    assert seen == sorted(seen)
    assert {100_000, 150_000} <= set(seen)


def test_partial_file_of_before_is_continued_and_one_of_another_content_made_anew(cosmos, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "model.pt.partial").write_bytes(WEIGHTS[:1000])
    seen = []
    cosmos.pull("mine", tmp_path, parts=("model",), image="x", report=lambda *one: seen.append(one))
    assert min(done for path, done, _ in seen if path.endswith("model.pt")) > 1000
    assert (folder / "model.pt").read_bytes() == WEIGHTS

    (folder / "model.pt").unlink()
    (folder / "model.pt.partial").write_bytes(b"x" * 1000)
    cosmos.pull("mine", tmp_path, parts=("model",), image="x")
    assert (folder / "model.pt").read_bytes() == WEIGHTS


def test_file_that_is_there_is_compared_and_not_sent_again(cosmos, tmp_path):
    cosmos.pull("mine", tmp_path, image="x")
    (tmp_path / "mine/model.pt").write_bytes(b"x" * len(WEIGHTS))
    files = cosmos.pull("mine", tmp_path, image="x")

    assert [one.path.name for one in files if not one.was_there] == ["model.pt"]
    assert (tmp_path / "mine/model.pt").read_bytes() == WEIGHTS


def test_pod_is_deleted_when_the_connection_breaks_for_good(cosmos, kube, tmp_path):
    kube.world.exec_cuts.extend([10**9, *[0] * 20])

    with pytest.raises(ClusterUnavailable, match=r"mine/model.*continues from byte 0"):
        cosmos.pull("mine", tmp_path, parts=("model",), image="x")


def test_pod_that_cannot_start_is_told_with_its_reason(cosmos, kube, tmp_path):
    kube.set_images("only-this")

    with pytest.raises(InvalidSpec, match=r"cannot start: .*image 'absent' cannot be pulled"):
        cosmos.pull("mine", tmp_path, image="absent")


def test_image_is_asked_for_where_no_pod_of_the_job_is_left(cosmos, tmp_path):
    with pytest.raises(InvalidSpec, match=r"give --image IMAGE"):
        cosmos.pull("mine", tmp_path)


def test_job_without_results_says_so(cosmos, kube, tmp_path):
    job = kube.get(KEY, "mine")
    new = {**job, "status": {"state": "Training"}}
    kube.call(lambda: kube.store.update(KEY, new, subresource="status"))

    with pytest.raises(InvalidSpec, match=r"has no model, report, videos yet \(Training"):
        cosmos.pull("mine", tmp_path, image="x")


def test_pod_is_admitted_by_restricted_and_keeps_what_nodes_and_registries_need():
    job = {"kind": "PostTrainingJob", "metadata": {"name": "mine", "namespace": "n", "uid": "u"}}
    template = {
        "metadata": {
            "labels": {
                "team": "robots", "cosmos.dev/job": "mine", "app.kubernetes.io/managed-by": "cosmos",
                "batch.kubernetes.io/controller-uid": "u", "batch.kubernetes.io/job-name": "mine-train",
                "controller-uid": "u", "job-name": "mine-train",
            },
            "annotations": {"sidecar.istio.io/inject": "false"},
        },
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "imagePullSecrets": [{"name": "registry"}],
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "worker", "image": "w", "resources": {"limits": {"nvidia.com/gpu": 8}}}],
        },
    }  # fmt: skip
    for given in (template, {}):
        workload = build_workload(job, given, "w", "claim", "checkpoints")
        pod = workload["spec"]["template"]["spec"]
        assert violations(pod) == []
        assert pod["containers"][0]["volumeMounts"][0]["readOnly"] is True
        assert "nvidia.com/gpu" not in json.dumps(workload)
    workload = build_workload(job, template, "w", "claim", "")
    assert openshift_violations(workload["spec"]["template"]["spec"]) == []
    made = workload["spec"]["template"]
    assert made["metadata"]["labels"] == {
        "team": "robots", "app.kubernetes.io/part-of": "cosmos", "cosmos.dev/pull": "mine",
    }  # fmt: skip
    assert made["metadata"]["annotations"] == {"sidecar.istio.io/inject": "false"}
    assert made["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert workload["metadata"]["ownerReferences"][0]["uid"] == "u"


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b"])
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(InvalidSpec, match="leaves the folder"):
        pull._check_name(name)


def test_program_of_the_pod_lists_no_links_and_reads_none(tmp_path, capsys):
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"12345")
    (tmp_path / "d/link").symlink_to("/etc/hostname")
    beat = str(tmp_path / "beat")
    pod_program.main(["list", beat, str(tmp_path), "d", "gone"])

    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"path": "d/file", "size": 5},
        {"missing": "gone"},
    ]
    with pytest.raises(OSError, match="symbolic links"):
        pod_program.main(["read", beat, str(tmp_path / "d/link"), "0"])


def test_program_of_the_pod_ends_when_nobody_asks(tmp_path):
    pod_program.main(["serve", str(tmp_path / "beat"), "0.05"])
