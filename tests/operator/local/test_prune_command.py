"""The command line of ``cosmos prune``: workspaces, files of jobs, an API server, and the Job of ``--render``."""

import pytest
import yaml
from support.fakekube import FakeKube
from support.jobs import make_document, make_job
from support.passes import PTJS, make_ptj
from support.volume_folders import KEY, UNUSED, files, fill, make_old, make_volumes, unused, write

from cosmos_operator.api.crd import build_crds
from cosmos_operator.api.labels import MANAGED_BY, MANAGED_LABEL
from cosmos_operator.cli import main
from cosmos_operator.errors import WorkspaceBusy
from cosmos_operator.local.run import lock
from cosmos_operator.plan.render import build_manifests, to_yaml
from cosmos_operator.plan.stages import plan_stages


@pytest.fixture
def volumes(tmp_path):
    return make_volumes(tmp_path)


@pytest.fixture
def workspace(tmp_path):
    """A workspace in which a job has run, whose dataset was another one before."""
    job, folder = make_job(), tmp_path / "runs"
    folder.mkdir()
    (folder / "manifests.yaml").write_text(to_yaml(build_manifests(job, plan_stages(job))))
    volumes = make_volumes(folder / "cosmos")
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


# --- an API server -----------------------------------------------------------------------------


@pytest.fixture
def kube():
    with FakeKube() as kube:
        for crd in build_crds():
            kube.install_crd(crd)
        root = {"metadata": {"name": "kube-root-ca.crt", "namespace": "default"}, "data": {}}
        kube.create("configmaps", root)  # as every namespace has it
        yield kube


def arguments_for(kube, volumes, tmp_path, *namespaces):
    kubeconfig = kube.write_kubeconfig(tmp_path / "kubeconfig")
    folders = [f"--{name}={root}" for name, root in volumes.roots.items()]
    return [
        "prune",
        *(f"--namespace={one}" for one in namespaces),
        f"--kubeconfig={kubeconfig}",
        *folders,
    ]


def test_jobs_and_config_maps_of_a_namespace_are_read_from_the_api_server(
    kube, volumes, tmp_path, capsys
):
    fill(volumes, [make_document()])
    write(volumes, f"models/kept-{KEY}/fetched-model.json")
    make_old(volumes)
    before = files(volumes)
    make_ptj(kube, "push")
    labels = {MANAGED_LABEL: MANAGED_BY}
    config = {
        "metadata": {"name": "documents", "namespace": "default", "labels": labels},
        "data": {"stage.yaml": f"target_uri: models://kept-{KEY}"},
    }
    kube.create("configmaps", config)
    arguments = arguments_for(kube, volumes, tmp_path, "default")

    assert main(arguments) == 0
    assert unused(capsys.readouterr().out.splitlines()) == UNUSED
    assert files(volumes) == before
    assert main([*arguments, "--delete"]) == 0
    gone = before - files(volumes)
    assert gone
    assert all(name.startswith(UNUSED) for name in gone)


def test_jobs_of_a_namespace_that_is_not_named_do_not_count(kube, volumes, tmp_path, capsys):
    fill(volumes)
    kube.create("namespaces", {"metadata": {"name": "other"}})
    job = make_document()
    job["metadata"] = {"name": "push", "namespace": "other"}
    kube.create(PTJS, job)

    assert main(arguments_for(kube, volumes, tmp_path, "default")) == 0
    assert capsys.readouterr().out.splitlines()[0] == "0 jobs: none"
    assert main(arguments_for(kube, volumes, tmp_path, "default", "other")) == 0
    assert capsys.readouterr().out.splitlines()[0] == "1 job: PostTrainingJob other/push"


@pytest.mark.parametrize(
    ("plural", "code", "reason"),
    [("posttrainingjobs", 403, "Forbidden"), ("configmaps", 403, "Forbidden")],
)
def test_api_server_that_refuses_a_list_removes_nothing(
    kube, volumes, tmp_path, plural, code, reason, capsys
):
    fill(volumes)
    before = files(volumes)
    kube.refuse(lambda call: call.resource.plural == plural, code, reason, "may not list")

    assert main([*arguments_for(kube, volumes, tmp_path, "default"), "--delete"]) != 0
    assert "may not list" in capsys.readouterr().err
    assert files(volumes) == before


def test_namespace_that_does_not_exist_removes_nothing(kube, volumes, tmp_path, capsys):
    fill(volumes)
    before = files(volumes)

    assert main([*arguments_for(kube, volumes, tmp_path, "defualt"), "--delete"]) == 2
    assert "--namespace defualt: has no job and no ConfigMap" in capsys.readouterr().err
    assert files(volumes) == before


def test_cluster_without_our_resources_removes_nothing(volumes, tmp_path, capsys):
    fill(volumes)
    before = files(volumes)
    with FakeKube() as kube:
        arguments = arguments_for(kube, volumes, tmp_path, "default")
        assert main([*arguments, "--delete"]) == 2

    assert "knows no InferenceJob and no PostTrainingJob" in capsys.readouterr().err
    assert files(volumes) == before


# --- arguments, and the Job of --render --------------------------------------------------------


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
