from __future__ import annotations

from pathlib import Path

import pytest

from cosmos_worker.errors import ConfigError
from cosmos_worker.layout import (
    Volumes,
    atomic_write,
    content_key,
    export_name,
    read_marker,
    run_folder,
    write_json,
)

VOLUMES = Volumes({"models": Path("/mnt/models")})


def test_addresses_are_found_in_their_volume() -> None:
    assert VOLUMES.resolve("models://a/model.pt") == Path("/mnt/models/a/model.pt")
    assert VOLUMES.resolve("/plain/path") == Path("/plain/path")
    environment = {"COSMOS_DATASETS": "/data", "COSMOS_MODELS": ""}
    assert Volumes.from_environment(environment).roots == {"datasets": Path("/data")}


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("models://../other", r"leaves the volume 'models'; remove '\.\.'"),
        ("datasets://a", r"volume 'datasets' is not mounted; set COSMOS_DATASETS"),
        (
            "s3://bucket/a",
            r"unknown volume 's3'; use one of models, datasets, embeddings, checkpoints",
        ),
    ],
)
def test_bad_addresses_are_explained(address: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VOLUMES.resolve(address)


def test_interrupted_write_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("earlier")

    def write_half() -> None:
        with atomic_write(path, "w") as stream:
            stream.write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()

    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_marker_is_found_by_its_key(tmp_path: Path) -> None:
    write_json(tmp_path / "complete-abc.json", {"result": 1})

    assert read_marker(tmp_path, "abc") == {"result": 1}
    assert read_marker(tmp_path, "other") is None


def test_content_key_does_not_depend_on_the_order_of_keys() -> None:
    assert content_key({"a": 1, "b": [1, 2]}) == content_key({"b": [1, 2], "a": 1})
    assert content_key({"a": 1}) != content_key({"a": 2})
    assert len(content_key({})) == 12


def test_names_of_the_reference() -> None:
    assert export_name(500, "ema") == "iter_000000500_ema_model.pt"
    assert run_folder(Path("out"), "p", "g", "n") == Path("out/p/g/n")
