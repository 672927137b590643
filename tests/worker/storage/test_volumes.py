from __future__ import annotations

import re
from pathlib import Path

import pytest

from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.volumes import (
    Volumes,
    atomic_write,
    content_key,
    export_name,
    read_marker,
    remove_leftovers,
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


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    kept = [
        "model.pt",
        ".model.pt.tmp",
        ".model.pt.abcd_12.tmp",
        ".model.pt.abcd_123.part",
        "model.pt.abcd_123.tmp",
        ".model.json.abcd_123.tmp",
        ".other_model.pt.abcd_123.tmp",
    ]
    for name in kept:
        (tmp_path / name).write_text("")
    (tmp_path / ".model.pt.a_folder.tmp").mkdir()
    writers = [atomic_write(tmp_path / "model.pt") for _ in range(2)]
    for writer in writers:
        writer.__enter__()  # never closed, as after a kill
    assert len(list(tmp_path.iterdir())) == len(kept) + 3

    remove_leftovers(tmp_path, re.compile(r"model\.pt"))
    remove_leftovers(tmp_path / "absent", re.compile(r"model\.pt"))

    assert {path.name for path in tmp_path.iterdir()} == {*kept, ".model.pt.a_folder.tmp"}


def test_leftover_that_cannot_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".model.pt.abcd_123.tmp").write_text("")

    def unlink(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", unlink)
    remove_leftovers(tmp_path, re.compile(r"model\.pt"))

    assert "cannot be removed: [Errno 13] Permission denied" in caplog.text


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
