"""Manifests: compared whole with golden files, and held to the rules of the cluster."""

from pathlib import Path

import pytest
import yaml
from support.jobs import make_job

from cosmos_operator.api.labels import STAGE_LABEL
from cosmos_operator.plan.render import build_manifests, to_yaml
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.config.stages import STAGE_CONFIGS

GOLDEN = Path(__file__).parents[2] / "golden"
TWO_NODES = {
    "compute": {
        "image": "registry.example/worker@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        "nodes": 2,
        "gpusPerNode": 4,
        "resources": {"requests": {"cpu": 8}, "limits": {"memory": "64Gi"}},
    },
    "podTemplate": {
        "spec": {"containers": [{"name": "worker", "resources": {"limits": {"memory": "16Gi"}}}]}
    },
    "stages": {
        "train": {
            "podTemplate": {
                "spec": {
                    "containers": [{"name": "worker", "resources": {"limits": {"memory": "64Gi"}}}]
                }
            }
        },
    },
    "training.overrides": ["trainer.micro_batch_size=1"],
    "dataset.source": {"claim": {"claimName": "lab-data", "path": "cubes"}},
    "model.source": {"huggingFace": {"repo": "lab/tiny", "revision": "abc"}},
    "credentials": {"huggingFace": {"name": "hub"}},
    "storage": {
        "models": {"claimName": "push-models", "subPath": "", "create": {"size": "10Gi"}},
        "checkpoints": {"claimName": "results", "subPath": "push"},
    },
    "scheduling": {
        "queueName": "team-a",
        "priorityClassName": "research",
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [
            {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
            {
                "key": "node.kubernetes.io/unreachable",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 0,
            },
        ],
    },
}


def manifests_of(changes=None):
    job = make_job(changes)
    return build_manifests(job, plan_stages(job))


def workloads_of(manifests):
    return [m for m in manifests if m["kind"] in ("Job", "PyTorchJob")]


def templates_of(manifest):
    if manifest["kind"] == "PyTorchJob":
        return [r["template"] for r in manifest["spec"]["pytorchReplicaSpecs"].values()]
    return [manifest["spec"]["template"]]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("one-cpu-node", {}),
        ("two-gpu-nodes-pytorchjob", TWO_NODES),
        ("two-gpu-nodes-job", {**TWO_NODES, "backend": {"type": "Job"}}),
    ],
)
def test_manifests_are_as_reviewed(name, changes, update_golden):
    path = GOLDEN / f"{name}.yaml"
    text = to_yaml(manifests_of(changes))
    if update_golden:
        path.write_text(text, encoding="utf-8")

    assert text == path.read_text(encoding="utf-8"), "review the diff of pytest --update-golden"


@pytest.mark.parametrize("changes", [{}, TWO_NODES, {**TWO_NODES, "backend": {"type": "Job"}}])
def test_pods_are_admitted_by_restricted_pod_security(changes):
    for manifest in workloads_of(manifests_of(changes)):
        for template in templates_of(manifest):
            pod = template["spec"]
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            allowed = {"configMap", "emptyDir", "persistentVolumeClaim"}
            assert all((set(volume) - {"name"}) <= allowed for volume in pod["volumes"])
            for container in pod["containers"]:
                context = container["securityContext"]
                assert context["allowPrivilegeEscalation"] is False
                assert context["capabilities"] == {"drop": ["ALL"]}


def test_every_workload_finds_its_document_and_its_mounts():
    manifests = manifests_of(TWO_NODES)
    documents = {m["metadata"]["name"]: m["data"] for m in manifests if m["kind"] == "ConfigMap"}

    for manifest in workloads_of(manifests):
        for template in templates_of(manifest):
            pod = template["spec"]
            volumes = {volume["name"]: volume for volume in pod["volumes"]}
            mounts = {m["mountPath"] for m in pod["containers"][0]["volumeMounts"]}
            assert {m["name"] for m in pod["containers"][0]["volumeMounts"]} == set(volumes)
            files = documents[volumes["config"]["configMap"]["name"]]
            document = files["stage.yaml"]
            kind = pod["containers"][0]["command"][1]
            STAGE_CONFIGS[kind].model_validate(yaml.safe_load(document))
            for volume in ("models", "datasets", "embeddings", "checkpoints"):
                is_named = f"{volume}://" in document + files.get("hints.yaml", "")
                assert is_named == (f"/mnt/cosmos/{volume}" in mounts)


def test_only_the_target_of_a_stage_can_be_written():
    train = next(m for m in workloads_of(manifests_of()) if m["metadata"]["name"] == "push-1")
    mounts = templates_of(train)[0]["spec"]["containers"][0]["volumeMounts"]

    writable = [m["mountPath"] for m in mounts if not m.get("readOnly")]
    assert writable == ["/tmp", "/dev/shm", "/mnt/cosmos/checkpoints"]


def test_claim_that_a_source_names_is_mounted_where_its_files_are_read():
    users = [
        m["metadata"]["labels"]["cosmos.dev/stage"]
        for m in workloads_of(manifests_of(TWO_NODES))
        if "/mnt/cosmos/claims/lab-data" in str(templates_of(m)[0]["spec"]["containers"][0]["volumeMounts"])
    ]  # fmt: skip

    assert users == [
        "prepare-dataset", "embed-text", "cache-latents", "check-inputs", "train", "generate-before", "report",
    ]  # fmt: skip


@pytest.mark.parametrize(("gpus", "options"), [(1, []), (4, ["--nproc-per-node", "4"])])
def test_latents_are_made_by_a_process_on_each_gpu(gpus, options):
    changes = {
        "compute": {
            "image": "w@sha256:0000000000000000000000000000000000000000000000000000000000000000",
            "gpusPerNode": 4,
            "preparation": {"gpus": gpus},
        },
        "training.overrides": ["trainer.micro_batch_size=1"],
    }
    (latents,) = [
        workload
        for workload in workloads_of(manifests_of(changes))
        if workload["metadata"]["labels"][STAGE_LABEL] == "cache-latents"
    ]
    (template,) = templates_of(latents)

    (container,) = template["spec"]["containers"]
    assert container["command"][4:] == options
    assert container["resources"]["limits"]["nvidia.com/gpu"] == str(gpus)


@pytest.mark.parametrize(("gpus", "options"), [(1, []), (4, ["--nproc-per-node", "4"])])
def test_videos_are_sampled_by_a_process_on_each_gpu(gpus, options):
    (after,) = [
        workload
        for workload in workloads_of(manifests_of({"inference.1.gpus": gpus}))
        if workload["metadata"]["labels"][STAGE_LABEL] == "generate-after"
    ]
    (template,) = templates_of(after)

    (container,) = template["spec"]["containers"]
    assert container["command"][4:] == options
    assert container["resources"]["limits"]["nvidia.com/gpu"] == str(gpus)
    shared = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    assert len(shared) == (gpus > 1)


def test_token_reaches_only_stages_that_fetch():
    for manifest in workloads_of(manifests_of(TWO_NODES)):
        environment = {e["name"] for e in templates_of(manifest)[0]["spec"]["containers"][0]["env"]}
        fetches = manifest["metadata"]["labels"]["cosmos.dev/stage"] in (
            "fetch-model",
            "prepare-dataset",
        )
        assert ("HF_TOKEN" in environment) == fetches
        assert ("HF_HUB_OFFLINE" in environment) != fetches


def test_queued_workloads_are_created_suspended():
    for manifest in workloads_of(manifests_of(TWO_NODES)):
        spec = manifest["spec"]
        suspended = spec["runPolicy"]["suspend"] if "runPolicy" in spec else spec["suspend"]
        queued = manifest["metadata"]["labels"].get("kueue.x-k8s.io/queue-name") == "team-a"
        gpus = "nvidia.com/gpu" in str(manifest)
        assert suspended == queued == gpus


def test_pytorchjob_meets_the_demands_of_its_webhook():
    job = next(m for m in manifests_of(TWO_NODES) if m["kind"] == "PyTorchJob")

    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert (replicas["Master"]["replicas"], replicas["Worker"]["replicas"]) == (1, 1)
    assert job["spec"]["nprocPerNode"] == "4"
    for replica in replicas.values():
        assert replica["restartPolicy"] == "Never"
        assert replica["template"]["spec"]["containers"][0]["name"] == "pytorch"


def test_attempts_have_names_of_their_own():
    job = make_job()
    second = build_manifests(job, plan_stages(job), attempt=2)

    assert [m["metadata"]["name"] for m in second if m["kind"] == "PyTorchJob"] == ["push-2"]


def test_manifests_share_no_object():
    manifests = manifests_of(TWO_NODES)
    seen = set()

    def visit(value):
        if isinstance(value, dict | list):
            assert id(value) not in seen or not value
            seen.add(id(value))
            for inner in value.values() if isinstance(value, dict) else value:
                visit(inner)

    visit(manifests)
