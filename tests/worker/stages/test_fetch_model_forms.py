"""fetch-model takes a model in every form, from every kind of source, and the later stages load the result."""

from __future__ import annotations

import json
import logging
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub import constants
from support.fake_hub import COMMIT, point_client, serve_hub
from support.training import SMALL_NET, small_model, write_model

from cosmos_worker.config.stages import FetchModelConfig
from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.sources import download_progress
from cosmos_worker.stages.fetch_model import run
from cosmos_worker.storage.volumes import (
    Volumes,
    sha256_of_file,
)
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.files import digest_weights
from cosmos_worker.weights.load import load_model
from cosmos_worker.weights.safetensors import Limits

SHARDS = Limits(shard_bytes=1 << 15)
INDEX = "model.safetensors.index.json"


def write_form(form: str, folder: Path) -> Path:
    """Write a folder as it is published: weights in one form, and other files."""
    source = write_model(folder.parent / "source.pt")
    if form == "model.pt":
        convert_weights(source, folder, "pt", SMALL_NET, Limits())
    elif form == "trainer":
        folder.mkdir()
        shutil.copy(source, folder / "iter_000000500_ema_model.pt")
        write_model(folder / "iter_000000500_reg_model.pt", seed=1)
        torch.save({"iteration": 500}, folder / "iter_000000500.pt")
    elif form == "safetensors":
        convert_weights(source, folder, "safetensors", SMALL_NET, Limits())
    elif form == "shards":
        convert_weights(source, folder, "safetensors", SMALL_NET, SHARDS)
    elif form == "dcp":
        dcp.save(torch.load(source, weights_only=True), checkpoint_id=folder)
    elif form == "diffusers":
        convert_weights(source, folder, "diffusers", SMALL_NET, SHARDS)
        (folder / "vae").mkdir()
        (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"other")
    else:
        assert form == "transformer"
        convert_weights(source, folder.parent / "whole", "diffusers", SMALL_NET, SHARDS)
        (folder.parent / "whole" / "transformer").rename(folder)
    (folder / "README.md").write_text("# A model")
    return folder


def expected_files(form: str, folder: Path) -> set[str]:
    """Files of such a folder that are needed."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    unused = {"README.md", "model.json", "vae/diffusion_pytorch_model.safetensors"}
    if form == "trainer":
        unused |= {"iter_000000500_reg_model.pt", "iter_000000500.pt"}
    return names - unused


FORMS = ("model.pt", "trainer", "safetensors", "shards", "diffusers", "transformer", "dcp")
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    (tmp_path / "models").mkdir()
    return Volumes({"models": tmp_path / "models"})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models" / "Tiny"


def fetch(volumes: Volumes, **source: object) -> dict[str, object]:
    artifact = {"kind": "model", "name": "Tiny", "source": source, "target_uri": "models://Tiny"}
    document = {"key": "k", "target_uri": "models://", "artifacts": [artifact]}
    (result,) = run(FetchModelConfig.model_validate(document), volumes)["artifacts"]
    return result


def check_fetched(result: dict[str, object], target: Path, form: str, source: Path) -> None:
    files = result["files"]
    assert set(files) == expected_files(form, source)
    there = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert there - {"fetched-model.json"} == set(files)
    for name, facts in files.items():
        assert facts["sha256"] == sha256_of_file(source / name)
    loaded = load_model(target, SMALL_NET).net.state_dict()
    for key, value in small_model().net.state_dict().items():
        assert torch.equal(loaded[key], value), key


@pytest.mark.parametrize("form", FORMS)
def test_form_from_a_folder(tmp_path: Path, volumes: Volumes, target: Path, form: str) -> None:
    source = write_form(form, tmp_path / "repo")

    result = fetch(volumes, path=str(source))

    check_fetched(result, target, form, source)
    assert result["commit"] is None


@pytest.mark.parametrize("form", FORMS)
def test_form_from_an_archive(tmp_path: Path, volumes: Volumes, target: Path, form: str) -> None:
    source = write_form(form, tmp_path / "repo")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(source, arcname="release/Cosmos-Tiny")

    result = fetch(volumes, url={"url": (tmp_path / "a.tar").as_uri()})

    check_fetched(result, target, form, source)


@pytest.mark.parametrize("form", FORMS)
def test_form_from_the_hub(
    tmp_path: Path, volumes: Volumes, target: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_form(form, tmp_path / "repo")

    with serve_hub(source) as hub:
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        result = fetch(volumes, hugging_face={"repo": "owner/name"})

    check_fetched(result, target, form, source)
    assert sorted(hub.downloads) == sorted(expected_files(form, source))
    assert result["commit"] == COMMIT
    assert fetch(volumes, hugging_face={"repo": "owner/name"}) == result  # without a server


@pytest.mark.parametrize("form", ["shards", "diffusers"])
def test_form_from_the_cache_of_the_hub(
    tmp_path: Path, volumes: Volumes, target: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_form(form, tmp_path / "repo")
    with serve_hub(source) as hub:
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        huggingface_hub.snapshot_download("owner/name")
    point_client(monkeypatch, hub.url, tmp_path / "cache", offline=True)

    result = fetch(volumes, hugging_face={"repo": "owner/name"})

    check_fetched(result, target, form, source)
    assert result["commit"] == COMMIT


def test_one_form_is_fetched_where_a_repository_has_two(
    tmp_path: Path, volumes: Volumes, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_form("diffusers", tmp_path / "repo")
    write_model(source / "model.pt")

    with serve_hub(source) as hub:
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        fetch(volumes, hugging_face={"repo": "owner/name"})

    assert hub.downloads == ["model.pt"]


def test_repository_without_weights_is_refused_before_anything_is_fetched(
    tmp_path: Path, volumes: Volumes, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "repo"
    source.mkdir()
    for name in ("config.json", "flax_model.msgpack", "pytorch_model.bin"):
        (source / name).write_text("{}")

    message = (
        r"Tiny: hugging_face owner/name@main lacks weights \(model\.pt, transformer/\*\.safetensors .*"
        r"iter_\*_\{ema,reg\}_model\.pt\) for a model; it holds config\.json, flax_model\.msgpack, pytorch"
    )
    with serve_hub(source) as hub:
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        with pytest.raises(DataError, match=message):
            fetch(volumes, hugging_face={"repo": "owner/name"})

    assert hub.downloads == []
    assert not target.exists()


@pytest.mark.parametrize("kind", ["folder", "hub"])
def test_shard_that_is_missing_is_named(
    tmp_path: Path, volumes: Volumes, target: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_form("shards", tmp_path / "repo")
    last = sorted(set(json.loads((source / INDEX).read_text())["weight_map"].values()))[-1]
    (source / last).unlink()

    with serve_hub(source) as hub:
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        given = (
            {"path": str(source)} if kind == "folder" else {"hugging_face": {"repo": "owner/name"}}
        )
        with pytest.raises(DataError, match=f"lacks {last} for a model; it holds "):
            fetch(volumes, **given)

    assert not target.exists()


def test_diffusers_without_its_config_is_refused(tmp_path: Path, volumes: Volumes) -> None:
    source = write_form("diffusers", tmp_path / "repo")
    (source / "transformer" / "config.json").unlink()

    with pytest.raises(DataError, match=r"lacks transformer/config\.json for a model; it holds"):
        fetch(volumes, path=str(source))


def test_index_that_points_elsewhere_is_refused(tmp_path: Path, volumes: Volumes) -> None:
    source = write_form("shards", tmp_path / "repo")
    index = json.loads((source / INDEX).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../secret.safetensors")
    (source / INDEX).write_text(json.dumps(index))

    with pytest.raises(CheckpointError, match=r"names '\.\./secret\.safetensors'; shards lie besi"):
        fetch(volumes, path=str(source))


def test_single_file_of_safetensors(tmp_path: Path, volumes: Volumes, target: Path) -> None:
    source = write_form("safetensors", tmp_path / "repo")

    result = fetch(volumes, path=str(source / "model.safetensors"))

    assert set(result["files"]) == {"model.safetensors"}
    load_model(target, SMALL_NET)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "model.gguf",
            r"model\.gguf\) is a GGUF file of llama\.cpp; give a file of torch\.save or saf",
        ),
        ("model.onnx", r"is an ONNX graph; give"),
        ("notes.txt", r"is no weight file that is known; give"),
    ],
)
def test_single_file_of_another_kind_is_named(
    tmp_path: Path, volumes: Volumes, name: str, message: str
) -> None:
    (tmp_path / name).write_bytes(b"GGUF" if "gguf" in name else b"\x08\x07")

    with pytest.raises(DataError, match=message):
        fetch(volumes, path=str(tmp_path / name))


def test_single_file_is_known_by_its_content(
    tmp_path: Path, volumes: Volumes, target: Path
) -> None:
    result = fetch(volumes, path=str(write_model(tmp_path / "pytorch_model.bin")))

    assert set(result["files"]) == {"model.pt"}
    load_model(target, SMALL_NET)


def test_target_that_would_load_something_else_is_refused(
    tmp_path: Path, volumes: Volumes, target: Path
) -> None:
    source = write_form("safetensors", tmp_path / "repo")
    write_model(target / "model.pt", seed=1)

    message = (
        r"Tiny/model\.pt would be loaded instead of model\.safetensors, which was fetched; rem"
    )
    with pytest.raises(DataError, match=message):
        fetch(volumes, path=str(source))


def change(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(
        content + b"\n" if path.suffix == ".json" else content[:-1] + bytes([content[-1] ^ 1])
    )


@pytest.mark.parametrize("form", FORMS[:-1])
def test_digest_is_that_of_all_files_that_are_loaded(tmp_path: Path, form: str) -> None:
    source = write_form(form, tmp_path / "repo")
    before = digest_weights(source)

    (source / "README.md").write_text("changed")
    assert digest_weights(source) == before
    weights = [name for name in expected_files(form, source) if not name.endswith("config.json")]
    assert weights
    for name in weights:
        change(source / name)
        changed = digest_weights(source)
        assert changed != before
        before = changed


def test_digest_of_a_folder_with_one_file_is_that_of_the_file(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.pt")

    assert digest_weights(tmp_path) == digest_weights(path) == sha256_of_file(path)


# --- progress --------------------------------------------------------------------------------


def lines_of(caplog: pytest.LogCaptureFixture, action: Callable[[], object]) -> list[str]:
    with caplog.at_level(logging.INFO, logger="cosmos_worker"):
        action()
    return [record.getMessage() for record in caplog.records]


def test_download_from_the_hub_logs_how_far_it_is(
    tmp_path: Path,
    volumes: Volumes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(download_progress, "LOG_INTERVAL_S", 0.01)
    monkeypatch.setattr(download_progress, "MIB", 1)  # the file is smaller than one
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 12)
    source = write_form("model.pt", tmp_path / "repo")
    size = (source / "model.pt").stat().st_size

    with serve_hub(source) as hub:
        hub.pause_s["model.pt"] = 0.2
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        lines = lines_of(caplog, lambda: fetch(volumes, hugging_face={"repo": "owner/name"}))

    during = [line for line in lines if line.startswith("fetching repo=owner/name mib=")]
    pattern = re.compile(rf"mib=(\d+)/{size} mib_per_s=\d+\.\d eta_s=\d+$")
    arrived = [int(match[1]) for line in during if (match := pattern.search(line))]
    assert any(size // 3 < number < size for number in arrived), lines
    assert "%|" not in capfd.readouterr().err  # no bars in a log


def test_download_of_an_archive_logs_how_far_it_is(
    tmp_path: Path,
    volumes: Volumes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(download_progress, "LOG_INTERVAL_S", 0.0)
    source = write_form("model.pt", tmp_path / "repo")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(source, arcname="Tiny")
    url = (tmp_path / "a.tar").as_uri()

    lines = lines_of(caplog, lambda: fetch(volumes, url={"url": url}))

    total = (tmp_path / "a.tar").stat().st_size >> 20
    during = [line for line in lines if line.startswith(f"fetching url={url} mib=")]
    assert f"/{total} mib_per_s=" in during[0]
    assert "eta_s=" in during[-1]
