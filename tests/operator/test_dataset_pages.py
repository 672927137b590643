"""The pages on datasets: the resource accepts their snippets, and they describe every layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from cosmos_operator.api.v1alpha1 import DatasetSpec

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "datasets.md").read_text(encoding="utf-8")
SNIPPETS = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet["dataset"]["layout"])
def test_snippets_are_accepted(snippet: dict):
    assert snippet.keys() == {"dataset"}
    DatasetSpec.model_validate(snippet["dataset"])


def test_every_layout_is_shown():
    shown = {snippet["dataset"]["layout"] for snippet in SNIPPETS}

    assert shown == set(get_args(DatasetSpec.model_fields["layout"].annotation))
