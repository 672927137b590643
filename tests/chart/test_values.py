"""Values of the chart: each is documented and typed, and a misspelt one is refused by name."""

import re

import jsonschema
import pytest
from helm_python import HelmValuesError
from support.helm_chart import CHART, load_chart, render_texts

from cosmos_operator import pod_variables
from cosmos_operator.settings import Settings

SCHEMA = load_chart().schema
FREE = {
    "properties/operator/properties/podSecurityContext",
    "properties/operator/properties/securityContext",
    "properties/jobs/properties/podSecurityContext",
    "properties/viewer/properties/podSecurityContext",
    "properties/viewer/properties/securityContext",
    "properties/viewer/properties/from/items/properties/podSelector",
    "properties/viewer/properties/from/items/properties/namespaceSelector",
    "properties/viewer/properties/from/items/properties/ipBlock",
    "properties/jobs/properties/podTemplate/properties/spec",
    "properties/operator/properties/affinity/properties/nodeAffinity",
    "properties/operator/properties/affinity/properties/podAffinity",
    "properties/operator/properties/affinity/properties/podAntiAffinity",
    "properties/operator/properties/extraEnv/items/properties/valueFrom",
    "properties/operator/properties/topologySpreadConstraints/items",
    "properties/global",
}
"""Objects whose fields belong to Kubernetes, whose API server checks them, or to Helm."""
EXPLAINED = {"resources", "podSecurityContext", "securityContext", "podAnnotations"}
"""Groups whose comment documents all values in them."""


def resolve(schema):
    name = schema.get("$ref", "").removeprefix("#/definitions/")
    return SCHEMA["definitions"][name] if name else schema


def walk(schema, path=""):
    schema = resolve(schema)
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from walk(inner, f"{path}/properties/{name}".lstrip("/"))
    if "items" in schema:
        yield from walk(schema["items"], f"{path}/items")


def keys(values, schema, path=""):
    """Paths of the values below closed objects, and of the schema's properties there."""
    schema = resolve(schema)
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}{name}"
        if isinstance(values, dict) and isinstance(values.get(name), dict):
            yield from keys(values[name], inner, f"{path}{name}.")


def test_every_value_is_explained_by_a_comment_above_it():
    unexplained, outer, previous = [], {}, ""
    for line in (CHART / "values.yaml").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"( *)([A-Za-z][\w./-]*):( .+)?$", line):
            depth = len(match[1])
            outer = {d: name for d, name in outer.items() if d < depth}
            # a group may be explained by its members
            if (
                match[3]
                and not previous.lstrip().startswith("#")
                and not EXPLAINED & {*outer.values()}
            ):
                unexplained.append(line)
            outer[depth] = match[2]
        previous = line

    assert unexplained == []


def test_schema_knows_the_values_and_no_others():
    def values_below(values, schema, path=""):
        properties = resolve(schema).get("properties", {})
        for name, value in values.items():
            if name in properties:
                yield f"{path}{name}"
                if isinstance(value, dict):
                    yield from values_below(value, properties[name], f"{path}{name}.")

    known = {
        path
        for path in keys(load_chart().values, SCHEMA)
        if not path.startswith(
            ("operator.affinity.", "operator.resources.", "viewer.resources.", "jobs.podTemplate.")
        )
    }

    assert known <= set(values_below(load_chart().values, SCHEMA))
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(load_chart().values, SCHEMA)


def test_schema_is_closed():
    objects = {path: schema for path, schema in walk(SCHEMA) if schema.get("type") == "object"}

    assert {
        path for path, schema in objects.items() if "additionalProperties" not in schema
    } == FREE


@pytest.mark.parametrize(("values", "message"), [
    ({"replicaCount": 2}, "at '': additional properties 'replicaCount' not allowed"),
    (
        {"storage.claim.storageclass": "fast"},
        "at '/storage/claim': additional properties 'storageclass' not allowed",
    ),
    ({"secrets.huggingFace.token": "hf_x"}, "at '/secrets/huggingFace': additional properties"),
    ({"rbac.scope": "Namespace"}, "at '/rbac/scope': value must be one of 'Cluster', 'Namespaced'"),
    ({"image.worker.digest": "sha256:1"}, "at '/image/worker/digest': 'sha256:1' does not match"),
    ({"image.worker.repository": ""}, "at '/image/worker/repository': minLength"),
    ({"global.imageRegistry": "https://r"}, "at '/global/imageRegistry': 'https://r' does not"),
    ({"watchNamespaces": "a"}, "at '/watchNamespaces': got string, want array"),
    ({"imagePullSecrets": ["a"]}, "at '/imagePullSecrets/0': got string, want object"),
    ({"operator.replicas": 0}, "at '/operator/replicas': minimum"),
    ({"operator.logLevel": "trace"}, "at '/operator/logLevel': value must be one of 'debug'"),
    ({"networkPolicy.dnsPorts": []}, "at '/networkPolicy/dnsPorts': minItems"),
    ({"watchNamespaces": [2024]}, "at '/watchNamespaces/0': got number, want string"),
    ({"operator.healthPort": 0}, "at '/operator/healthPort': minimum"),
    ({"operator.timing.pollSeconds": 0}, "at '/operator/timing/pollSeconds': exclusiveMinimum"),
    ({"storage.claim.accessModes": []}, "at '/storage/claim/accessModes': minItems"),
    ({"storage.claim.size": "large"}, "at '/storage/claim/size': 'large' does not match"),
    ({"hub.endpoint": "hub.example.com"}, "at '/hub/endpoint': 'hub.example.com' does not match"),
    ({"jobs.env": {"NCCL_IB_GID_INDEX": 3}}, "at '/jobs/env/NCCL_IB_GID_INDEX': got number"),
    ({"jobs.env": {"NCCL-DEBUG": "INFO"}}, "invalid propertyName 'NCCL-DEBUG'"),
    ({"jobs.env": {"HF_TOKEN": "hf_x"}}, "invalid propertyName 'HF_TOKEN'"),
    ({"jobs.env": {"AWS_SESSION_TOKEN": "x"}}, "invalid propertyName 'AWS_SESSION_TOKEN'"),
    ({"secrets.s3.key": "x"}, "at '/secrets/s3': additional properties"),
    ({"crds.install": "yes"}, "at '/crds/install': got string, want boolean"),
])  # fmt: skip
def test_wrong_value_is_refused_with_its_place(values, message):
    with pytest.raises(HelmValuesError, match=re.escape(message)):
        render_texts(values)


def test_schema_refuses_the_variables_that_the_settings_refuse():
    names = SCHEMA["properties"]["jobs"]["properties"]["env"]["propertyNames"]
    free, reserved = names["anyOf"]

    assert names["pattern"] == f"^{pod_variables.NAME}$"
    assert free == {"const": pod_variables.TIMEOUT_VARIABLE}
    assert reserved == {"not": {"pattern": f"^({'|'.join(pod_variables.RESERVED)})$"}}


def test_timing_has_the_defaults_of_the_settings():
    defaults = Settings().model_dump(by_alias=True)

    for name, value in load_chart().values["operator"]["timing"].items():
        assert defaults[name] == value, name


def test_version_of_the_application_is_that_of_the_project():
    text = (CHART.parents[1] / "pyproject.toml").read_text(encoding="utf-8")

    assert f'version = "{load_chart().metadata["appVersion"]}"' in text
