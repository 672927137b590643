from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.auxiliary_models import filter_state, write_guardrails, write_image_encoder
from support.generation import moving_square

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.guardrails import video_filter
from cosmos_worker.guardrails.video_filter import (
    CLASSES,
    VideoFilter,
    check_encoder,
    read_classifier,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_encoder(tmp_path_factory.mktemp("encoder") / "siglip")


@pytest.mark.parametrize("number", range(7))
def test_filter_blocks_every_class_but_safe(tmp_path: Path, encoder: Path, number: int) -> None:
    bias = np.eye(7)[number].tolist()
    judge = VideoFilter(write_guardrails(tmp_path / "g", bias), encoder, CPU)

    verdict = judge.check(moving_square())

    if number == 0:
        assert verdict is None
    else:
        assert verdict is not None
        assert verdict.by == "video-filter"
        assert verdict.reason == (
            f"17 of 17 frames are unsafe, the first is frame 0: {CLASSES[number]}"
        )


def test_one_unsafe_frame_blocks(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = VideoFilter(write_guardrails(tmp_path / "g"), encoder, CPU)
    features = []
    classifier = judge._classifier

    def classify(features_ND: torch.Tensor) -> torch.Tensor:
        features.append(features_ND)
        scores = classifier(features_ND)
        scores[-1, 2] = 99 if len(features) == 2 else 0
        return scores

    monkeypatch.setattr(judge, "_classifier", classify)
    verdict = judge.check(moving_square())

    assert [len(part) for part in features] == [16, 1]  # every frame, in batches
    assert verdict is not None
    assert verdict.reason == "1 of 17 frames are unsafe, the first is frame 16: violence"


def test_scores_are_those_of_the_true_classes(tmp_path: Path, encoder: Path) -> None:
    """Frame by frame: SigLIP as transformers runs it, then the layers of the published network."""
    from transformers import AutoImageProcessor, SiglipModel

    state = filter_state((0,) * 7, random=True)
    judge = VideoFilter(write_guardrails(tmp_path / "g", state=state), encoder, CPU)
    frames = moving_square(num_frames=5)
    processor = AutoImageProcessor.from_pretrained(encoder)
    model = SiglipModel.from_pretrained(encoder).eval()
    get = {name.removeprefix("network.layers."): value for name, value in state.items()}

    found = judge._score(frames)

    for frame, scores in zip(frames, found, strict=True):
        pixels = processor(images=frame, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            output: Any = model.get_image_features(pixel_values=pixels)
        x = getattr(output, "pooler_output", output)
        x = x / x.norm(dim=-1, keepdim=True)
        for linear, norm in ((0, 1), (3, 4)):
            x = x @ get[f"{linear}.weight"].T + get[f"{linear}.bias"]
            x = (x - get[f"{norm}.running_mean"]) / (get[f"{norm}.running_var"] + 1e-5).sqrt()
            x = (x * get[f"{norm}.weight"] + get[f"{norm}.bias"]).relu()
        wanted = x @ get["6.weight"].T + get["6.bias"]
        torch.testing.assert_close(scores, wanted[0], rtol=1e-4, atol=1e-4)


def test_a_frame_that_cannot_be_judged_is_an_error(tmp_path: Path, encoder: Path) -> None:
    judge = VideoFilter(write_guardrails(tmp_path / "g", (float("nan"),) * 7), encoder, CPU)

    with pytest.raises(DataError, match="frame 0 has no finite score"):
        judge.check(moving_square())
    with pytest.raises(DataError, match="the video has no frame"):
        judge.check(moving_square()[:0])


def damaged(path: Path, change: str) -> None:
    state = filter_state()
    if change == "absent":
        path.unlink()
    elif change == "cut off":
        path.write_bytes(path.read_bytes()[:100])
    elif change == "six classes":
        torch.save({"model": filter_state((0,) * 6)}, path)
    elif change == "a layer less":
        state.pop("network.layers.3.weight")
        torch.save({"model": state}, path)
    elif change == "another network":
        torch.save({"model": {"net.weight": torch.zeros(3, 3)}}, path)
    elif change == "no weights":
        torch.save([1, 2], path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("absent", r"safety_filter\.pt: no such file; fetch the guardrails again"),
        ("cut off", r"safety_filter\.pt: cannot be read as a file of torch tensors"),
        ("six classes", "6 classes, the video filter has 7"),
        ("a layer less", "not the network of the video filter"),
        ("another network", "not the network of the video filter"),
        ("no weights", "holds no weights by name"),
    ],
)
def test_filter_refuses_other_files(tmp_path: Path, change: str, message: str) -> None:
    path = write_guardrails(tmp_path / "g") / video_filter.FILTER_FILE
    damaged(path, change)

    with pytest.raises(CheckpointError, match=message):
        read_classifier(path)


def test_filter_runs_no_code_of_its_file(tmp_path: Path) -> None:
    path = write_guardrails(tmp_path / "g") / video_filter.FILTER_FILE
    torch.save({"model": Path("x")}, path)

    with pytest.raises(CheckpointError, match="cannot be read as a file of torch tensors"):
        read_classifier(path)


def test_filter_refuses_an_encoder_that_does_not_fit(tmp_path: Path, encoder: Path) -> None:
    folder = write_guardrails(tmp_path / "g", state=filter_state(features=8))
    with pytest.raises(CheckpointError, match=r"features are 16 wide, .* takes 8"):
        VideoFilter(folder, encoder, CPU)

    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(CheckpointError, match="model_type 'clip'"):
        check_encoder(tmp_path)
