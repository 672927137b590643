"""Pod templates of installation, job, stage and item: which wins, whom they reach, and what stays the operator's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.jobs import make_document
from support.pod_security import openshift_violations, violations

from cosmos_operator.api.labels import STAGE_LABEL, TEMPLATE_ANNOTATION
from cosmos_operator.api.parse import parse_job
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.backend import BACKENDS
from cosmos_operator.plan.pod import AvoidedNodes, build_pod_template
from cosmos_operator.plan.render import build_manifests
from cosmos_operator.plan.stages import SHARED_KINDS, Stage, plan_stages
from cosmos_operator.plan.workload import TrainingAttempt
from cosmos_operator.settings import Settings

Json = dict[str, Any]
GPUS = {"compute": {"gpusPerNode": 4}, "training.overrides": ["trainer.micro_batch_size=1"]}
SPOT = [{"key": "spot", "operator": "Exists"}]


def worker(**fields: Any) -> Json:
    """A template that changes the worker's container."""
    return {"spec": {"containers": [{"name": "worker", **fields}]}}


def job_of(changes: Json | None = None, **metadata: Any) -> Any:
    document = make_document(changes)
    document["metadata"] |= metadata
    return parse_job(document)


def templates(
    changes: Json | None = None, settings: Json | None = None, **metadata: Any
) -> dict[str, Manifest]:
    """Name of each stage → its pod template."""
    job = job_of(changes, **metadata)
    chosen = Settings.model_validate(settings or {})
    return {
        stage.name: build_pod_template(job, stage, config_map="c", settings=chosen)
        for stage in plan_stages(job)
    }


def container(template: Manifest) -> Manifest:
    (found,) = template["spec"]["containers"]
    return found


def test_later_layers_win() -> None:
    def memory(size: str) -> Json:
        return worker(resources={"limits": {"memory": size}})

    found = templates(
        {
            "podTemplate": memory("2Gi"),
            "stages.fetchModel.podTemplate": memory("3Gi"),
            "stages.generate.podTemplate": memory("4Gi"),
            "inference.1.podTemplate": memory("5Gi"),
            "compute.resources": {"limits": {"memory": "9Gi", "cpu": "7"}},
        },
        {"podTemplate": memory("1Gi")},
    )
    sizes = {name: container(one)["resources"]["limits"] for name, one in found.items()}

    assert sizes == {
        "fetch-model": {"memory": "3Gi"},
        "prepare-dataset": {"memory": "2Gi"},
        "embed-text": {"memory": "2Gi"},
        "cache-latents": {"memory": "2Gi"},
        "check-inputs": {"memory": "2Gi"},
        "train": {"memory": "2Gi", "cpu": "7"},
        "publish": {"memory": "2Gi"},
        "generate-before": {"memory": "4Gi", "cpu": "7"},
        "generate-after": {"memory": "5Gi", "cpu": "7"},
        "report": {"memory": "2Gi"},
    }


def test_short_fields_win_over_the_installation() -> None:
    changes = {
        "scheduling": {"priorityClassName": "high", "tolerations": SPOT, "nodeSelector": {"a": "2"}}
    }
    settings = {
        "podTemplate": {
            "spec": {"priorityClassName": "low", "nodeSelector": {"a": "1", "b": "1"}, "tolerations": []}
        }
    }  # fmt: skip
    found = templates(changes, settings)

    train, fetch = found["train"]["spec"], found["fetch-model"]["spec"]
    assert train["priorityClassName"] == "high"
    assert train["nodeSelector"] == {"a": "2", "b": "1"}
    assert train["tolerations"] == SPOT
    assert (fetch["priorityClassName"], fetch["nodeSelector"]) == ("low", {"a": "1", "b": "1"})


def test_scheduling_concerns_the_training_and_stages_with_gpus() -> None:
    changes = {**GPUS, "scheduling": {"nodeSelector": {"gpu": "h100"}, "priorityClassName": "high"}}
    chosen = {
        name
        for name, one in templates(changes).items()
        if one["spec"].get("nodeSelector") == {"gpu": "h100"}
        and one["spec"].get("priorityClassName") == "high"
    }

    assert chosen == {"embed-text", "cache-latents", "train", "generate-before", "generate-after"}


def test_number_of_gpus_stays_that_of_the_job() -> None:
    changes = {**GPUS, "podTemplate": worker(resources=None)}

    assert container(templates(changes)["train"])["resources"] == {"limits": {"nvidia.com/gpu": "4"}}  # fmt: skip


def test_labels_of_the_job_reach_its_pods_and_ours_win() -> None:
    labels = {
        "team": "vision",
        "app.kubernetes.io/managed-by": "Helm",
        "app.kubernetes.io/instance": "site",
        "cosmos.dev/job": "other",
        "kueue.x-k8s.io/queue-name": "team-a",
        "batch.kubernetes.io/job-name": "x",
    }
    found = templates(labels=labels, annotations={"kubectl.kubernetes.io/last-applied": "{}"})

    for name, template in found.items():
        metadata = template["metadata"]
        assert metadata["labels"]["team"] == "vision"
        assert metadata["labels"]["app.kubernetes.io/instance"] == "site"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "cosmos"
        assert metadata["labels"].get("cosmos.dev/job", "push") == "push"
        assert metadata["labels"][STAGE_LABEL] == name
        assert not [one for one in metadata["labels"] if "kueue" in one or "batch" in one]
        assert set(metadata["annotations"]) == {"kubectl.kubernetes.io/default-container"}


def test_label_of_a_template_wins_over_that_of_the_job() -> None:
    template = {"metadata": {"labels": {"team": "report"}}}
    found = templates({"stages.report.podTemplate": template}, labels={"team": "vision"})

    assert found["report"]["metadata"]["labels"]["team"] == "report"
    assert found["train"]["metadata"]["labels"]["team"] == "vision"


def workloads(changes: Json | None = None, **metadata: Any) -> dict[str, Manifest]:
    job = job_of(changes, **metadata)
    return {
        one["metadata"]["labels"][STAGE_LABEL]: one
        for one in build_manifests(job, plan_stages(job))
        if one["kind"] in ("Job", "PyTorchJob", "TrainJob")
    }


def test_queue_label_of_the_job_is_its_queue() -> None:
    labels = {"kueue.x-k8s.io/queue-name": "team-a", "kueue.x-k8s.io/priority-class": "urgent"}
    found = workloads(labels=labels)

    train, fetch = found["train"], found["fetch-model"]
    assert train["metadata"]["labels"].items() >= labels.items()
    assert train["spec"]["runPolicy"]["suspend"] is True
    assert not set(labels) & set(fetch["metadata"]["labels"])
    assert fetch["spec"]["suspend"] is False


def test_topology_that_a_job_asks_kueue_for_reaches_the_training() -> None:
    wish = {"kueue.x-k8s.io/podset-required-topology": "rack"}
    found = templates(annotations=wish)

    assert found["train"]["metadata"]["annotations"].items() >= wish.items()
    assert not set(wish) & set(found["publish"]["metadata"]["annotations"])
    given = templates({"stages.train.podTemplate": {"metadata": {"annotations": wish}}})
    assert given["train"]["metadata"]["annotations"].items() >= wish.items()


def test_nodes_that_failed_are_avoided_beside_an_affinity_of_the_template() -> None:
    rule = {"key": "zone", "operator": "In", "values": ["a"]}
    terms = [{"matchExpressions": [rule]}, {"matchFields": [rule]}]
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}
        },
        "podAntiAffinity": {},
    }
    job = job_of({"podTemplate": {"spec": {"affinity": affinity}}})
    stage = next(one for one in plan_stages(job) if one.kind == "train")
    found = build_pod_template(
        job, stage, config_map="c", settings=Settings(), avoid=AvoidedNodes(("n1",), ("n2",))
    )["spec"]["affinity"]

    others = {"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["n1"]}
    required = found["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"] == [
        {"matchExpressions": [rule, others]},
        {"matchFields": [rule], "matchExpressions": [others]},
    ]
    assert "preferredDuringSchedulingIgnoredDuringExecution" in found["nodeAffinity"]
    assert found["podAntiAffinity"] == {}


def test_variables_of_a_template_can_refer_to_ours() -> None:
    variables = [
        {"name": "CACHE", "value": "$(HOME)/cache"},
        {"name": "OMP_NUM_THREADS", "value": "4"},
    ]
    found = container(templates({"podTemplate": worker(env=variables)})["publish"])["env"]

    assert found[-2:] == variables
    assert {"name": "HOME", "value": "/tmp"} in found


def test_time_to_save_follows_the_grace_period() -> None:
    changes = {"stages.train.podTemplate": {"spec": {"terminationGracePeriodSeconds": 900}}}
    pod = templates(changes)["train"]

    saving = {one["name"]: one.get("value") for one in container(pod)["env"]}["COSMOS_SAVE_SECONDS"]
    assert (pod["spec"]["terminationGracePeriodSeconds"], saving) == (900, "870")


@pytest.mark.parametrize(
    ("kind", "name"), [("PyTorchJob", "pytorch"), ("Job", "worker"), ("TrainJob", "node")]
)
def test_container_is_called_worker_whatever_runs_the_training(kind: str, name: str) -> None:
    changes = {"backend": {"type": kind}, "podTemplate": worker(env=[{"name": "A", "value": "b"}])}
    text = json.dumps(workloads(changes)["train"])

    assert '{"name": "A", "value": "b"}' in text
    assert f'"name": "{name}"' in text


def attempt(changes: Json, settings: Json | None = None) -> TrainingAttempt:
    job = job_of({**changes, "backend": {"type": "TrainJob"}})
    stage = next(one for one in plan_stages(job) if one.kind == "train")
    return TrainingAttempt(job, stage, "c", Settings.model_validate(settings or {}), 1)


CARRIED_BY_A_PATCH = {"nodeSelector": {"a": "b"}, "tolerations": SPOT, "serviceAccountName": "s"}
NEEDS_A_RUNTIME: list[Json] = [
    {"scheduling": {"priorityClassName": "high"}},
    {"podTemplate": {"spec": {"runtimeClassName": "kata"}}},
    {"podTemplate": {"spec": {"terminationGracePeriodSeconds": 600}}},
    {"podTemplate": {"spec": {"initContainers": [{"name": "a", "image": "i"}]}}},
    {"podTemplate": worker(envFrom=[{"configMapRef": {"name": "c"}}])},
    {
        "podTemplate": {
            "spec": {
                "volumes": [{"name": "x", "emptyDir": {}}],
                **worker(
                    volumeMounts=[
                        {"name": "x", "mountPath": "/x"},
                        {"name": "x", "mountPath": "/y"},
                    ]
                )["spec"],
            }
        }
    },
]


def test_trainjob_patches_the_runtime_of_the_chart_where_that_is_enough() -> None:
    (workload,) = BACKENDS["TrainJob"].build(attempt({"podTemplate": {"spec": CARRIED_BY_A_PATCH}}))

    assert workload["spec"]["runtimeRef"] == {"name": "cosmos-torch"}
    text = json.dumps(workload["spec"]["runtimePatches"])
    for name, value in CARRIED_BY_A_PATCH.items():
        assert f'"{name}": {json.dumps(value)}' in text


@pytest.mark.parametrize("changes", NEEDS_A_RUNTIME, ids=[json.dumps(c)[:60] for c in NEEDS_A_RUNTIME])  # fmt: skip
def test_trainjob_gets_a_runtime_with_what_a_patch_cannot_carry(changes: Json) -> None:
    wanted = attempt(changes)
    runtime, workload = BACKENDS["TrainJob"].build(wanted)

    assert workload["spec"]["runtimeRef"] == {
        "kind": "TrainingRuntime",
        "name": runtime["metadata"]["name"],
    }
    assert "runtimePatches" not in workload["spec"]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    carried = node["template"]["spec"]["template"]
    expected = wanted.pod_template("node")
    assert workload["spec"]["trainer"]["env"] == expected["spec"]["containers"][0].pop("env")
    assert carried == expected


def test_key_does_not_depend_on_templates_but_digests_and_names_of_shared_stages_do() -> None:
    template = {"spec": {"tolerations": SPOT}}
    plain, changed = workloads(), workloads({"podTemplate": template})

    for name, one in plain.items():
        other = changed[name]["metadata"]
        is_shared = name in SHARED_KINDS
        assert (one["metadata"]["name"] == other["name"]) is not is_shared
        assert one["metadata"]["labels"] == other["labels"]
        if one["kind"] == "Job":
            digests = {m["annotations"][TEMPLATE_ANNOTATION] for m in (one["metadata"], other)}
            assert len(digests) == 2


@pytest.mark.parametrize("changes", [{}, GPUS])
def test_pods_satisfy_pod_security_restricted(changes: Json) -> None:
    assert [flaw for one in templates(changes).values() for flaw in violations(one["spec"])] == []


OPENSHIFT: list[tuple[Json, Json]] = [
    ({}, {"podSecurityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}}),
    ({"podTemplate": {"spec": {"securityContext": dict.fromkeys(["runAsUser", "runAsGroup", "fsGroup"])}}}, {}),
    ({"podTemplate": {"spec": {"securityContext": {"$patch": "replace", "runAsNonRoot": True}}}}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "settings"), OPENSHIFT)
def test_openshift_chooses_user_and_group(changes: Json, settings: Json) -> None:
    for template in templates(changes, settings).values():
        assert openshift_violations(template["spec"]) == []
    assert openshift_violations(templates()["train"]["spec"]) != []


def stage_of(kind: str) -> Stage:
    return next(one for one in plan_stages(job_of()) if one.kind == kind)


def test_programs_find_a_user_whose_number_is_in_no_list() -> None:
    pod = build_pod_template(job_of(), stage_of("train"), config_map="c", settings=Settings())
    values = {one["name"]: one.get("value") for one in container(pod)["env"]}

    assert (values["USER"], values["HOME"]) == ("cosmos", "/tmp")


@pytest.mark.parametrize(
    ("changes", "seconds"), [({}, "1500"), ({"runPolicy.stallTimeoutSeconds": 7200}, "6000")]
)
def test_training_ends_a_hang_by_itself_before_the_operator_does(
    changes: Json, seconds: str
) -> None:
    variables = container(templates(changes)["train"])["env"]

    assert {"name": "COSMOS_STALL_SECONDS", "value": seconds} in variables
