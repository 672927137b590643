"""The settings file that the chart writes, the images, and the operator's pod."""

import pytest
import yaml
from support.helm_chart import NAMESPACE, find_one, nested, render

from cosmos_operator.controller.manager import build_parser
from cosmos_operator.settings import Settings

DIGEST = "sha256:" + "0123456789abcdef" * 4


def read_settings(changes=None, **options):
    config_map = find_one(render(changes, **options), "ConfigMap", "cosmos-operator")
    return Settings.model_validate(yaml.safe_load(config_map["data"]["settings.yaml"]))


def operator_pod(changes=None):
    return find_one(render(changes), "Deployment")["spec"]["template"]


def images(changes=None):
    """Operator, worker, worker for the CPU."""
    settings = read_settings(changes)
    (container,) = operator_pod(changes)["spec"]["containers"]
    return container["image"], settings.worker_image, settings.worker_cpu_image


def test_file_states_every_setting():
    config_map = find_one(render(), "ConfigMap", "cosmos-operator")
    document = yaml.safe_load(config_map["data"]["settings.yaml"])

    assert set(document) == set(Settings().model_dump(by_alias=True))


def test_default_settings():
    settings = read_settings()

    assert settings.lease.name == "cosmos-operator"
    assert settings.lease.namespace == NAMESPACE
    assert settings.can_list_nodes
    assert settings.watch_namespaces == ()
    assert settings.image_pull_secrets == ()
    assert settings.pod_annotations["karpenter.sh/do-not-disrupt"] == "true"
    assert settings.hugging_face_secret.name == ""


def test_pod_templates_of_jobs_reach_the_settings():
    settings = read_settings({
        "jobs.podTemplate": {
            "metadata": {"labels": {"cost-center": "4711"}},
            "spec": {"tolerations": [{"key": "spot", "operator": "Exists"}]},
        },
        "jobs.allow": {"images": ["registry.example.com/*"], "hostAccess": True},
    })  # fmt: skip

    assert settings.pod_template == {
        "metadata": {"labels": {"cost-center": "4711"}},
        "spec": {"tolerations": [{"key": "spot", "operator": "Exists"}]},
    }
    assert settings.allow.images == ("registry.example.com/*",)
    assert (settings.allow.fields, settings.allow.host_access) == (("*",), True)


def test_default_pod_security_is_that_of_the_operator():
    assert read_settings().pod_security_context == Settings().pod_security_context


def test_null_leaves_user_and_group_to_openshift():
    names = ("runAsUser", "runAsGroup", "fsGroup")
    settings = read_settings({f"jobs.podSecurityContext.{name}": None for name in names})

    assert settings.pod_security_context == {
        "runAsNonRoot": True,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_values_of_an_earlier_chart_keep_the_defaults():
    """What ``helm upgrade --reuse-values`` leaves: the values that this chart has added are missing."""
    absent = {f"jobs.{name}": None for name in ("podTemplate", "podSecurityContext", "allow")}
    settings = read_settings(absent)

    assert settings.pod_security_context == Settings().pod_security_context
    assert (settings.allow, settings.pod_template) == (Settings().allow, {})


def test_values_reach_the_settings():
    settings = read_settings({
        "image.pullPolicy": "Always",
        "imagePullSecrets": [{"name": "one"}, {"name": "two"}],
        "jobs.podAnnotations": {"a": "1", "karpenter.sh/do-not-disrupt": None},
        "jobs.env": {"NCCL_IB_GID_INDEX": "3", "COSMOS_RENDEZVOUS_SECONDS": "1200"},
        "hub.endpoint": "https://hub.example.com",
        "secrets.huggingFace": {"existingSecret": "hf", "key": "hub"},
        "secrets.wandb": {"existingSecret": "wb"},
        "secrets.mlflow": {"existingSecret": "ml", "key": "uri"},
        "secrets.s3.existingSecret": "store",
        "operator.timing.pollSeconds": 0.5,
        "operator.queueWorkers": 7,
        "operator.healthPort": 9000,
        "operator.metricsPort": 9001,
    })  # fmt: skip

    assert settings.image_pull_policy == "Always"
    assert settings.image_pull_secrets == ("one", "two")
    assert set(settings.pod_annotations) == {"a", "cluster-autoscaler.kubernetes.io/safe-to-evict"}
    assert settings.pod_environment == {
        "NCCL_IB_GID_INDEX": "3",
        "COSMOS_RENDEZVOUS_SECONDS": "1200",
    }
    assert settings.hub_endpoint == "https://hub.example.com"
    assert (settings.hugging_face_secret.name, settings.hugging_face_secret.key) == ("hf", "hub")
    assert (settings.wandb_secret.name, settings.wandb_secret.key) == ("wb", "api-key")
    assert (settings.mlflow_secret.name, settings.mlflow_secret.key) == ("ml", "uri")
    assert settings.s3_secret.name == "store"
    assert settings.queue_workers == 7
    assert (settings.poll_seconds, settings.health_port, settings.metrics_port) == (0.5, 9000, 9001)


@pytest.mark.parametrize(("values", "watched", "nodes"), [
    ({"watchNamespaces": ["a", "b", "a"]}, ("a", "b"), True),
    ({"rbac.scope": "Namespaced"}, (NAMESPACE,), False),
    ({"rbac.scope": "Namespaced", "watchNamespaces": ["a"]}, ("a",), False),
])  # fmt: skip
def test_scope_reaches_the_settings(values, watched, nodes):
    settings = read_settings(values)

    assert (settings.watch_namespaces, settings.can_list_nodes) == (watched, nodes)


@pytest.mark.parametrize(("values", "expected"), [
    ({}, ("cosmos-operator:0.1.0", "cosmos-worker:0.1.0", "cosmos-worker-cpu:0.1.0")),
    (
        {"global.imageRegistry": "mirror.example.com/x/", "image.worker.registry": "other"},
        tuple(
            f"mirror.example.com/x/cosmos-{name}:0.1.0"
            for name in ("operator", "worker", "worker-cpu")
        ),
    ),
    (
        {
            "image.operator": {"registry": "r:5000", "tag": "next"},
            "image.worker": {"repository": "a/b", "tag": "1", "digest": DIGEST},
            "image.workerCpu.repository": "",
        },
        ("r:5000/cosmos-operator:next", f"a/b@{DIGEST}", ""),
    ),
])  # fmt: skip
def test_images(values, expected):
    assert images(values) == expected


def image_fields(value):
    if isinstance(value, dict):
        yield from (inner for name, inner in value.items() if name == "image")
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from image_fields(inner)


def test_no_image_escapes_the_registry_of_a_mirror():
    switches = {"trainer.runtime.create": True, "tests.smoke.enabled": True, "image.list": True}
    manifests = render({"global.imageRegistry": "mirror"} | switches)
    manifests = [m for m in manifests if m["kind"] != "CustomResourceDefinition"]
    listed = find_one(manifests, "ConfigMap", "cosmos-images")["data"]["images.txt"].split()

    assert listed == [
        "mirror/cosmos-operator:0.1.0",
        "mirror/cosmos-worker:0.1.0",
        "mirror/cosmos-worker-cpu:0.1.0",
    ]
    assert len(list(image_fields(manifests))) == 5  # Deployment, runtime, three tests
    assert set(image_fields(manifests)) <= set(listed)


def test_operator_pod():
    deployment = find_one(render(), "Deployment")["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]

    assert deployment["strategy"]["type"] == "RollingUpdate"
    assert container["command"] == ["cosmos-operator", "--settings", "/etc/cosmos/settings.yaml"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {
        "health": 8080,
        "metrics": 8081,
    }
    assert pod["serviceAccountName"] == "cosmos-operator"


def test_log_level_and_format_are_those_of_the_values():
    def arguments(changes=None):
        (container,) = operator_pod(changes)["spec"]["containers"]
        return build_parser().parse_args([*container["command"][1:], *container["args"]])

    assert (arguments().log_level, arguments().log_format) == ("info", "text")
    chosen = arguments({"operator.logLevel": "debug", "operator.logFormat": "json"})
    assert (chosen.log_level, chosen.log_format) == ("debug", "json")


def test_change_of_settings_restarts_the_operator():
    def checksum(changes=None):
        return operator_pod(changes)["metadata"]["annotations"]["checksum/settings"]

    assert checksum() == checksum({"operator.podLabels": {"a": "b"}})
    assert checksum() != checksum({"hub.endpoint": "https://hub.example.com"})


def test_selector_is_not_what_values_change():
    values = {"operator.podLabels": {"app.kubernetes.io/component": "x", "team": "y"}}
    deployment = find_one(render(values), "Deployment")["spec"]

    assert (
        deployment["selector"]["matchLabels"].items()
        <= deployment["template"]["metadata"]["labels"].items()
    )
    assert deployment["template"]["metadata"]["labels"]["team"] == "y"


def test_nested_values():
    assert nested({"a.b": 1, "a.c": 2}) == {"a": {"b": 1, "c": 2}}
