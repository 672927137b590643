"""The CustomResourceDefinition: in step with the models, and within what the API server admits."""

import re
from pathlib import Path

import pytest
import yaml
from support.jobs import make_document

from cosmos_operator.api.base import RULES
from cosmos_operator.api.crd import (
    INFERENCE_JOB,
    POST_TRAINING_JOB,
    build_crd,
    build_crds,
    build_schema,
)
from cosmos_operator.plan.render import to_yaml

FILES = Path(__file__).parents[3] / "charts" / "cosmos" / "files"
FORBIDDEN = {
    "$ref",
    "$defs",
    "title",
    "const",
    "propertyNames",
    "prefixItems",
    "oneOf",
    "discriminator",
}


def walk(schema, path=""):
    yield path, schema
    for name, value in schema.get("properties", {}).items():
        yield from walk(value, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from walk(schema[name], f"{path}[]")


SCHEMAS = list(walk(build_schema()))
INFERENCE_SCHEMAS = list(walk(build_schema(INFERENCE_JOB)))


@pytest.mark.parametrize(
    ("name", "resource"),
    [("crd.yaml", POST_TRAINING_JOB), ("crd-inferencejob.yaml", INFERENCE_JOB)],
)
def test_crd_file_is_what_the_models_say(name, resource, update_golden):
    text = to_yaml([build_crd(resource)])
    if update_golden:
        (FILES / name).write_text(text, encoding="utf-8")

    assert (FILES / name).read_text(encoding="utf-8") == text, (
        "run `cosmos crd` or pytest --update-golden"
    )
    assert len(text) < 200_000


def flaws(path, schema):
    """Parts of a schema that the API server does not admit, or whose CEL rules it cannot bound the cost of."""
    if path in (".metadata", ".metadata.name"):
        return
    yield from FORBIDDEN & set(schema)
    if schema.get("x-kubernetes-int-or-string"):
        return
    kind = schema["type"]
    bounds = {
        "string": ("maxLength", "enum"),
        "array": ("maxItems",),
        "object": ("properties", "maxProperties"),
        "integer": ("minimum", "enum"),
        "number": ("minimum",),
        "boolean": ("type",),
    }[kind]
    if not set(bounds) & set(schema):
        yield f"{kind} without {' or '.join(bounds)}"
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        if schema.get(bound) not in (None, True):
            yield f"{bound} is not true"
    is_field = path.startswith((".spec", ".status")) and not path.endswith("[]")
    if is_field and not schema["description"].endswith("."):
        yield "no description"


def test_schema_is_structural_bounded_and_described():
    schemas = (*SCHEMAS, *INFERENCE_SCHEMAS)
    found = [f"{path}: {flaw}" for path, schema in schemas for flaw in flaws(path, schema)]

    assert found == []


@pytest.mark.parametrize("resource", [POST_TRAINING_JOB, INFERENCE_JOB])
def test_printer_columns_show_fields(resource):
    known = {name.replace("[]", "") for name, _ in walk(build_schema(resource))}

    for _, _, path, _ in resource.columns:
        shown = path.replace("[-1:]", "").replace("[*]", "")
        assert shown in known | {".metadata.creationTimestamp"}


def test_rules_keep_finished_work_meaningful():
    found = {path: schema[RULES] for path, schema in SCHEMAS if RULES in schema}
    fixed = {
        path for path, rules in found.items() if any(r["rule"] == "self == oldSelf" for r in rules)
    }

    assert {f".spec.{name}" for name in ("model", "tokenizer", "dataset", "embeddings")} <= fixed
    assert {".spec.compute", ".spec.scheduling", ".spec.backend"} & fixed == set()
    assert ".spec.inference[]" in fixed
    assert ".spec.runPolicy" not in fixed
    assert all(rule["message"] for rules in found.values() for rule in rules)


def test_fixed_blocks_are_always_present_so_that_their_rule_is_always_asked():
    spec = next(schema for path, schema in SCHEMAS if path == ".spec")

    for name, schema in spec["properties"].items():
        if RULES in schema:
            assert "default" in schema or name in spec["required"], name


def test_field_of_an_inference_job_that_is_fixed_can_neither_come_nor_go():
    spec = next(schema for path, schema in INFERENCE_SCHEMAS if path == ".spec")
    optional = [
        name
        for name, schema in spec["properties"].items()
        if RULES in schema and "default" not in schema and name not in spec["required"]
        if any(rule["rule"] == "self == oldSelf" for rule in schema[RULES])
    ]

    rule = next(one["rule"] for one in spec[RULES] if "has(oldSelf." in one["rule"])
    assert len(optional) == 8
    assert [name for name in optional if f"has(oldSelf.{name})" not in rule] == []


def test_crd_names_are_those_that_people_type():
    names = build_crd()["spec"]["names"]

    assert (names["shortNames"], names["categories"]) == (["ptj"], ["cosmos"])
    assert build_crd()["metadata"]["name"] == "posttrainingjobs.cosmos.dev"
    assert build_crd(INFERENCE_JOB)["spec"]["names"]["shortNames"] == ["ij"]
    assert build_crd(INFERENCE_JOB)["metadata"]["name"] == "inferencejobs.cosmos.dev"


def test_every_field_of_a_valid_document_is_in_the_schema():
    def check(value, schema, path):
        if isinstance(value, dict) and "properties" in schema:
            assert set(value) <= set(schema["properties"]), path
            assert set(schema.get("required", ())) <= set(value), path
            for name, inner in value.items():
                check(inner, schema["properties"][name], f"{path}.{name}")
        if isinstance(value, list):
            for inner in value:
                check(inner, schema["items"], f"{path}[]")

    for path in sorted((Path(__file__).parents[3] / "examples").glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        resource = INFERENCE_JOB if document["kind"] == "InferenceJob" else POST_TRAINING_JOB
        schema = build_schema(resource)["properties"]["spec"]
        check(document["spec"], schema, path.name)
    check(make_document()["spec"], build_schema()["properties"]["spec"], "spec")


def test_rules_name_no_field_that_may_be_absent() -> None:
    """A rule about a field that is omitted, and has no default in the CRD, would refuse every object without it."""
    unsafe = []
    for crd in build_crds():
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for _, part in walk(schema):
            properties = part.get("properties", {})
            for rule in part.get("x-kubernetes-validations", ()):
                for name in set(re.findall(r"\bself\.(\w+)", rule["rule"])) & set(properties):
                    is_there = name in part.get("required", ()) or "default" in properties[name]
                    if not is_there and f"has(self.{name})" not in rule["rule"]:
                        unsafe.append(f"{rule['rule']}: {name}")
    assert unsafe == []
