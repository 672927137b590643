"""The CustomResourceDefinition: in step with the models, and within what the API server admits."""

from pathlib import Path

import pytest
import yaml
from support.jobs import make_document

from cosmos_operator.api.base import RULES
from cosmos_operator.api.crd import PRINTER_COLUMNS, build_crd, build_schema
from cosmos_operator.plan.render import to_yaml

CRD_FILE = Path(__file__).parents[3] / "charts" / "cosmos" / "files" / "crd.yaml"
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


def test_crd_file_is_what_the_models_say(update_golden):
    text = to_yaml([build_crd()])
    if update_golden:
        CRD_FILE.write_text(text, encoding="utf-8")

    assert CRD_FILE.read_text(encoding="utf-8") == text, (
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
    found = [f"{path}: {flaw}" for path, schema in SCHEMAS for flaw in flaws(path, schema)]

    assert found == []


@pytest.mark.parametrize("path", [column[2] for column in PRINTER_COLUMNS])
def test_printer_column_shows_a_field(path):
    known = {name.replace("[]", "") for name, _ in SCHEMAS}

    assert path.replace("[-1:]", "") in known | {".metadata.creationTimestamp"}


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


def test_crd_names_are_those_that_people_type():
    names = build_crd()["spec"]["names"]

    assert (names["shortNames"], names["categories"]) == (["ptj"], ["cosmos"])
    assert build_crd()["metadata"]["name"] == "posttrainingjobs.cosmos.dev"


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
        check(
            yaml.safe_load(path.read_text())["spec"],
            build_schema()["properties"]["spec"],
            path.name,
        )
    check(make_document()["spec"], build_schema()["properties"]["spec"], "spec")
