"""Pod templates on a real API server: it merges as the operator does, and knows the fields of the operator's table."""

from __future__ import annotations

import json
import secrets
from pathlib import Path
from typing import Any

import pytest
from support.api_client import Api
from support.merges import MERGES
from support.pod_schema import field_types

import cosmos_operator.api.pod_schema as pod_schema
from cosmos_operator.plan.strategic_merge import merge

pytestmark = pytest.mark.api_server
TABLE = Path(pod_schema.__file__).with_suffix(".json")


def test_table_of_fields_is_what_the_server_says(api: Api, update_golden: bool) -> None:
    code, openapi = api.call("GET", "/openapi/v2")
    assert code == 200
    lines = [
        f"  {json.dumps(name)}: {json.dumps(fields)}"
        for name, fields in field_types(openapi).items()
    ]
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    if update_golden:
        TABLE.write_text(text, encoding="utf-8")

    assert TABLE.read_text(encoding="utf-8") == text


def pod_template(api: Api, spec: dict[str, Any]) -> tuple[str, Any]:
    """Path and pod spec of a new PodTemplate."""
    body = {
        "metadata": {"name": f"t-{secrets.token_hex(3)}"},
        "template": {"metadata": {}, "spec": spec},
    }
    code, made = api.call("POST", api.core("podtemplates"), body)
    assert code == 201, made
    return f"{api.core('podtemplates')}/{made['metadata']['name']}", made["template"]["spec"]


@pytest.mark.parametrize(("original", "patch", "merged"), MERGES.values(), ids=MERGES)
def test_server_merges_alike(api: Api, original: Any, patch: Any, merged: Any) -> None:
    path, stored = pod_template(api, original)
    _, expected = pod_template(api, merged)  # with the server's defaults
    code, answer = api.call("PATCH", path, {"template": {"spec": patch}}, "strategic", dryRun="All")
    assert code == 200, answer

    assert answer["template"]["spec"] == expected
    _, ours = pod_template(api, merge(stored, patch, "PodSpec"))
    assert ours == expected
