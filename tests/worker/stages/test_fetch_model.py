"""fetch-model: path, archive and Hub sources of the three kinds."""

import hashlib
import json
import math
import tarfile
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import save_file
from support.fake_hub import point_client, serve_hub

from cosmos_worker.config.stages import FetchModelConfig
from cosmos_worker.errors import CheckpointError, DataError, UserError
from cosmos_worker.sources import folder
from cosmos_worker.stages.fetch_model import run
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.weights.artifact_files import choose_files
from cosmos_worker.weights.load import read_weight_file

KIND_FILES = {
    "model": ["model.pt", "config.json"],
    "tokenizer": ["encoder.jit", "decoder.jit", "mean_std.pt"],
    "text_encoder": ["config.json", "tokenizer_config.json", "model.safetensors"],
    "guardrails": [
        "blocklist/custom/words",
        "blocklist/exact_match/words",
        "blocklist/whitelist/words",
        "video_content_safety_filter/safety_filter.pt",
    ],
    "guardrails_with_face_blur": [
        "blocklist/custom/words",
        "blocklist/exact_match/words",
        "face_blur_filter/Resnet50_Final.pth",
        "video_content_safety_filter/safety_filter.pt",
    ],
    "text_classifier": [
        "config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "model.safetensors",
    ],
    "image_encoder": ["config.json", "preprocessor_config.json", "model.safetensors"],
    "prompt_upsampler": [
        "config.json",
        "tokenizer.json",
        "processor_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "model.safetensors",
    ],
}


RECORDS = {kind: [f"fetched-{kind}.json"] for kind in KIND_FILES}
"""The record beside files of a local source, by which they are known again."""


def write_files(folder: Path, names: list[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".safetensors"):
            save_file({f"content of {name}": torch.zeros(1)}, path)
        elif name.endswith("model.pt"):
            torch.save({"net.x": torch.zeros(1)}, path)
        elif name == "mean_std.pt":
            torch.save((torch.zeros(256), torch.ones(256)), path)
        else:
            path.write_text(f"content of {name}")
    return folder


def make_config(kind: str, source: dict) -> FetchModelConfig:
    artifact = {"kind": kind, "name": "Tiny", "source": source, "target_uri": "models://Tiny"}
    return FetchModelConfig.model_validate(
        {"key": "k", "target_uri": "models://", "artifacts": [artifact]}
    )


@pytest.fixture
def volumes(tmp_path: Path) -> Volumes:
    (tmp_path / "models").mkdir()
    return Volumes({"models": tmp_path / "models"})


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "models/Tiny"


def names_of(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", KIND_FILES)
def test_run_takes_the_needed_files_of_a_folder(tmp_path: Path, volumes, target, kind):
    source = write_files(tmp_path / "src", [*KIND_FILES[kind], "README.md", "tf_model.h5"])

    result = run(make_config(kind, {"path": str(source)}), volumes)

    found = [path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()]
    assert sorted(found) == sorted([*KIND_FILES[kind], *RECORDS[kind]])
    (artifact,) = result["artifacts"]
    assert (artifact["name"], artifact["kind"], artifact["folder"]) == (
        "Tiny",
        kind,
        "models://Tiny",
    )
    name = KIND_FILES[kind][0]
    content = (source / name).read_bytes()
    assert artifact["files"][name] == {
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_run_takes_a_single_weight_file(tmp_path: Path, volumes, target):
    write_files(tmp_path, ["iter_000000100_ema_model.pt"])
    source = {"path": str(tmp_path / "iter_000000100_ema_model.pt")}

    run(make_config("model", source), volumes)

    assert names_of(target) == [*RECORDS["model"], "model.pt"]


def test_run_verifies_files_that_are_in_place(volumes, target):
    write_files(target, [*KIND_FILES["model"], "notes.txt"])

    result = run(make_config("model", {"path": "models://Tiny"}), volumes)

    assert set(result["artifacts"][0]["files"]) == set(KIND_FILES["model"])
    assert names_of(target) == ["config.json", *RECORDS["model"], "model.pt", "notes.txt"]


def test_run_links_big_files(tmp_path: Path, volumes, target, monkeypatch):
    monkeypatch.setattr(folder, "LINK_SIZE_BYTES", 1)
    source = write_files(tmp_path / "src", KIND_FILES["model"])

    run(make_config("model", {"path": str(source)}), volumes)

    assert (target / "model.pt").samefile(source / "model.pt")


def test_run_reports_all_missing_files(tmp_path: Path, volumes, target):
    source = write_files(tmp_path / "src", ["encoder.jit", "autoencoder.jit"])

    message = (
        r"Tiny: .*src lacks decoder\.jit, mean_std\.pt for a tokenizer; it holds autoencoder\.jit, "
        r"encoder\.jit; add the files or correct the source"
    )
    with pytest.raises(DataError, match=message):
        run(make_config("tokenizer", {"path": str(source)}), volumes)

    assert not target.exists()


def test_run_reports_missing_pieces_of_weights(tmp_path: Path, volumes):
    pieces = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    source = write_files(tmp_path / "src", ["config.json", "tokenizer.json", *pieces])
    index = {"weight_map": {"a": pieces[0], "b": "model-00002-of-00002.safetensors"}}
    (source / pieces[1]).write_text(json.dumps(index))

    with pytest.raises(DataError, match=r"lacks model-00002-of-00002\.safetensors for a text_enc"):
        run(make_config("text_encoder", {"path": str(source)}), volumes)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            r"model\.pt: a Git LFS pointer, not the file; run 'git lf",
        ),
        (
            "<!doctype html><html><title>Sign in</title>",
            r"model\.pt: got an HTML page titled 'Sign in' instead of the file",
        ),
    ],
)
def test_run_reports_what_only_stands_for_weights(
    tmp_path: Path, volumes, single: bool, content: str, message: str
):
    source = write_files(tmp_path / "src", ["model.pt"])
    (source / "model.pt").write_text(content)

    path = source / "model.pt" if single else source
    with pytest.raises(UserError, match=message):
        run(make_config("model", {"path": str(path)}), volumes)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "diffusion_pytorch_model.ckpt", "part-00001-of-00002.bin"]
)
def test_run_recognises_a_pointer_of_any_name(tmp_path: Path, volumes, name: str):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / name).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
    )

    with pytest.raises(CheckpointError, match=rf"{name}: a Git LFS pointer.*git lfs pull"):
        run(make_config("model", {"path": str(tmp_path / "src")}), volumes)


@pytest.mark.parametrize(
    ("mean", "std"), [(math.nan, 1.0), (0.0, math.inf), (0.0, 0.0), (0.0, -1.0)]
)
def test_run_refuses_statistics_of_latents_that_are_none(tmp_path: Path, volumes, mean, std):
    source = write_files(tmp_path / "src", KIND_FILES["tokenizer"])
    torch.save((torch.full((256,), mean), torch.full((256,), std)), source / "mean_std.pt")

    with pytest.raises(CheckpointError, match=r"mean_std\.pt: (mean|std) has values that are not"):
        run(make_config("tokenizer", {"path": str(source)}), volumes)


@pytest.mark.parametrize("name", ["my-style.safetensors", "lora.safetensors", "style_lora.pt"])
def test_run_refuses_corrections_that_it_would_leave_behind(tmp_path: Path, volumes, name: str):
    source = write_files(tmp_path / "src", KIND_FILES["model"])
    corrections = {f"transformer.a.lora_{part}.weight": torch.ones(2, 2) for part in "AB"}
    write = save_file if name.endswith(".safetensors") else torch.save
    write(corrections, source / name)

    with pytest.raises(CheckpointError, match=rf"{name}: LoRA corrections beside weights"):
        run(make_config("model", {"path": str(source)}), volumes)
    # a file that is named is taken, whatever lies beside it
    run(make_config("model", {"path": str(source / "model.pt")}), volumes)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_run_names_folders_of_checkpoints_below(tmp_path: Path, volumes):
    step = tmp_path / "src/iter_000000100"
    dcp.save({"net.a": torch.ones(3)}, checkpoint_id=step / "model")

    message = r"torch\.distributed\.checkpoint in iter_000000100: give that folder itself"
    with pytest.raises(DataError, match=message):
        run(make_config("model", {"path": str(tmp_path / "src")}), volumes)
    with pytest.raises(CheckpointError, match=message):
        read_weight_file(tmp_path / "src")
    run(make_config("model", {"path": str(step)}), volumes)


def test_run_does_not_replace_other_weights(tmp_path: Path, volumes, target):
    source = write_files(tmp_path / "src", KIND_FILES["model"])
    write_files(target, ["model.pt"])
    (target / "model.pt").write_text("weights that something was trained from")

    message = r"Tiny: .*model\.pt exists with other content than the source's .*; remove it if"
    with pytest.raises(DataError, match=message):
        run(make_config("model", {"path": str(source)}), volumes)

    assert names_of(target) == ["model.pt"]
    assert (target / "model.pt").read_text().startswith("weights that")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (
            "model",
            r"Tiny: source path models://gone .* is no folder or a \.pt or \.safetensors file",
        ),
        ("tokenizer", r"Tiny: source path models://gone .* is no folder; correct the path"),
    ],
)
def test_run_reports_missing_source(volumes, kind, message):
    with pytest.raises(DataError, match=message):
        run(make_config(kind, {"path": "models://gone"}), volumes)


def test_run_fetches_an_archive_once(tmp_path: Path, volumes, target):
    source = write_files(tmp_path / "src", [*KIND_FILES["tokenizer"], "autoencoder.jit"])
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(source, arcname="Cosmos-Tokenize1-CV8x8x8-720p")
    config = make_config("tokenizer", {"url": {"url": (tmp_path / "a.tar").as_uri()}})

    first = run(config, volumes)
    (tmp_path / "a.tar").unlink()

    assert run(config, volumes) == first
    assert names_of(target) == sorted([*KIND_FILES["tokenizer"], "fetched-tokenizer.json"])
    assert names_of(target.parent) == ["Tiny"]


def test_run_fetches_only_needed_files_from_the_hub(tmp_path: Path, volumes, target, monkeypatch):
    others = ["pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "onnx/model.safetensors"]
    write_files(tmp_path / "repo", [*KIND_FILES["text_encoder"], *others])
    config = make_config("text_encoder", {"hugging_face": {"repo": "owner/name"}})

    with serve_hub(tmp_path / "repo") as hub:
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        first = run(config, volumes)

    assert sorted(hub.downloads) == sorted(KIND_FILES["text_encoder"])
    assert run(config, volumes) == first  # without a server
    assert names_of(target.parent) == ["Tiny"]


def test_run_reads_the_hub_cache_offline(tmp_path: Path, volumes, target, monkeypatch):
    import huggingface_hub

    write_files(tmp_path / "repo", KIND_FILES["model"])
    with serve_hub(tmp_path / "repo") as hub:
        point_client(monkeypatch, hub.url, tmp_path / "cache")
        huggingface_hub.snapshot_download("owner/name")
    point_client(monkeypatch, hub.url, tmp_path / "cache", offline=True)

    run(make_config("model", {"hugging_face": {"repo": "owner/name"}}), volumes)

    assert (target / "model.pt").read_bytes() == (tmp_path / "repo" / "model.pt").read_bytes()
    assert not (target / "model.pt").is_symlink()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["pytorch_model.bin", "tf_model.h5"], ["pytorch_model.bin"]),
        (
            ["pytorch_model.bin", "model.safetensors.index.json", "model-1-of-1.safetensors"],
            ["model.safetensors.index.json", "model-1-of-1.safetensors"],
        ),
    ],
)
def test_choose_files_takes_one_format_of_weights(weights, expected):
    names = ["config.json", "spiece.model", "generation_config.json", *weights]

    choice = choose_files("text_encoder", names)

    assert choice.names == ["config.json", "spiece.model", *expected]
    assert choice.missing == []


GUARDRAILS = KIND_FILES["guardrails"]


@pytest.mark.parametrize(
    ("kind", "names", "missing"),
    [
        ("guardrails", GUARDRAILS[1:], ["a list of words in blocklist/custom/"]),
        ("guardrails", [*GUARDRAILS[:2], GUARDRAILS[3]], []),  # without a whitelist more is blocked
        (
            "guardrails_with_face_blur",
            GUARDRAILS,
            ["face_blur_filter/Resnet50_Final.pth"],
        ),
        ("guardrails", GUARDRAILS[:3], ["video_content_safety_filter/safety_filter.pt"]),
        (
            "guardrails",
            ["blocklist/custom/.hidden", "blocklist/custom/deep/words", *GUARDRAILS[1:]],
            ["a list of words in blocklist/custom/"],
        ),
        (
            "text_classifier",
            ["adapter_config.json", "adapter_model.safetensors"],
            [
                "config.json",
                "one of tokenizer.json, tokenizer_config.json, spiece.model, tokenizer.model, tekken.json",
                "model.safetensors or pytorch_model.bin, whole or in pieces",
            ],
        ),
        (
            "image_encoder",
            ["config.json", "model.safetensors"],
            ["one of preprocessor_config.json, processor_config.json"],
        ),
        (
            "prompt_upsampler",
            ["config.json", "tokenizer.json", "model.safetensors"],
            ["one of preprocessor_config.json, processor_config.json"],
        ),
    ],
)
def test_choose_files_says_which_files_beside_the_weights_are_absent(kind, names, missing):
    assert choose_files(kind, names).missing == missing


def test_run_takes_guardrails_with_their_folders_and_nothing_else(tmp_path: Path, volumes, target):
    others = ["face_blur_filter/Resnet50_Final.pth", "blocklist/nltk_data/x.zip", "aegis/a.bin"]
    source = write_files(tmp_path / "src", [*GUARDRAILS, *others])
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(source, arcname="Cosmos-Guardrail1")
    config = make_config("guardrails", {"url": {"url": (tmp_path / "a.tar").as_uri()}})

    first = run(config, volumes)

    assert sorted(first["artifacts"][0]["files"]) == GUARDRAILS
    found = [path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()]
    assert sorted(found) == [*GUARDRAILS[:3], "fetched-guardrails.json", GUARDRAILS[3]]
    (tmp_path / "a.tar").unlink()
    assert run(config, volumes) == first


def test_choose_files_says_what_a_text_encoder_lacks():
    missing = choose_files("text_encoder", ["tf_model.h5"]).missing

    assert missing == [
        "config.json",
        "one of tokenizer.json, tokenizer_config.json, spiece.model",
        "model.safetensors or pytorch_model.bin, whole or in pieces",
    ]
