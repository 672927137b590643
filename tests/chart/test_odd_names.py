"""Names that YAML takes for numbers, dates or truths stay texts, for parsers of YAML 1.1 and of YAML 1.2."""

import re
from functools import lru_cache
from typing import Any, ClassVar

import pytest
import yaml
from support.helm_chart import NOTES, SWITCHES, render_texts

from cosmos_operator.api.parse import parse_job
from cosmos_operator.settings import Settings

ODD = (
    "2024",
    "3240286e-210077",
    "1e3",
    "0x1f",
    "0o17",
    "017",
    "2024-01-31",
    "0",
    "no",
    "y",
    "true",
    "null",
)
PLACEHOLDER = "plain-name"


class Yaml12(yaml.CSafeLoader):
    """The core schema of YAML 1.2, in which no and on are texts, and 1e3 and 0o17 are numbers."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}


for tag, pattern, first in (
    ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", "[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", "<<", "<"),
):
    Yaml12.add_implicit_resolver(
        f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first)
    )


def values_with(name: str) -> dict[str, Any]:
    """Values that hold this name wherever a value is a name."""
    return SWITCHES | {
        "imagePullSecrets": [{"name": name}],
        "image.worker.tag": name,
        "watchNamespaces": [name],
        "serviceAccount.name": name,
        "serviceAccount.annotations": {"a": name},
        "operator.nodeSelector": {"a": name},
        "operator.tolerations": [{"key": name, "operator": "Equal", "value": name, "effect": "NoSchedule"}],
        "operator.priorityClassName": name,
        "operator.podLabels": {"a": name},
        "operator.podAnnotations": {"a": name},
        "operator.extraEnv": [{"name": "A", "value": name}],
        "jobs.podAnnotations": {"a": name},
        "jobs.env": {"A": name},
        "secrets.huggingFace": {"existingSecret": name, "key": name},
        "secrets.wandb": {"existingSecret": name, "key": name},
        "secrets.mlflow": {"existingSecret": name, "key": name},
        "secrets.s3": {"existingSecret": name},
        "storage.claim.name": name,
        "storage.claim.storageClassName": name,
        "storage.claim.volumeName": name,
        "storage.claim.annotations": {"a": name},
        "metrics.serviceMonitor.labels": {"a": name},
        "metrics.podMonitor.labels": {"a": name},
        "metrics.prometheusRule.labels": {"a": name},
        "metrics.dashboard.labels": {"a": name},
        "metrics.dashboard.annotations": {"a": name},
    }  # fmt: skip


def documents(loader: type[yaml.CSafeLoader], name: str, **overrides: Any) -> list[Any]:
    """All documents of a release of this name in a namespace of this name, and those inside ConfigMaps."""
    texts = render_texts(values_with(name) | overrides, release=name, namespace=name)
    texts.pop(NOTES)
    found = [one for text in texts.values() for one in yaml.load_all(text, loader)]
    for one in found:
        for key in ("settings.yaml", "job.yaml"):
            if one and key in (one.get("data") or {}):
                one["data"][key] = yaml.load(one["data"][key], loader)
    return [one for one in found if one is not None]


@lru_cache
def plain_documents(loader: type[yaml.CSafeLoader], *overridden: str) -> list[Any]:
    """The same with a name that is nothing but a text."""
    return documents(loader, PLACEHOLDER, **dict.fromkeys(overridden, PLACEHOLDER))


def renamed(value: Any, name: str) -> Any:
    """The value with the odd name in place of the placeholder, and without what depends on the text."""
    if isinstance(value, dict):
        return {k: renamed(v, name) for k, v in value.items() if k != "checksum/settings"}
    if isinstance(value, list):
        return [renamed(one, name) for one in value]
    return value.replace(PLACEHOLDER, name) if isinstance(value, str) else value


def service_name(service: Any, name: str) -> str:
    """The name that a Service would have if every name were allowed."""
    is_viewer = service["metadata"]["name"].endswith("-viewer")
    return f"{name}-viewer" if is_viewer else f"{name}-operator-metrics"


@pytest.mark.parametrize("loader", [yaml.CSafeLoader, Yaml12], ids=["YAML 1.1", "YAML 1.2"])
@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("overrides", [
    {},
    {"fullnameOverride": "NAME"},
    {"nameOverride": "NAME"},
], ids=["", "fullname", "name"])  # fmt: skip
def test_odd_names_change_nothing_but_the_names(name, loader, overrides):
    odd = documents(loader, name, **{key: name for key in overrides})
    plain = plain_documents(loader, *overrides)
    services = [one for one in odd if one["kind"] == "Service"]

    for one in services:  # its name begins with a letter
        assert re.match("[a-z]", one["metadata"]["name"])
        one["metadata"]["name"] = service_name(one, name)
    expected = renamed(plain, name)
    for one in expected:
        if one["kind"] == "Service":
            one["metadata"]["name"] = service_name(one, name)
    assert renamed(odd, name) == expected


@pytest.mark.parametrize("name", ODD)
def test_job_of_helm_test_has_a_name_that_jobs_may_have(name):
    (found,) = [
        one["data"]["job.yaml"]
        for one in documents(yaml.CSafeLoader, name)
        if "job.yaml" in one.get("data", {})
    ]

    assert parse_job(found).spec.storage.models.claim_name == name


@pytest.mark.parametrize("name", ODD)
def test_settings_of_odd_names_are_read(name):
    (found,) = [
        one["data"]["settings.yaml"]
        for one in documents(yaml.CSafeLoader, name)
        if "settings.yaml" in one.get("data", {})
    ]
    settings = Settings.model_validate(found)

    assert settings.watch_namespaces == settings.image_pull_secrets == (name,)
    assert settings.lease.namespace == name
    assert settings.hugging_face_secret.key == settings.s3_secret.name == name
    assert settings.pod_environment == {"A": name}
    assert settings.pod_annotations["a"] == name
