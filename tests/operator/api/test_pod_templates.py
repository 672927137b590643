"""Pod templates that are refused: where, what, and what is allowed instead."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.helm_chart import find_one, render
from support.jobs import make_document

from cosmos_operator.api.parse import parse_job
from cosmos_operator.api.pod_template import StagesSpec
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.settings import Settings
from cosmos_worker.config.stages import STAGE_CONFIGS

Json = dict[str, Any]
PAGE = Path(__file__).parents[3] / "docs" / "pod-templates.md"
WHERE = "spec.podTemplate.spec"
WORKER = f"{WHERE}.containers[0]"


def problems(changes: Json, **metadata: Any) -> str:
    document = make_document(changes)
    document["metadata"] |= metadata
    try:
        parse_job(document)
    except InvalidSpec as error:
        return "\n".join(error.problems)
    return ""


def spec(**fields: Any) -> Json:
    return {"podTemplate": {"spec": fields}}


def worker(**fields: Any) -> Json:
    return spec(containers=[{"name": "worker", **fields}])


def env(name: str, **fields: Any) -> Json:
    return worker(env=[{"name": name, **fields}])


def nested(depth: int) -> Json:
    value: Json = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def repeated(depth: int) -> Json:
    """What aliases of YAML make: twice as much at every level, in a few objects."""
    value: Json = {}
    for _ in range(depth):
        value = {"a": value, "b": value}
    return value


FROM_SECRET = {"secretKeyRef": {"name": "s", "key": "k"}}
REFUSED: list[tuple[Json, str]] = [
    # fields that would break the job
    (worker(command=["sh"]),
     f"{WORKER}.command: cannot be set in a pod template: the operator says what the worker does"),
    (worker(args=["x"]), f"{WORKER}.args: cannot be set"),
    (worker(image="mine"), f"{WORKER}.image: cannot be set in a pod template: give spec.compute.image"),
    (worker(lifecycle={}), f"{WORKER}.lifecycle: cannot be set"),
    (worker(livenessProbe={}), f"{WORKER}.livenessProbe: cannot be set"),
    (spec(restartPolicy="Always"), f"{WHERE}.restartPolicy: cannot be set in a pod template: the operator decides"),
    (spec(hostname="a"), f"{WHERE}.hostname: cannot be set"),
    (spec(subdomain="a"), f"{WHERE}.subdomain: cannot be set"),
    (spec(activeDeadlineSeconds=5),
     f"{WHERE}.activeDeadlineSeconds: cannot be set in a pod template: give spec.runPolicy"),
    (spec(nodeName="a"), f"{WHERE}.nodeName: cannot be set in a pod template: give nodeSelector or affinity"),
    (spec(containers=[{"name": "proxy", "image": "i"}]), f"{WORKER}: 'proxy' would be a second container"),
    (spec(containers=[{"name": "proxy", "image": "i"}]), "initContainers with restartPolicy Always"),
    (spec(initContainers=[{"name": "pytorch", "image": "i"}]),
     f"{WHERE}.initContainers[0].name: 'pytorch' is the name"),
    (spec(volumes=[{"name": "scratch", "emptyDir": {}}]),
     f"{WHERE}.volumes[0].name: 'scratch' is a volume of the operator"),
    (spec(volumes=[{"name": "claim-0-2", "emptyDir": {}}]), "'claim-0-2' is a volume of the operator"),
    (worker(volumeMounts=[{"name": "x", "mountPath": "/mnt/cosmos/models/"}]), f"{WORKER}.volumeMounts[0].mountPath: "),
    (worker(volumeMounts=[{"name": "x", "mountPath": "/tmp"}]), "'/tmp' would hide /tmp"),
    (worker(volumeMounts=[{"name": "x", "mountPath": "/a/../dev//shm"}]), "'/dev/shm' would hide /dev/shm"),
    (worker(volumeMounts=[{"name": "x", "mountPath": "/"}]), "would hide /etc/cosmos"),
    (worker(volumeMounts=[{"name": "config", "mountPath": "/x"}]), "'config' is a volume of the operator"),
    (env("HOME", value="/x"), f"{WORKER}.env[0]: HOME cannot be given in a pod template: the operator sets it"),
    (env("COSMOS_MODELS", value="/x"), "COSMOS_MODELS cannot be given"),
    (env("MASTER_ADDR", value="x"), "MASTER_ADDR cannot be given"),
    (env("WANDB_API_KEY", value="x"), f"{WORKER}.env[0]: WANDB_API_KEY is a credential; give it from a Secret"),
    (worker(env=[{"$patch": "replace"}]), f"{WORKER}.env[0]: would remove what the operator needs"),
    (worker(env=None), f"{WORKER}.env: null would remove what the operator needs"),
    (worker(volumeMounts=None), f"{WORKER}.volumeMounts: null would remove"),
    (spec(volumes=None), f"{WHERE}.volumes: null would remove"),
    (spec(containers=None), f"{WHERE}.containers: null would remove"),
    (spec(volumes=[{"$patch": "replace"}]), f"{WHERE}.volumes[0].name: would remove"),
    ({"podTemplate": {"spec": {"$patch": "replace"}}}, f"{WHERE}.$patch: would remove"),
    (worker(**{"$patch": "delete"}), f"{WORKER}.$patch: would remove"),
    ({"podTemplate": {"spec": None}}, "spec.podTemplate.spec: null would remove"),
    (worker(resources={"limits": {"nvidia.com/gpu": 2}}),
     "resources.limits[nvidia.com/gpu]: GPUs are given in spec.compute.gpusPerNode"),
    (spec(terminationGracePeriodSeconds=20), f"{WHERE}.terminationGracePeriodSeconds: 20 leaves a training no time"),
    # labels and annotations
    ({"podTemplate": {"metadata": {"labels": {"cosmos.dev/job": "x"}}}},
     "metadata.labels[cosmos.dev/job]: cannot be set"),
    ({"podTemplate": {"metadata": {"labels": {"app.kubernetes.io/managed-by": "x"}}}}, "the operator sets it"),
    ({"podTemplate": {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "x"}}}}, "spec.scheduling.queueName"),
    ({"podTemplate": {"metadata": {"labels": {"job-name": "x"}}}}, "the controller of the workload sets it"),
    ({"podTemplate": {"metadata": {"labels": {"team": "a b"}}}}, "metadata.labels[team]: got 'a b'"),
    ({"podTemplate": {"metadata": {"labels": {"-team": "a"}}}}, "metadata.labels[-team]: is no name for Kubernetes"),
    ({"podTemplate": {"metadata": {"annotations": {"cosmos.dev/x": "a"}}}},
     "metadata.annotations[cosmos.dev/x]: cannot"),
    ({"podTemplate": {"metadata": {"name": "a"}}}, "spec.podTemplate.metadata.name: cannot be set"),
    # shape
    (spec(toleration=[]), f"{WHERE}: unknown field 'toleration'; did you mean 'tolerations'?"),
    (spec(tolerations=[{"kee": "a"}]), f"{WHERE}.tolerations[0]: unknown field 'kee'; did you mean 'key'?"),
    (spec(tolerations={"key": "a"}), "tolerations: is of type dict; give array"),
    (spec(priorityClassName=3), "priorityClassName: is of type int; give string"),
    (spec(volumes=[{"name": "x", "nfs": {"server": "s", "pfad": "/"}}]),
     "volumes[0].nfs: unknown field 'pfad'; did you mean 'path'?"),
    (env("A", value=5), f"{WORKER}.env[0].value: got 5; give a text; quote numbers"),
    (worker(resources={"limits": {"memory": "64GB"}}), "resources.limits[memory]: got '64GB'; give a quantity"),
    (worker(env=[{"value": "b"}]), f"{WORKER}.env[0].name: missing; elements of this list are merged by it"),
    (worker(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
     f"{WORKER}.env[1].name: 'A' is there twice"),
    (spec(tolerations=[{"key": "a", "$patch": "merge"}]), "$patch: got 'merge'; $patch is replace or delete"),
    (spec(tolerations=[{"key": "a", "$patch": "delete"}]), "tolerations[0].$patch: this list is replaced as a whole"),
    (spec(initContainers=[{"name": "a", "$patch": "replace"}]), "$patch: replace stands alone"),
    (spec(**{"$setElementOrder/volumes": []}), "of the directives of a strategic merge only $patch is known"),
    ({"podTemplate": {"status": {}}}, "spec.podTemplate: unknown field 'status'"),
    ({"podTemplate": {"metadata": {"annotations": {"a": "x" * 5000}}}}, "has 5000 elements; at most 4096"),
    (spec(volumes=[{"name": f"v{n}", "emptyDir": {}} for n in range(65)]), "volumes: has 65 elements; at most 64"),
    ({"podTemplate": {"metadata": {"annotations": {f"a{n}": "x" * 4000 for n in range(9)}}}},
     "spec.podTemplate: has more than 32768 characters"),
    (spec(affinity=nested(40)), "spec.podTemplate: is deeper than 32 levels"),
    (spec(affinity=nested(5000)), "spec.podTemplate: is deeper than 32 levels"),
    (spec(affinity=repeated(28)), "spec.podTemplate: has more than 32768 characters"),
    ({"podTemplate": {"metadata": {"labels": {1: "x"}}}}, "spec.podTemplate.metadata.labels: the name 1 is no text"),
    (spec(volumes=["x"]), "volumes[0]: is of type str; give object"),
    (worker(env=["A"]), f"{WORKER}.env[0]: got 'A'; give the fields of EnvVar"),
    # places
    ({"stages.train.podTemplate": {"spec": {"hostname": "a"}}},
     "spec.stages.train.podTemplate.spec.hostname: cannot be set"),
    ({"stages.fetchModel.podTemplate": {"spec": {"hostname": "a"}}},
     "spec.stages.fetchModel.podTemplate.spec.hostname: "),
    ({"inference.1.podTemplate": {"spec": {"hostname": "a"}}},
     "spec.inference[1].podTemplate.spec.hostname: cannot be set"),
    ({"stages.training": {}}, "spec.stages: unknown field 'training'; did you mean 'train'?"),
    ({"compute.preparation.resources": {}},
     "spec.compute.preparation.resources: this field is now spec.stages.*.podTemplate.spec"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "problem"), REFUSED, ids=[text for _, text in REFUSED])
def test_refused(changes: Json, problem: str) -> None:
    assert problem in problems(changes)


ACCEPTED: list[Json] = [
    worker(env=[{"name": "WANDB_API_KEY", "valueFrom": FROM_SECRET}, {"name": "OMP_NUM_THREADS", "value": "4"}]),
    worker(env=[{"name": "A", "$patch": "delete"}]),
    worker(volumeMounts=[{"name": "nfs", "mountPath": "/data"}, {"name": "nfs", "mountPath": "/tmp/x"}]),
    spec(volumes=[{"name": "nfs", "nfs": {"server": "s", "path": "/"}}], serviceAccountName="bucket"),
    spec(initContainers=[{"name": "proxy", "image": "p", "restartPolicy": "Always", "ports": [{"containerPort": 80}]}]),
    spec(securityContext={"runAsUser": None, "fsGroup": None}, priorityClassName=None),
    spec(tolerations=[], nodeSelector={"a": None}),
    spec(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "t"}]),
    worker(resources={"claims": [{"name": "gpu"}], "requests": {"cpu": 4, "memory": "1.5Gi"}}),
    {"podTemplate": {"metadata": {"labels": {"app.kubernetes.io/instance": "a", "cost-center": "4711"}}}},
    {"stages.fetchModel.podTemplate": {"spec": {"terminationGracePeriodSeconds": 5}}},
    {"podTemplate": {}},
    {"stages": {}},
]  # fmt: skip


@pytest.mark.parametrize("changes", ACCEPTED, ids=str)
def test_accepted(changes: Json) -> None:
    assert problems(changes) == ""


def test_labels_may_be_empty() -> None:
    assert problems({}, labels=None, annotations=None) == ""


def test_two_queues_are_refused() -> None:
    queue = {"scheduling": {"queueName": "a"}}
    label = {"kueue.x-k8s.io/queue-name": "b"}

    assert problems(queue, labels={"kueue.x-k8s.io/queue-name": "a"}) == ""
    assert problems({}, labels=label) == ""
    assert problems(queue, labels=label).startswith(
        "spec.scheduling.queueName: 'a' is not the queue of the label kueue.x-k8s.io/queue-name, 'b'"
    )


RECIPES = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_of_the_page_is_accepted(recipe: str) -> None:
    document = yaml.safe_load(recipe)
    if "jobs" in document:
        config_map = find_one(render(document), "ConfigMap", "cosmos-operator")
        Settings.model_validate(yaml.safe_load(config_map["data"]["settings.yaml"]))
        return
    job = make_document(document.get("spec"))
    job["metadata"] |= document.get("metadata", {})

    parse_job(job)


def test_every_kind_of_stage_has_a_template() -> None:
    assert set(StagesSpec.model_fields) == {kind.replace("-", "_") for kind in STAGE_CONFIGS}
