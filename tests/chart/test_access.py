"""RBAC rules of the chart: the operator and its users get exactly the permissions that they need."""

import pytest
from support.helm_chart import NAMESPACE, find, find_one, render

NAMESPACED = {
    "posttrainingjobs.cosmos.dev": "get list watch delete",
    "inferencejobs.cosmos.dev": "get list watch delete",
    "posttrainingjobs/status.cosmos.dev": "patch",
    "inferencejobs/status.cosmos.dev": "patch",
    "posttrainingjobs/finalizers.cosmos.dev": "update",
    "inferencejobs/finalizers.cosmos.dev": "update",
    "jobs.batch": "get list watch create delete patch",
    "pytorchjobs.kubeflow.org": "get list watch create delete patch",
    "trainjobs.trainer.kubeflow.org": "get list watch create delete patch",
    "trainjobs/status.trainer.kubeflow.org": "patch",
    "trainingruntimes.trainer.kubeflow.org": "create",
    "configmaps": "get list watch create delete patch",
    "services": "get list watch create delete",
    "persistentvolumeclaims": "get list watch create",
    "pods": "list watch delete",
    "pods/log": "get",
    "events": "list create",
    "localqueues.kueue.x-k8s.io": "list watch",
    "workloads.kueue.x-k8s.io": "list watch",
}
CLUSTER = {
    "nodes": "list",
    "storageclasses.storage.k8s.io": "get",
    "leases.coordination.k8s.io": "list",
}
SCOPES = [
    {},
    {"watchNamespaces": ["a", "b"]},
    {"rbac.scope": "Namespaced"},
    {"rbac.scope": "Namespaced", "watchNamespaces": ["a", "b"]},
]


def granted(role):
    """Resource.group → verbs of a role."""
    return {
        ".".join(filter(None, (resource, group))): " ".join(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


def bindings(manifests):
    """(Kind, namespace, name) of each role that a binding gives to the operator."""
    subject = {"kind": "ServiceAccount", "name": "cosmos-operator", "namespace": NAMESPACE}
    return [
        (
            binding["roleRef"]["kind"],
            binding["metadata"].get("namespace"),
            binding["roleRef"]["name"],
        )
        for binding in [*find(manifests, "RoleBinding"), *find(manifests, "ClusterRoleBinding")]
        if binding["subjects"] == [subject]
    ]


def roles(manifests):
    """(Kind, namespace, name) → verbs of each of the operator's roles."""
    return {
        (role["kind"], role["metadata"].get("namespace"), role["metadata"]["name"]): granted(role)
        for role in [*find(manifests, "Role"), *find(manifests, "ClusterRole")]
        if "posttrainingjobs" not in role["metadata"]["name"]
    }


def test_operator_in_all_namespaces():
    assert roles(render())["ClusterRole", None, "cosmos-operator"] == NAMESPACED | CLUSTER


def test_operator_in_some_namespaces_reads_nothing_else_but_nodes_and_storage_classes():
    found = roles(render({"watchNamespaces": ["a", "b"]}))

    assert found["ClusterRole", None, "cosmos-operator"] == CLUSTER
    assert found["Role", "a", "cosmos-operator"] == found["Role", "b", "cosmos-operator"]
    assert found["Role", "a", "cosmos-operator"] == NAMESPACED


@pytest.mark.parametrize(("watched", "namespaces"), [([], [NAMESPACE]), (["a", "b"], ["a", "b"])])
def test_namespaced_operator_has_no_cluster_role(watched, namespaces):
    manifests = render({"rbac.scope": "Namespaced", "watchNamespaces": watched})
    cluster_roles = find(manifests, "ClusterRole")

    assert all("aggregate-to-admin" in str(role["metadata"]["labels"]) for role in cluster_roles)
    assert find(manifests, "ClusterRoleBinding") == []
    for namespace in namespaces:
        assert roles(manifests)["Role", namespace, "cosmos-operator"] == NAMESPACED


@pytest.mark.parametrize("values", SCOPES)
def test_every_role_is_bound_once(values):
    manifests = render(values)

    assert sorted(bindings(manifests), key=str) == sorted(roles(manifests), key=str)


@pytest.mark.parametrize("values", SCOPES)
def test_lease_is_the_operators_own(values):
    role = find_one(render(values), "Role", "cosmos-operator-lease")
    create, rest = role["rules"]

    assert role["metadata"]["namespace"] == NAMESPACE
    assert create["verbs"] == ["create", "list"]
    assert rest["resourceNames"] == ["cosmos-operator"]
    assert rest["resources"] == ["leases"]
    assert rest["verbs"] == ["get", "update"]


def test_operator_may_delete_what_it_gives_further_owners():
    """The admission plugin OwnerReferencesPermissionEnforcement asks for it, and for the owner's finalizers."""
    verbs = roles(render())["ClusterRole", None, "cosmos-operator"]

    for shared in ("jobs.batch", "configmaps"):
        assert {"patch", "delete"} <= {*verbs[shared].split()}
    assert verbs["posttrainingjobs/finalizers.cosmos.dev"] == "update"


@pytest.mark.parametrize("values", SCOPES)
def test_no_role_reaches_secrets_or_roles_or_everything(values):
    found = render(values | {"tests.smoke.enabled": True})
    rules = [rule for m in found if m["kind"] in ("Role", "ClusterRole") for rule in m["rules"]]

    assert rules
    for rule in rules:
        words = {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert not words & {
            "*", "secrets", "serviceaccounts", "serviceaccounts/token", "pods/exec",
            "rbac.authorization.k8s.io", "escalate", "bind", "impersonate",
        }  # fmt: skip


def test_users_of_a_namespace_may_view_or_edit_its_jobs():
    manifests = render()
    view = find_one(manifests, "ClusterRole", "cosmos-posttrainingjobs-view")
    edit = find_one(manifests, "ClusterRole", "cosmos-posttrainingjobs-edit")

    def aggregated(role):
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        labels = role["metadata"]["labels"]
        return {label.removeprefix(prefix) for label in labels if label.startswith(prefix)}

    assert aggregated(view) == {"view", "edit", "admin"}
    assert aggregated(edit) == {"edit", "admin"}
    assert granted(view)["posttrainingjobs.cosmos.dev"] == "get list watch"
    assert granted(view)["inferencejobs.cosmos.dev"] == "get list watch"
    assert granted(edit) == {
        f"{plural}.cosmos.dev": "create update patch delete deletecollection"
        for plural in ("posttrainingjobs", "inferencejobs")
    }
    assert find(render({"rbac.aggregate": False}), "ClusterRole", view["metadata"]["name"]) == []


def test_own_account_and_roles():
    manifests = render({
        "rbac.create": False, "serviceAccount.create": False, "serviceAccount.name": "mine",
    })  # fmt: skip
    pod = find_one(manifests, "Deployment")["spec"]["template"]["spec"]

    assert pod["serviceAccountName"] == "mine"
    assert find(manifests, "ServiceAccount") == find(manifests, "Role") == bindings(manifests) == []
