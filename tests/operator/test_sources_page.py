"""docs/sources.md: the resource accepts its snippets, and it describes every kind of source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from cosmos_operator.api.credentials import CredentialsSpec
from cosmos_operator.api.models import BaseModelSpec
from cosmos_operator.api.source import Source

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")
SNIPPETS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: next(iter(snippet)))
def test_snippets_are_accepted(snippet: dict):
    models = {"source": Source, "credentials": CredentialsSpec, "model": BaseModelSpec}
    for name, value in snippet.items():
        models[name].model_validate(value)


def test_every_kind_of_source_is_shown():
    shown = {kind for snippet in SNIPPETS for kind in snippet.get("source", ())}

    assert shown == {"path", "claim", "url", "huggingFace", "s3"}
