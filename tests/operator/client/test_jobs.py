"""Jobs found, submitted, stopped and waited for, on the API server in this process."""

from __future__ import annotations

import pytest
import yaml
from support.fakekube import FakeKube
from support.jobs import make_document

from cosmos_operator.api.crd import build_crds
from cosmos_operator.cli import main
from cosmos_operator.client import connect
from cosmos_operator.errors import InvalidSpec


@pytest.fixture(scope="module")
def kube():
    with FakeKube(kinds=()) as found:
        for crd in build_crds():
            found.install_crd(crd)
        yield found


@pytest.fixture(scope="module")
def kubeconfig(kube, tmp_path_factory):
    return kube.write_kubeconfig(tmp_path_factory.mktemp("kube") / "config")


@pytest.fixture(scope="module")
def cosmos(kubeconfig):
    with connect(kubeconfig) as found:
        yield found


@pytest.fixture
def write(tmp_path):
    def write(*documents):
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump_all(documents))
        return path

    return write


def named(name, **metadata):
    document = make_document()
    document["metadata"] = {"name": name, **metadata}
    return document


def end(kube, name, kind, key="posttrainingjobs.cosmos.dev"):
    """Let a job have ended."""

    def write():
        job = kube.store.get(key, "default", name)
        status = {
            "state": kind,
            "message": "the end",
            "observedGeneration": job["metadata"]["generation"],
            "conditions": [
                {"type": kind, "status": "True", "reason": "X", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            ],
        }  # fmt: skip
        kube.store.update(key, {**job, "status": status}, subresource="status")

    kube.call(write)


def test_namespace_is_that_of_the_context(cosmos):
    assert cosmos.namespace == "default"


def test_submitted_job_is_stored_as_it_stands_in_the_file(cosmos, kube, write):
    assert cosmos.submit(write(named("one"))) == "posttrainingjob/one"

    stored = kube.get("posttrainingjobs.cosmos.dev", "one")
    assert stored["spec"] == named("one")["spec"]


def test_job_of_a_taken_name_is_refused_with_what_to_do(cosmos, write):
    cosmos.submit(write(named("taken")))

    with pytest.raises(InvalidSpec, match=r"default/taken exists already.*kubectl delete"):
        cosmos.submit(write(named("taken")))


def test_wrong_file_is_refused_as_by_validate_before_anything_is_created(cosmos, kube, write):
    wrong = named("wrong")
    wrong["spec"]["training"]["steps"] = -1

    with pytest.raises(InvalidSpec, match=r"spec\.training\.steps"):
        cosmos.submit(write(named("right"), wrong))
    assert kube.get("posttrainingjobs.cosmos.dev", "right") is None


def test_job_of_another_namespace_is_not_moved(cosmos, write):
    with pytest.raises(InvalidSpec, match=r"'team' is not 'default'.*--namespace team"):
        cosmos.submit(write(named("elsewhere", namespace="team")))


def test_absent_job_and_unknown_kind_are_told(cosmos):
    with pytest.raises(InvalidSpec, match=r"default/absent: no PostTrainingJob or InferenceJob"):
        cosmos.job("absent")
    with pytest.raises(InvalidSpec, match=r"'pod' is no kind of job; give NAME or one of ij"):
        cosmos.job("pod/absent")


def test_stop_and_resume_set_the_field_once(cosmos, kube, write):
    cosmos.submit(write(named("pause")))

    assert [cosmos.stop("pause"), cosmos.stop("ptj/pause")] == [True, False]
    assert kube.get("posttrainingjobs.cosmos.dev", "pause")["spec"]["runPolicy"]["suspend"] is True
    assert [cosmos.resume("pause"), cosmos.resume("pause")] == [True, False]
    assert kube.get("posttrainingjobs.cosmos.dev", "pause")["spec"]["runPolicy"]["suspend"] is False


def test_job_that_has_ended_cannot_be_stopped(cosmos, kube, write):
    cosmos.submit(write(named("over")))
    end(kube, "over", "Succeeded")

    with pytest.raises(InvalidSpec, match=r"default/over: has ended \(Succeeded\)"):
        cosmos.stop("over")


@pytest.mark.parametrize(("kind", "code"), [("Succeeded", 0), ("Failed", 1)])
def test_exit_code_of_wait_is_the_end_of_the_job(
    kube, kubeconfig, cosmos, write, capsys, kind, code
):
    name = f"waits-{kind.lower()}"
    cosmos.submit(write(named(name)))
    end(kube, name, kind)

    assert main(["wait", name, f"--kubeconfig={kubeconfig}"]) == code
    assert capsys.readouterr().out == f"{kind}: the end\n"


def test_wait_gives_up_and_says_that_the_job_goes_on(kubeconfig, cosmos, write, capsys):
    cosmos.submit(write(named("slow")))

    assert main(["wait", "slow", "--timeout=0.05", f"--kubeconfig={kubeconfig}"]) == 124
    assert capsys.readouterr().err == "slow: not finished after 0.05 s; it goes on\n"


def test_server_that_does_not_answer_has_an_exit_code_of_its_own(tmp_path, kube, capsys):
    path = kube.write_kubeconfig(tmp_path / "config")
    path.write_text(path.read_text().replace(kube.url, "http://127.0.0.1:9"))

    assert main(["stop", "any", f"--kubeconfig={path}"]) == 74
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_missing_context_is_told(kubeconfig, capsys):
    assert main(["ls", "--context=absent", f"--kubeconfig={kubeconfig}"]) == 2
    assert "absent" in capsys.readouterr().err
