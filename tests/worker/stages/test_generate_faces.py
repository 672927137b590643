"""Face blur of the generate stage: after the video filter, before the file; refused when its network is absent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.auxiliary_models import write_auxiliary_models, write_guardrails
from support.faces import face_state, write_face_detector
from support.generation import generate_config

from cosmos_worker.data.video.files import write_video
from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails import (
    faces as face_blur,
)
from cosmos_worker.guardrails import video_filter
from cosmos_worker.guardrails.faces import FaceBlur
from cosmos_worker.sample import records
from cosmos_worker.sample.kept_passes import KeptPasses
from cosmos_worker.stages import generate
from cosmos_worker.storage.volumes import (
    FACE_FILE,
    Volumes,
)

VIOLENCE = (0, 0, 9, 0, 0, 0, 0)
# NVIDIA releases TorchScript, which PyTorch deprecates since 2.9
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is (deprecated|not supported)")


@pytest.fixture(scope="module")
def clip(clips: list[Path]) -> Path:
    return clips[0]


@pytest.fixture(scope="module")
def guards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("auxiliary-models")
    auxiliary_models = write_auxiliary_models(folder)
    write_face_detector(folder / "guardrails" / FACE_FILE)
    return {**auxiliary_models["guardrails"], "face_blur": True}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[NDArray[np.uint8]]:
    """Videos as the stage decodes them, before video filter and face blur."""
    found: list[NDArray[np.uint8]] = []
    true = generate.generate_videos

    def keep(*args: Any, **kwargs: Any) -> Any:
        videos = true(*args, **kwargs)
        found.extend(video.copy() for video in videos)
        return videos

    monkeypatch.setattr(generate, "generate_videos", keep)
    return found


def run(models: Path, clip: Path, target: Path, guards: dict[str, Any]) -> dict[str, Any]:
    inputs = [{"prompt": "a red cube", "visual_input_uri": str(clip)}]
    return generate.run(generate_config(models, target, inputs, guardrails=guards), Volumes())


def read_record(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "000.json").read_text())


def test_the_file_has_blurred_faces_and_the_record_counts_their_frames(
    models: Path,
    clip: Path,
    guards: dict[str, Any],
    decoded: list[NDArray[np.uint8]],
    tmp_path: Path,
) -> None:
    blur = FaceBlur(Path(guards["folder_uri"]), torch.device("cpu"))

    result = run(models, clip, tmp_path / "out", guards)

    frames, num_frames = blur.blur(decoded[0])
    write_video(tmp_path / "wanted.mp4", frames, 4.0)
    assert num_frames > 0
    assert (tmp_path / "out" / "000.mp4").read_bytes() == (tmp_path / "wanted.mp4").read_bytes()
    assert read_record(tmp_path / "out")["frames_with_faces"] == num_frames
    assert result["with_faces"] == 1


def test_faces_are_blurred_between_the_filter_and_the_file(
    models: Path,
    clip: Path,
    guards: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def watch(owner: Any, name: str) -> None:
        true = getattr(owner, name)

        def called(*args: Any) -> Any:
            order.append(name)
            return true(*args)

        monkeypatch.setattr(owner, name, called)

    watch(video_filter.VideoFilter, "check")
    watch(face_blur.FaceBlur, "blur")
    watch(records, "write_video")

    run(models, clip, tmp_path / "safe", guards)
    unsafe = write_guardrails(tmp_path / "g", VIOLENCE)
    write_face_detector(unsafe / FACE_FILE)
    result = run(models, clip, tmp_path / "unsafe", {**guards, "folder_uri": str(unsafe)})

    assert order == ["check", "blur", "write_video", "check"]
    assert result["blocked"] == 1


@pytest.mark.parametrize("face_blur", [False, True])
def test_a_pass_whose_faces_are_blurred_in_the_video_is_not_kept(
    models: Path,
    clip: Path,
    guards: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    face_blur: bool,
) -> None:
    kept: list[Path] = []
    remove = KeptPasses.remove
    monkeypatch.setattr(
        KeptPasses, "remove", lambda self: (kept.extend(self.folder.glob("*")), remove(self))
    )
    inputs = [{"prompt": "a red cube", "visual_input_uri": str(clip)}]
    chosen = {**guards, "face_blur": face_blur}
    config = generate_config(
        models, tmp_path, inputs, guardrails=chosen, sampling={"num_passes": 2}
    )

    result = generate.run(config, Volumes())

    assert result["videos"] == 1
    assert len(kept) == (0 if face_blur else 1)


def test_videos_without_blur_are_made_again_with_it_and_kept_afterwards(
    models: Path, clip: Path, guards: dict[str, Any], tmp_path: Path
) -> None:
    plain = run(models, clip, tmp_path, {**guards, "face_blur": False})
    before = read_record(tmp_path)

    again = run(models, clip, tmp_path, guards)
    kept = run(models, clip, tmp_path, guards)

    assert "frames_with_faces" not in before
    assert "with_faces" not in plain
    assert (again["kept"], kept["kept"]) == (0, 1)
    assert read_record(tmp_path)["video_sha256"] != before["video_sha256"]


@pytest.mark.parametrize(
    ("change", "message"),
    [("absent", r"Resnet50_Final\.pth: no such file"), ("wrong", "not the weights of RetinaFace")],
)
def test_a_network_that_is_absent_or_wrong_is_refused_before_anything_is_sampled(
    models: Path,
    clip: Path,
    decoded: list[NDArray[np.uint8]],
    tmp_path: Path,
    change: str,
    message: str,
) -> None:
    guards = {**write_auxiliary_models(tmp_path / "c")["guardrails"], "face_blur": True}
    if change == "wrong":
        state = face_state()
        state.pop("fpn.merge1.0.weight")
        write_face_detector(tmp_path / "c" / "guardrails" / FACE_FILE, state)

    with pytest.raises(CheckpointError, match=message):
        run(models, clip, tmp_path / "out", guards)

    assert decoded == []
    assert not (tmp_path / "out").exists()
    assert run(models, clip, tmp_path / "out", {**guards, "face_blur": False})["videos"] == 1
