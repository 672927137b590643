"""Objects that each switch of the chart adds; all switches but that of the PodDisruptionBudget are off by default."""

import pytest
import yaml
from helm_python import HelmRenderError
from support.helm_chart import NAMESPACE, find, find_one, is_test, render

from cosmos_operator.api.labels import STAGE_LABEL
from cosmos_operator.api.parse import parse_job
from cosmos_operator.plan import trainjob
from cosmos_operator.plan.pod import FETCHING

SWITCHES = {
    "image.list": {"ConfigMap"},
    "networkPolicy.operator": {"NetworkPolicy"},
    "networkPolicy.workers": {"NetworkPolicy"},
    "metrics.serviceMonitor.create": {"Service", "ServiceMonitor"},
    "metrics.podMonitor.create": {"PodMonitor"},
    "metrics.prometheusRule.create": {"PrometheusRule"},
    "metrics.dashboard.create": {"ConfigMap"},
    "viewer.enabled": {"Deployment", "Service", "NetworkPolicy"},
    "trainer.runtime.create": {"ClusterTrainingRuntime"},
    "tests.smoke.enabled": {"Pod"},
}


def identities(manifests):
    return {(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests}


@pytest.mark.parametrize("switch", SWITCHES)
def test_switch_adds_its_objects(switch):
    added = identities(render({switch: True})) - identities(render())

    assert {kind for kind, _, _ in added} == SWITCHES[switch]
    assert identities(render({switch: False})) == identities(render())


def claims(**values):
    values = {f"storage.claim.{name}": value for name, value in values.items()}
    return find(render({"storage.claim.create": True} | values), "PersistentVolumeClaim")


def test_no_claim_is_made_where_that_is_switched_off():
    assert find(render({"storage.claim.create": False}), "PersistentVolumeClaim") == []


def test_claim():
    (claim,) = claims(size="2Ti", storageClassName="nfs", annotations={"backup": "daily"})

    assert (claim["metadata"]["name"], claim["metadata"]["namespace"]) == ("cosmos", NAMESPACE)
    assert claim["metadata"]["annotations"] == {
        "helm.sh/resource-policy": "keep",
        "backup": "daily",
    }
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "2Ti"}},
        "storageClassName": "nfs",
    }


def test_claim_of_the_default_storage_class_names_none():
    assert "storageClassName" not in claims()[0]["spec"]


def test_claim_of_an_existing_volume_asks_no_storage_class():
    (claim,) = claims(volumeName="exported", namespaces=["team"])

    assert (claim["spec"]["volumeName"], claim["spec"]["storageClassName"]) == ("exported", "")
    assert claim["metadata"]["namespace"] == "team"


def test_claims_follow_the_watched_namespaces():
    manifests = render({"storage.claim.create": True, "watchNamespaces": ["a", "b"]})
    found = find(manifests, "PersistentVolumeClaim")

    assert [claim["metadata"]["namespace"] for claim in found] == ["a", "b"]


def test_one_volume_for_several_claims_is_refused():
    message = "volumeName: one claim only can bind pv, got the namespaces a, b; name one in storage"

    with pytest.raises(HelmRenderError, match=message):
        claims(volumeName="pv", namespaces=["a", "b"])


def test_network_policy_of_the_operator():
    manifests = render({"networkPolicy.operator": True, "networkPolicy.apiServerPorts": [6443]})
    policy = find_one(manifests, "NetworkPolicy", "cosmos-operator")["spec"]
    deployment = find_one(manifests, "Deployment")["spec"]
    dns, api_server = policy["egress"]

    assert policy["podSelector"]["matchLabels"] == deployment["selector"]["matchLabels"]
    assert [port["port"] for port in policy["ingress"][0]["ports"]] == ["health", "metrics"]
    assert {port["port"] for port in dns["ports"]} == {53, 5353}
    assert api_server == {"ports": [{"protocol": "TCP", "port": 6443}]}


@pytest.mark.parametrize(("values", "stages"), [
    ({}, list(FETCHING)),
    ({"secrets.wandb.existingSecret": "wandb"}, [*FETCHING, "train"]),
    ({"secrets.mlflow.existingSecret": "mlflow"}, [*FETCHING, "train"]),
])  # fmt: skip
def test_network_policies_of_the_workers(values, stages):
    manifests = render({"networkPolicy.workers": True, "watchNamespaces": ["a", "b"]} | values)
    inner = find(manifests, "NetworkPolicy", "cosmos-workers")
    outer = find(manifests, "NetworkPolicy", "cosmos-workers-fetch")
    workers = {"matchLabels": {"app.kubernetes.io/managed-by": "cosmos"}}
    peers = [{"podSelector": workers}]

    for policies in (inner, outer):
        assert [policy["metadata"]["namespace"] for policy in policies] == ["a", "b"]
    assert inner[0]["spec"]["podSelector"] == workers
    assert inner[0]["spec"]["ingress"] == [{"from": peers}]
    assert inner[0]["spec"]["egress"][0] == {"to": peers}
    (expression,) = outer[0]["spec"]["podSelector"]["matchExpressions"]
    assert (expression["key"], expression["values"]) == (STAGE_LABEL, stages)
    assert outer[0]["spec"]["egress"] == [{"ports": [{"protocol": "TCP", "port": 443}]}]


@pytest.mark.parametrize("kind", ["ServiceMonitor", "PodMonitor"])
def test_monitor_finds_the_metrics(kind):
    name = kind[0].lower() + kind[1:]
    manifests = render({
        f"metrics.{name}.create": True, f"metrics.{name}.labels": {"release": "prometheus"},
        f"metrics.{name}.interval": "10s",
    })  # fmt: skip
    monitor = find_one(manifests, kind)
    endpoints = "endpoints" if kind == "ServiceMonitor" else "podMetricsEndpoints"
    deployment = find_one(manifests, "Deployment")
    target = find_one(manifests, "Service") if kind == "ServiceMonitor" else deployment
    labels = target["metadata"]["labels"]

    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert monitor["spec"][endpoints] == [{"port": "metrics", "interval": "10s"}]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_runtime_of_trainer_is_what_the_operator_patches():
    runtime = find_one(render({"trainer.runtime.create": True}), "ClusterTrainingRuntime")
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]

    assert runtime["metadata"]["name"] == trainjob.RUNTIME
    assert node["name"] == pod["containers"][0]["name"] == trainjob.CONTAINER
    assert node["template"]["metadata"]["labels"] == {
        "trainer.kubeflow.org/trainjob-ancestor-step": "trainer"
    }
    assert pod["automountServiceAccountToken"] is False


@pytest.mark.parametrize("watched", [[], ["team"]])
def test_job_of_helm_test_is_valid_and_may_be_made(watched):
    manifests = [
        m
        for m in render({"watchNamespaces": watched, "tests.smoke.enabled": True})
        if is_test(m)
    ]  # fmt: skip
    (config_map,) = (m for m in manifests if m["kind"] == "ConfigMap")
    (role,) = (m for m in manifests if m["kind"] == "Role")
    pods = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "Pod"}
    arguments = pods["cosmos-test-smoke"]["containers"][0]["args"]
    job = parse_job(yaml.safe_load(config_map["data"]["job.yaml"]))
    namespace = watched[0] if watched else NAMESPACE

    assert job.spec.model.source.path.startswith("/opt/cosmos/examples/pushing/")
    assert job.spec.storage.checkpoints.claim_name == "cosmos"
    assert role["metadata"]["namespace"] == namespace
    assert arguments[:4] == ["--job", "/etc/cosmos/job.yaml", "--namespace", namespace]
    assert arguments[4:] == ["--timeout-seconds", "1800"]
    assert set(pods) == {f"cosmos-test-{name}" for name in ("access", "dry-run", "smoke")}


def test_helm_test_makes_nothing_unless_asked():
    (role,) = (m for m in render() if m["kind"] == "Role" and is_test(m))

    assert role["rules"] == [
        {"apiGroups": ["cosmos.dev"], "resources": ["posttrainingjobs"], "verbs": ["create"]}
    ]


def test_viewer_reads_one_claim_and_has_no_rights():
    manifests = render({
        "viewer.enabled": True, "viewer.namespaces": ["a", "b"], "viewer.hosts": ["cosmos.example.com"],
        "viewer.from": [{"podSelector": {"matchLabels": {"app": "login"}}}], "storage.claim.name": "shared",
    })  # fmt: skip
    deployments = find(manifests, "Deployment", "cosmos-viewer")
    service = find(manifests, "Service", "cosmos-viewer")[0]["spec"]
    policy = find(manifests, "NetworkPolicy", "cosmos-viewer")[0]["spec"]
    spec = deployments[0]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    subjects = [one for m in manifests for one in m.get("subjects", ())]

    assert [one["metadata"]["namespace"] for one in deployments] == ["a", "b"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    assert not [one for one in subjects if one["namespace"] != NAMESPACE]
    assert spec["volumes"][0]["persistentVolumeClaim"] == {"claimName": "shared", "readOnly": True}
    assert container["volumeMounts"][0] == {
        "name": "claim",
        "mountPath": "/mnt/cosmos",
        "readOnly": True,
    }
    assert "--allow-host=cosmos.example.com" in container["args"]
    assert service["type"] == "ClusterIP"
    assert service["selector"] == policy["podSelector"]["matchLabels"]
    assert (
        service["selector"].items()
        <= deployments[0]["spec"]["template"]["metadata"]["labels"].items()
    )
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert "egress" not in policy
    assert policy["ingress"][0]["from"] == [{"podSelector": {"matchLabels": {"app": "login"}}}]


def test_nobody_but_the_node_reaches_the_viewer_unless_named():
    policy = find_one(render({"viewer.enabled": True}), "NetworkPolicy")["spec"]

    assert "ingress" not in policy
