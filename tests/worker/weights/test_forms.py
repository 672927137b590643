"""Which file of a folder is loaded, by names alone."""

import pytest

from cosmos_worker.errors import CheckpointError
from cosmos_worker.weights.forms import (
    choose_weights,
    files_beside,
)

TRAINER = [
    "iter_000000500.pt",
    "iter_000000500_reg_model.pt",
    "iter_000000500_ema_model.pt",
    "iter_000000500_optim.pt",
    "iter_000000500_RANK1_ema_model.pt",
]
DIFFUSERS = [
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors.index.json",
    "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
    "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
    "logvar.safetensors",
]
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.pt", *DIFFUSERS, *TRAINER], "model.pt"),
        (DIFFUSERS, DIFFUSERS[1]),
        (["transformer/a.safetensors", "logvar.safetensors"], "transformer/a.safetensors"),
        (["diffusion_pytorch_model.safetensors", "config.json"], "diffusion_pytorch_model.safetensors"),
        ([INDEX, "a.safetensors", "b.safetensors"], INDEX),
        (["vae/model.safetensors", "text_encoder/model.pt", *TRAINER], "iter_000000500_ema_model.pt"),
        (["iter_000000500_reg_model.pt"], "iter_000000500_reg_model.pt"),
        ([*TRAINER, "iter_000001000_reg_model.pt"], "iter_000001000_reg_model.pt"),
        (["iter_000005000_model.pt", "iter_000005000_reg_model.pt"], "iter_000005000_model.pt"),
        (["README.md", "iter_000000500.pt", "tokenizer/model.pt"], None),
        (["adapter_model.safetensors", "model.safetensors"], "model.safetensors"),
        (["adapter_model.safetensors", "adapter_config.json"], None),
    ],
)  # fmt: skip
def test_best_form_is_chosen(names, expected):
    assert choose_weights(names, "there") == expected
    assert choose_weights(reversed(names), "there") == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.safetensors", "b.safetensors"], r"there: holds 2 weight files and no index \(a\.s"),
        ([INDEX, f"fp16.{INDEX}"], r"there: holds 2 indexes of shards \(fp16\.model\.s"),
    ],
)
def test_several_files_of_one_form_are_refused(names, message):
    with pytest.raises(CheckpointError, match=message):
        choose_weights(names, "there")


def test_what_lies_beside_belongs_to_diffusers_only():
    assert files_beside(DIFFUSERS[1], DIFFUSERS) == ([DIFFUSERS[0], "logvar.safetensors"], [])
    assert files_beside(DIFFUSERS[1], DIFFUSERS[1:]) == (["logvar.safetensors"], [DIFFUSERS[0]])
    assert files_beside("model.pt", ["model.pt", "config.json", "logvar.safetensors"]) == (
        ["config.json"],
        [],
    )
