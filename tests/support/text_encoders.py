"""Small T5 encoders on disk, real but for their size."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast, T5Config, T5EncoderModel


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


def write_unigram_tokenizer(folder: Path, *, byte_fallback: bool = False) -> Path:
    """Replace the tokenizer in a folder by a SentencePiece Unigram, as T5's, of small Latin letters and some words.

    Args:
        folder: of an encoder of :func:`write_t5`.
        byte_fallback: what is in no piece becomes bytes, as umT5 does it, instead of one unknown token for each run.
    """
    special, words = ("<pad>", "</s>", "<unk>"), ("push", "the", "red", "blue", "cube", "left")
    pieces = [(name, 0.0) for name in special] + [("▁", -3.0)]
    pieces += [(letter, -4.0) for letter in string.ascii_lowercase]
    pieces += [(f"▁{word}", -2.0) for word in words]
    if byte_fallback:
        pieces += [(f"<0x{number:02X}>", -9.0) for number in range(256)]
    tokenizer = Tokenizer(models.Unigram(pieces, 2, byte_fallback))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace("▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def edit_json(path: Path, **values: object) -> None:
    """Replace top-level values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
