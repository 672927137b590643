"""``cosmos-worker check`` of a generate document that asks for upsampler and guardrails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.auxiliary_models import write_auxiliary_models
from support.faces import write_face_detector
from support.generation import generate_config

from cosmos_worker.cli import main
from cosmos_worker.guardrails.check import auxiliary_model_lines
from cosmos_worker.runtime.machine_check import Line
from cosmos_worker.storage.volumes import (
    FACE_FILE,
    FILTER_FILE,
    Volumes,
)

NAMES = ["upsample", "words", "text", "siglip", "filter"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_auxiliary_models(tmp_path_factory.mktemp("auxiliary-models"))


def write_document(folder: Path, **auxiliary_models: Any) -> Path:
    inputs = [{"prompt": "push", "visual_input_uri": "clip.mp4"}]
    config = generate_config(folder / "models", folder / "out", inputs, **auxiliary_models)
    path = folder / "generate.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    return path


def look(folder: Path, auxiliary_models: dict[str, Any]) -> dict[str, Line]:
    inputs = [{"prompt": "push", "visual_input_uri": "clip.mp4"}]
    config = generate_config(folder, folder, inputs, **auxiliary_models)
    return {line.name: line for line in auxiliary_model_lines(config, Volumes())}


def test_what_is_there_is_told(
    tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "--document", str(write_document(tmp_path, **whole))]) == 0

    lines = capsys.readouterr().out.splitlines()[-5:]
    assert [line.split()[:2] for line in lines] == [["ok", name] for name in NAMES]
    assert lines[0].endswith("upsampler: prompt upsampler of type llava")
    assert lines[1].endswith("guardrails: 3 word lists")
    assert lines[4].endswith(f"{FILTER_FILE}: 7 classes")


def test_what_is_not_asked_for_is_not_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = {"prompt_upsampler_uri": str(tmp_path / "gone")}

    assert list(look(tmp_path, gone)) == ["upsample"]
    assert main(["check", "--document", str(write_document(tmp_path))]) == 0
    assert not set(NAMES) & {line[8:17].strip() for line in capsys.readouterr().out.splitlines()}


@pytest.mark.parametrize(
    ("absent", "name", "message"),
    [
        ("upsampler", "upsample", r"upsampler/config.json: no such file; give the folder of a prompt"),
        ("upsampler/model.safetensors", "upsample", "no weights of the prompt upsampler"),
        ("upsampler/processor_config.json", "upsample", "upsampler"),
        ("guardrails/blocklist/custom/list", "words", "; fetch the guardrails again"),
        ("classifier/model.safetensors", "text", "; fetch it again"),
        ("classifier/tokenizer.json", "text", "transformers cannot load the text classifier"),
        ("siglip/model.safetensors", "siglip", "no weights of the image encoder"),
        (f"guardrails/{FILTER_FILE}", "filter", "no such file; fetch the guardrails again"),
    ],
)  # fmt: skip
def test_what_is_absent_is_missing_and_nothing_else(
    tmp_path: Path, absent: str, name: str, message: str
) -> None:
    auxiliary_models = write_auxiliary_models(tmp_path)
    (tmp_path / absent).rename(tmp_path / "elsewhere")

    lines = look(tmp_path, auxiliary_models)

    assert [one for one, line in lines.items() if line.is_missing] == [name]
    assert message in str(lines[name])


def test_faces_are_looked_for_where_they_are_to_be_blurred(tmp_path: Path) -> None:
    auxiliary_models = write_auxiliary_models(tmp_path)
    auxiliary_models["guardrails"]["face_blur"] = True

    (absent,) = (line for line in look(tmp_path, auxiliary_models).values() if line.is_missing)
    write_face_detector(tmp_path / "guardrails" / FACE_FILE)
    there = look(tmp_path, auxiliary_models)["faces"]

    assert str(absent).startswith("MISSING faces")
    assert FACE_FILE in str(absent)
    assert not there.is_missing
    assert str(there).endswith(f"{FACE_FILE}: a RetinaFace network")


def test_job_that_could_not_run_is_exit_code_2(
    tmp_path: Path, whole: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    document = write_document(tmp_path, **{**whole, "prompt_upsampler_uri": "models://pixtral"})

    assert main(["check", "--document", str(document)]) == 2

    printed = capsys.readouterr()
    assert "MISSING upsample models://pixtral: volume 'models' is not mounted; set " in printed.out
    assert "this machine cannot run the job: 1 missing: upsample: " in printed.err


def test_file_that_cannot_be_read_is_missing(tmp_path: Path) -> None:
    auxiliary_models = write_auxiliary_models(tmp_path)
    for path in (tmp_path / "classifier/config.json", tmp_path / "guardrails" / FILTER_FILE):
        path.unlink()
        path.mkdir()

    lines = look(tmp_path, auxiliary_models)

    assert [name for name, line in lines.items() if line.is_missing] == ["text", "filter"]
    assert "config.json: cannot be read (Is a directory)" in str(lines["text"])


WITHOUT = """
import sys
sys.modules[sys.argv[1]] = None
from cosmos_worker.cli import main
sys.exit(main(["check", "--document", sys.argv[2]]))
"""


def test_package_that_is_absent_is_named(tmp_path: Path, whole: dict[str, Any]) -> None:
    document = write_document(tmp_path, **whole)

    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT, "transformers", str(document)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 2
    missing = [line for line in ended.stdout.splitlines() if line.startswith("MISSING")]
    assert [line.split()[1] for line in missing] == ["upsample", "text", "siglip"]
    assert all("needs the package transformers" in line for line in missing)
