"""The network against the reference's tensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.vectors import build_network, load_vector, under
from torch.testing import assert_close

from cosmos_worker.model.layers import timestep_sinusoid
from cosmos_worker.model.rope import RotaryPositions

TOLERANCE = {"atol": 5e-6, "rtol": 0.0}  # a re-implementation from the facts alone reached 2.4e-6


def test_network_matches_reference(net_vector_path: Path) -> None:
    values, tensors = load_vector(net_vector_path)
    net, given, wanted = (
        build_network(values, tensors),
        under(tensors, "inputs"),
        under(tensors, "outputs"),
    )
    hidden = []
    for block in net.blocks.values():
        block.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))

    with torch.no_grad():
        y = net(
            given["x"],
            given["timesteps"],
            given["crossattn_emb"],
            given["condition_video_input_mask"],
            given["fps"].expand(len(given["x"])),
            given["padding_mask"].expand(len(given["x"]), -1, -1, -1),
        )
        emb, lora = net.embed_timestep(given["timesteps"])

    T, h, w = wanted["hidden_THWBD/0"].shape[:3]
    assert_close(y, wanted["y_train_fp32"], **TOLERANCE)
    assert_close(emb, wanted["affline_emb"], **TOLERANCE)
    assert_close(lora, wanted["t_lora_3D"], **TOLERANCE)
    assert_close(timestep_sinusoid(given["timesteps"], emb.shape[-1]), wanted["t_sin"], **TOLERANCE)
    for i, hidden_BLD in enumerate(hidden):
        expected = wanted[f"hidden_THWBD/{i}"].permute(3, 0, 1, 2, 4).flatten(1, 3)
        assert_close(hidden_BLD, expected, atol=2e-5, rtol=1e-5)
    if "extra_pos" in wanted:
        assert_close(
            net.extra_pos_embedder((T, h, w)), wanted["extra_pos"][:1].flatten(1, 3), **TOLERANCE
        )
    assert len(hidden) == values["config/num_blocks"]


def test_network_angles_match_reference(net_vector_path: Path) -> None:
    values, tensors = load_vector(net_vector_path)
    net, given, wanted = (
        build_network(values, tensors),
        under(tensors, "inputs"),
        under(tensors, "outputs"),
    )
    T, h, w = wanted["hidden_THWBD/0"].shape[:3]

    exact = net.pos_embedder((T, h, w), given["fps"][:1])
    emulated = net.pos_embedder((T, h, w), given["fps"][:1], torch.bfloat16)

    assert_close(torch.cat([exact, exact], -1)[0], wanted["rope_fp32"][:, 0, 0], atol=1e-6, rtol=0)
    assert_close(
        torch.cat([emulated, emulated], -1)[0], wanted["rope_bf16"][:, 0, 0], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize(("name", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_rope_matches_reference(rope_vector_path: Path, name: str, dtype: torch.dtype) -> None:
    values, tensors = load_vector(rope_vector_path)
    cases = {key: tensor for key, tensor in tensors.items() if key.split("/")[-1] == name}
    assert cases
    for key, expected in cases.items():
        group = key.rpartition("/")[0]
        cfg = values[f"{group}/cfg" if group else "cfg"]
        ratio_h, ratio_w, ratio_t, T, h, w, fps = cfg
        positions = RotaryPositions(expected.shape[-1], ratio_t, ratio_h, ratio_w, 128)

        angles = positions((T, h, w), torch.tensor([float(fps)]), dtype)[0]

        stride = 1 if len(expected) == len(angles) else 97  # large files hold every 97th row
        assert_close(
            torch.cat([angles, angles], -1)[::stride], expected[:, 0, 0], atol=2e-6, rtol=1e-6
        )
