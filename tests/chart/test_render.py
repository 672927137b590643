"""Every combination of switches renders objects that an API server would take."""

import itertools
import json

import kubernetes_validate
import pytest
import yaml
from helm_python import lint
from support.helm_chart import (
    CHART,
    NAMESPACE,
    find,
    find_one,
    is_test,
    load_chart,
    render,
    render_texts,
)
from support.pod_security import violations

from cosmos_operator.plan.pod import TRAIN_GRACE_SECONDS

CLUSTER_KINDS = {
    "ClusterRole", "ClusterRoleBinding", "ClusterTrainingRuntime", "CustomResourceDefinition",
}  # fmt: skip
EVERYTHING = {
    "image.list": True,
    "storage.claim.create": True,
    "networkPolicy.operator": True,
    "networkPolicy.workers": True,
    "networkPolicy.apiServerCIDRs": ["10.0.0.1/32"],
    "metrics.serviceMonitor.create": True,
    "metrics.podMonitor.create": True,
    "metrics.prometheusRule.create": True,
    "metrics.dashboard.create": True,
    "metrics.dashboard.annotations": {"grafana_folder": "Training"},
    "trainer.runtime.create": True,
    "viewer.enabled": True,
    "tests.smoke.enabled": True,
}
DECORATED = {
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount.annotations": {"example.com/a": "b"},
    "operator.nodeSelector": {"pool": "system"},
    "operator.tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
    "operator.affinity": {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "zone", "labelSelector": {"matchLabels": {"a": "b"}}}
            ]
        }
    },
    "operator.priorityClassName": "system-cluster-critical",
    "operator.podLabels": {"team": "video"},
    "operator.podAnnotations": {"prometheus.io/scrape": "true"},
    "operator.extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "storage.claim.annotations": {"example.com/backup": "daily"},
    "storage.claim.volumeName": "nfs",
    "secrets.wandb.existingSecret": "wandb",
}
CASES = {
    "default": {},
    "everything": EVERYTHING,
    "decorated": DECORATED | EVERYTHING,
    "nothing": {
        "rbac.create": False,
        "rbac.aggregate": False,
        "serviceAccount.create": False,
    },
}
SCOPES = {
    "cluster": {},
    "cluster, two namespaces": {"watchNamespaces": ["a", "b"]},
    "own namespace": {"rbac.scope": "Namespaced"},
    "one namespace": {"rbac.scope": "Namespaced", "watchNamespaces": ["a"]},
}
NO_CRD = {"crds.install": False}  # it is long, and the same everywhere
MATRIX = [
    pytest.param(values | scope | NO_CRD, id=f"{name}, {where}")
    for (name, values), (where, scope) in itertools.product(CASES.items(), SCOPES.items())
    if "storage.claim.volumeName" not in values or len(scope.get("watchNamespaces", ())) < 2
]


def check(manifests, version):
    for manifest in manifests:
        try:
            kubernetes_validate.validate(manifest, version, strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            assert "." in manifest["apiVersion"].partition("/")[0]  # a custom resource


@pytest.mark.parametrize("values", MATRIX)
def test_objects_are_valid(values):
    check(render(values), "1.36.0")


def test_objects_are_valid_in_the_oldest_kubernetes_that_the_chart_admits():
    assert load_chart().metadata["kubeVersion"] == ">=1.29.0-0"
    check(render(DECORATED | EVERYTHING), "1.29.0")


@pytest.mark.parametrize("values", MATRIX)
def test_objects_have_a_place_and_the_labels(values):
    manifests = render(values)
    places = [(m["kind"], m["metadata"].get("namespace"), m["metadata"]["name"]) for m in manifests]

    assert len(set(places)) == len(places)
    for manifest in manifests:
        assert ("namespace" in manifest["metadata"]) != (manifest["kind"] in CLUSTER_KINDS)
        assert manifest["metadata"]["labels"]["app.kubernetes.io/part-of"] == "cosmos"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


@pytest.mark.parametrize("values", MATRIX)
def test_all_pods_satisfy_pod_security_restricted(values):
    manifests = render(values)
    pods = [m["spec"] for m in manifests if m["kind"] == "Pod"]
    pods += [m["spec"]["template"]["spec"] for m in find(manifests, "Deployment")]
    for runtime in find(manifests, "ClusterTrainingRuntime"):
        (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        pods.append(node["template"]["spec"]["template"]["spec"])

    assert len(pods) >= 3
    for pod in pods:
        assert violations(pod) == []
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_runtime_of_trainjobs_gives_pods_the_time_to_save():
    """The runtime sets the grace: a TrainJob's own is lost if a client that knows only Trainer 2.2 rewrites the job."""
    (runtime,) = find(render(EVERYTHING), "ClusterTrainingRuntime")
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] == TRAIN_GRACE_SECONDS


def test_objects_of_a_long_release_have_names_that_fit():
    for manifest in render(EVERYTHING, release="r" * 53):
        assert len(manifest["metadata"]["name"]) <= 63


def test_second_release_shares_no_name_but_that_of_the_crd_the_claim_and_the_runtime():
    shared = {m["metadata"]["name"] for m in render(EVERYTHING)} & {
        m["metadata"]["name"] for m in render(EVERYTHING, release="other")
    }

    assert shared == {
        "posttrainingjobs.cosmos.dev", "inferencejobs.cosmos.dev", "cosmos", "cosmos-torch",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("posttrainingjobs.cosmos.dev", "crd.yaml"),
        ("inferencejobs.cosmos.dev", "crd-inferencejob.yaml"),
    ],
)
def test_crds_are_the_generated_ones_with_the_labels_of_the_release(name, file):
    crds = find(render(), "CustomResourceDefinition")
    crd = next(one for one in crds if one["metadata"]["name"] == name)
    expected = yaml.safe_load((CHART / "files" / file).read_text(encoding="utf-8"))

    assert crd["spec"] == expected["spec"]
    assert crd["metadata"]["name"] == expected["metadata"]["name"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert expected["metadata"]["labels"].items() <= crd["metadata"]["labels"].items()


@pytest.mark.parametrize(("values", "count", "kept"), [
    ({}, 2, True),
    ({"crds.keep": False}, 2, False),
    ({"crds.install": False}, 0, False),
])  # fmt: skip
def test_crd_switches(values, count, kept):
    crds = find(render(values), "CustomResourceDefinition")

    assert len(crds) == count
    assert any("annotations" in crd["metadata"] for crd in crds) == kept


def test_hooks_are_those_of_helm_test_only():
    hooks = {m["metadata"]["annotations"]["helm.sh/hook"] for m in render() if is_test(m)}

    assert hooks == {"test"}


def test_lint_finds_nothing():
    report = lint(CHART, strict=True, namespace=NAMESPACE)
    findings = [m["error"] for m in report["messages"] if m["severity"] > 1]

    assert report["errors"] == []
    assert findings == []


def test_dashboard_and_alerts_ask_for_metrics_that_the_operator_has():
    texts = render_texts(EVERYTHING)
    dashboard = find_one(render(EVERYTHING), "ConfigMap", "cosmos-dashboard")
    panels = json.loads(dashboard["data"]["cosmos.json"])["panels"]
    rule = yaml.safe_load(texts["cosmos/templates/metrics/rules.yaml"])
    alerts = [alert["expr"] for group in rule["spec"]["groups"] for alert in group["rules"]]
    expressions = alerts + [target["expr"] for panel in panels for target in panel["targets"]]
    words = {
        word
        for expression in expressions
        for word in expression.replace("(", " ").replace("{", " ").split()
        if word.startswith("cosmos_")
    }

    assert words == {
        "cosmos_attempts_total",
        "cosmos_jobs",
        "cosmos_leader",
        "cosmos_other_installations",
        "cosmos_queue_depth",
        "cosmos_reconcile_errors_total",
        "cosmos_reconcile_seconds_bucket",
        "cosmos_reconcile_seconds_count",
        "cosmos_watch_lag_seconds",
    }
