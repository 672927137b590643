"""The folder of a dataset of a named layout, below the path that was given."""

import json
from pathlib import Path

import pytest
from support.clips import (
    write_bridge_dataset,
)

from cosmos_worker.data.layouts.by_name import find_root
from cosmos_worker.errors import DataError


def test_find_root_descends_to_the_only_dataset(tmp_path: Path):
    root = write_bridge_dataset(tmp_path / "opensource_robotdata" / "bridge", train=1, val=0)

    assert find_root(tmp_path, "bridge") == root
    assert find_root(root, "bridge") == root


def test_find_root_refuses_to_choose(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name / "videos").mkdir(parents=True)

    with pytest.raises(
        DataError, match=r"2 folders hold a folder videos/ \(a, b\); give the path of one"
    ):
        find_root(tmp_path, "videos")


def test_find_root_says_what_is_there(tmp_path: Path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "notes.json").write_text(json.dumps({}))

    message = (
        r"no folder annotation/, which layout 'bridge' needs; it holds clips/, notes\.json; give"
    )
    with pytest.raises(DataError, match=message):
        find_root(tmp_path, "bridge")
