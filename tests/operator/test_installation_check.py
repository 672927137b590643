from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.jobs import make_document

from cosmos_operator import installation_check
from cosmos_operator.errors import Refused
from cosmos_operator.installation_check import (
    CLUSTER_NEEDS,
    JOB_NEEDS,
    Access,
    main,
    needed_access,
)
from cosmos_operator.settings import Settings

RULES = Path(__file__).parents[2] / "charts/cosmos/templates/rbac/_rules.tpl"


class Cluster:
    """Answers of an API server to the three tests."""

    def __init__(self) -> None:
        self.denied: set[tuple[str, str]] = set()
        self.asked: list[dict[str, str]] = []
        self.refusal: Refused | None = None
        self.statuses: list[dict[str, Any] | None] = []
        self.exists = False
        self.created: list[dict[str, Any]] = []
        self.deleted: list[str] = []

    async def may(self, attributes: dict[str, str]) -> bool:
        self.asked.append(attributes)
        return (attributes["resource"], attributes["verb"]) not in self.denied

    async def dry_run(self, manifest: dict[str, Any]) -> dict[str, Any]:
        if self.refusal:
            raise self.refusal
        self.created.append(manifest)
        return manifest

    async def create(self, manifest: dict[str, Any]) -> dict[str, Any] | None:
        self.created.append(manifest)
        return None if self.exists else manifest

    async def get(self, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return None if status is None else {"metadata": {"uid": "u"}, "status": status}

    async def delete(
        self, kind: str, namespace: str, name: str, uid: str, *, foreground: bool
    ) -> None:
        self.deleted.append(f"{kind} {namespace}/{name} {uid}")

    async def close(self) -> None:
        pass


@pytest.fixture
def cluster(monkeypatch) -> Cluster:
    cluster = Cluster()

    async def connect(_: Path | None) -> Cluster:
        return cluster

    monkeypatch.setattr(installation_check, "connect", connect)
    monkeypatch.setattr(installation_check, "POLL_S", 0.0)
    return cluster


@pytest.fixture
def job(tmp_path) -> list[str]:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(make_document()))
    return ["--job", str(path), "--namespace", "here"]


def granted(name: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Permissions that one block of the chart's template of roles grants."""
    text = RULES.read_text().partition(f'define "cosmos.{name}"')[2].partition("{{- end }}")[0]
    rules = yaml.safe_load(re.sub(r"^.*?}}", "", text, count=1))
    return {
        (group, resource): tuple(rule["verbs"])
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
    }


@pytest.mark.parametrize(
    ("name", "needs"), [("namespacedRules", JOB_NEEDS), ("clusterRules", CLUSTER_NEEDS)]
)
def test_chart_grants_what_the_operator_needs_and_no_more(name, needs):
    assert granted(name) == needs


def test_access_is_needed_in_every_watched_namespace_and_to_the_one_lease():
    settings = Settings(watchNamespaces=("a", "b"), canListNodes=False)

    needed = set(needed_access(settings))

    pods = {each.namespace for each in needed if each.resource == "pods"}
    assert pods == {"a", "b"}
    assert not [each for each in needed if each.resource == "nodes"]
    group = "coordination.k8s.io"
    assert Access("default", group, "leases", "update", "cosmos-operator") in needed
    assert Access("default", group, "leases", "create") in needed


def test_access_of_an_operator_for_all_namespaces(tmp_path, cluster, capsys):
    settings = tmp_path / "settings.yaml"
    settings.write_text("{}")

    assert main(["access", "--settings", str(settings)]) == 0

    log = {"namespace": "", "group": "", "resource": "pods", "subresource": "log", "verb": "get"}
    assert {**log, "name": ""} in cluster.asked
    text = capsys.readouterr().out
    assert re.search(r"^\(all\) +posttrainingjobs.cosmos.dev/status +patch$", text, re.M)
    assert text.endswith("the operator has all rights that it needs\n")


def test_access_that_is_missing_is_named(tmp_path, cluster, capsys):
    settings = tmp_path / "settings.yaml"
    settings.write_text("watchNamespaces: [team]")
    cluster.denied = {("pods", "watch"), ("nodes", "list")}

    assert main(["access", "--settings", str(settings)]) == 1

    text = capsys.readouterr().out
    assert re.search(r"^team +pods +list,delete +watch$", text, re.M)
    assert re.search(r"^\(all\) +nodes +list$", text, re.M)
    assert "2 rights are missing; grant them" in text


def test_dry_run_says_whether_the_job_is_accepted(cluster, job, capsys):
    assert main(["dry-run", *job]) == 0
    assert cluster.created[0]["metadata"] == {"name": "push", "namespace": "here"}
    assert capsys.readouterr().out == "the API server accepts PostTrainingJob here/push\n"

    cluster.refusal = Refused(422, "spec.training.steps: must be positive")
    assert main(["dry-run", *job]) == 1
    assert "(422): spec.training.steps: must be positive" in capsys.readouterr().err


def finished(kind: str) -> dict[str, Any]:
    condition = {"type": kind, "status": "True"}
    return {"state": kind, "message": "as told", "conditions": [condition]}


@pytest.mark.parametrize(("kind", "code"), [("Succeeded", 0), ("Failed", 1)])
def test_smoke_waits_for_the_end_and_deletes_the_job(cluster, job, capsys, kind, code):
    training = {"state": "Training", "message": "step 2/4"}
    cluster.statuses = [{}, training, training, finished(kind)]

    assert main(["smoke", *job]) == code

    text = capsys.readouterr().out
    assert text.startswith(f"Pending: \nTraining: step 2/4\n{kind}: as told\nstatus:\n")
    assert cluster.deleted == ["PostTrainingJob here/push u"]


def test_smoke_ends_in_time(cluster, job, capsys):
    cluster.statuses = [{"state": "Preparing"}]

    assert main(["smoke", *job, "--timeout-seconds", "0.05"]) == 1

    assert "here/push: not finished after 0.05 s" in capsys.readouterr().out
    assert cluster.deleted


def test_smoke_notices_that_the_job_was_deleted(cluster, job, capsys):
    cluster.statuses = [{}, None]

    assert main(["smoke", *job]) == 1
    assert "deleted meanwhile" in capsys.readouterr().out


def test_smoke_leaves_a_job_of_that_name_alone(cluster, job, capsys):
    cluster.exists = True

    assert main(["smoke", *job]) == 2
    assert "exists already; kubectl -n here delete ptj push" in capsys.readouterr().err
    assert cluster.deleted == []


def test_job_file_that_is_absent_is_named(cluster, capsys):
    assert main(["dry-run", "--job", "/absent.yaml", "--namespace", "here"]) == 2
    assert "/absent.yaml" in capsys.readouterr().err
