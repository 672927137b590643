"""Small T5 encoders on disk, real in every respect but size."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import ByT5Tokenizer, T5Config, T5EncoderModel


def write_t5(folder: Path, *, d_model: int = 16, seed: int = 0, output_scale: float = 1.0) -> Path:
    """Write a T5 encoder with random weights and the byte tokenizer; returns the folder."""
    config = T5Config(
        vocab_size=384, d_model=d_model, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        feed_forward_proj="gated-gelu", is_encoder_decoder=False, use_cache=False,
        tokenizer_class="ByT5Tokenizer",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = T5EncoderModel(config)
    with torch.no_grad():
        encoder.encoder.final_layer_norm.weight.mul_(output_scale)
    encoder.save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


def edit_json(path: Path, **values: object) -> None:
    """Replace top-level values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
