"""The network that finds faces: names and shapes, prior boxes, decoding, selection, refusals."""

from __future__ import annotations

import hashlib
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.faces import face_state, write_face_detector

from cosmos_worker.errors import CheckpointError
from cosmos_worker.guardrails.faces import (
    decode,
    prior_boxes,
    select_faces,
)
from cosmos_worker.guardrails.retinaface import (
    RetinaFace,
    read_detector,
)

NUM_ENTRIES, NUM_PARAMETERS = 456, 27_293_600
ENTRIES_SHA256 = "eb54b880ab291bf8e2244dd94de9d2b9d631c8bd6e64aaec32b5952aa4ccb6a5"
"""Digest of the sorted lines ``name shape`` of the published network."""


def test_network_has_the_released_names_and_shapes() -> None:
    with torch.device("meta"):
        network = RetinaFace()

    state = network.state_dict()
    lines = [f"{name} {tuple(value.shape)}" for name, value in sorted(state.items())]

    assert len(lines) == NUM_ENTRIES
    assert sum(parameter.numel() for parameter in network.parameters()) == NUM_PARAMETERS
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == ENTRIES_SHA256


@pytest.mark.parametrize(("height", "width"), [(64, 128), (40, 72), (33, 20)])
def test_network_has_a_value_for_each_prior_box(height: int, width: int) -> None:
    with torch.device("meta"):
        network = RetinaFace().eval()
        offsets, logits = network(torch.zeros(2, 3, height, width))

    num_priors = len(prior_boxes(height, width))
    assert (offsets.shape, logits.shape) == ((2, num_priors, 4), (2, num_priors, 2))


def test_prior_boxes_are_those_computed_by_hand() -> None:
    found = prior_boxes(height=20, width=40)

    assert len(found) == 2 * (3 * 5 + 2 * 3 + 1 * 2)
    wanted = {
        0: (4 / 40, 4 / 20, 16 / 40, 16 / 20),
        1: (4 / 40, 4 / 20, 32 / 40, 32 / 20),
        2: (12 / 40, 4 / 20, 16 / 40, 16 / 20),
        10: (4 / 40, 12 / 20, 16 / 40, 16 / 20),
        30: (8 / 40, 8 / 20, 64 / 40, 64 / 20),
        31: (8 / 40, 8 / 20, 128 / 40, 128 / 20),
        42: (16 / 40, 16 / 20, 256 / 40, 256 / 20),
        45: (48 / 40, 16 / 20, 512 / 40, 512 / 20),
    }
    for index, box in wanted.items():
        torch.testing.assert_close(found[index], torch.tensor(box), rtol=0, atol=1e-6)


def test_boxes_are_decoded_as_computed_by_hand() -> None:
    priors = torch.tensor([[0.5, 0.25, 0.25, 0.5], [0.5, 0.5, 0.1, 0.2]])
    offsets = torch.tensor([[1.0, -2.0, 0.0, 5 * math.log(2)], [0.0, 0.0, 0.0, 0.0]])

    found = decode(offsets, priors, height=100, width=200)

    wanted = torch.tensor([[80.0, -35.0, 130.0, 65.0], [90.0, 40.0, 110.0, 60.0]])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)


def test_the_best_of_overlapping_boxes_is_kept_and_low_scores_are_not() -> None:
    boxes = torch.tensor(
        [
            [0.0, 0, 9, 3.3],  # overlaps the next by 43 of 100 pixels, both ends included
            [0.0, 0, 9, 9],
            [0.0, 0, 9, 2.9],  # by 39 of 100
            [50.0, 50, 80, 80],
            [100.0, 0, 130, 30],
        ]
    )
    scores = torch.tensor([0.8, 0.9, 0.75, 0.7, 0.99])

    found = select_faces(boxes, scores)

    assert found.tolist() == boxes[[4, 1, 2]].tolist()
    assert select_faces(boxes, torch.zeros(5)).shape == (0, 4)


@pytest.mark.parametrize("form", ["plain", "prefix", "wrapped"])
def test_file_is_read_in_each_of_its_forms(tmp_path: Path, form: str) -> None:
    state = face_state()
    content: Any = state if form == "plain" else {f"module.{k}": v for k, v in state.items()}
    path = write_face_detector(
        tmp_path / "x.pth", {"state_dict": content} if form == "wrapped" else content
    )
    drawn = torch.random.get_rng_state()

    network = read_detector(path)

    assert not network.training
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(network.state_dict()[name], state[name]) for name in state)


def damaged(path: Path, change: str) -> None:
    state = face_state()
    if change == "absent":
        path.unlink()
    elif change == "cut off":
        path.write_bytes(path.read_bytes()[:100])
    elif change == "no landmarks":
        torch.save({k: v for k, v in state.items() if not k.startswith("Landmark")}, path)
    elif change == "one more":
        torch.save({**state, "extra.weight": torch.zeros(1)}, path)
    elif change == "another shape":
        torch.save({**state, "ClassHead.0.conv1x1.bias": torch.zeros(6)}, path)
    elif change == "no weights":
        torch.save([1, 2], path)
    elif change == "code":
        torch.save({"state_dict": Path("x")}, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("absent", r"x\.pth: no such file, which finds the faces that are blurred"),
        ("cut off", r"x\.pth: cannot be read"),
        ("no landmarks", r"not the weights of RetinaFace .*LandmarkHead\.0\.conv1x1\.weight"),
        ("one more", r"not the weights of RetinaFace .*extra\.weight"),
        ("another shape", r"not the weights of RetinaFace .*ClassHead\.0\.conv1x1\.bias"),
        ("no weights", "holds no weights by name"),
        ("code", "cannot be read"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: str, message: str) -> None:
    path = write_face_detector(tmp_path / "x.pth")
    damaged(path, change)

    with pytest.raises(CheckpointError, match=message):
        read_detector(path)


def test_a_missing_package_is_named_with_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_face_detector(tmp_path / "x.pth")
    monkeypatch.setitem(sys.modules, "torchvision.models", None)

    with pytest.raises(CheckpointError, match=r"torchvision.* install the extra 'guardrails'"):
        read_detector(path)
