"""Repositories as NVIDIA and Google release them, tiny: weights, tokenizer, text encoder, and what else lies there."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from cosmos_worker.config.network import NetConfig
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.weights.load import save_weight_file
from support.released_tokenizer import write_released_tokenizer
from support.tiny_tokenizer import Encoder, write_script

MODEL = "nvidia/Cosmos-Predict1-7B-Video2World"
TOKENIZER = "nvidia/Cosmos-Tokenize1-CV8x8x8-720p"
ENCODER = "google-t5/t5-11b"
NEEDED = {
    MODEL: {"model.pt", "config.json"},
    TOKENIZER: {"encoder.jit", "decoder.jit", "mean_std.pt", "config.json"},
    ENCODER: {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"},
}
"""Files that a post-training needs."""


def write_repositories(root: Path, net: NetConfig) -> dict[str, Path]:
    """Write all three below a folder; returns repository → folder."""
    folders = {repo: root / repo for repo in NEEDED}
    _write_model(folders[MODEL], net)
    _write_tokenizer(folders[TOKENIZER])
    _write_encoder(folders[ENCODER], net.text_channels)
    for folder in folders.values():
        (folder / "README.md").write_text("# Model card\n")
        (folder / ".gitattributes").write_text("*.pt filter=lfs\n")
    return folders


def _write_model(folder: Path, net: NetConfig) -> None:
    """model.pt in bfloat16, with the extra position embedding."""
    model = CosmosModel(net, extra_pos_emb=True)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.init_weights(generator)
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    save_weight_file(folder / "model.pt", model.state_dict(), torch.bfloat16)
    (folder / "config.json").write_text('{"architectures": ["CosmosDiffusionVideo2WorldModel"]}')
    (folder / "guardrail" / "video_content_safety_filter").mkdir(parents=True)
    torch.save({}, folder / "guardrail" / "video_content_safety_filter" / "safety_filter.pt")


def _write_tokenizer(folder: Path) -> None:
    """TorchScript and statistics in bfloat16, and the whole as a third script."""
    write_released_tokenizer(folder, torch.bfloat16)
    write_script(Encoder(), folder / "autoencoder.jit", torch.bfloat16)
    torch.save({}, folder / "model.pt")
    (folder / "config.json").write_text("{}")


def _write_encoder(folder: Path, width: int) -> None:
    """The whole T5, decoder included, with a tokenizer of pieces; and its weights in other frameworks' forms."""
    config = T5Config(
        vocab_size=128, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2,
        decoder_start_token_id=0,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        T5ForConditionalGeneration(config).save_pretrained(folder)
    pieces = ["<pad>", "</s>", "<unk>", "▁", "▁push", "▁the", "▁cube", "▁left", "▁put", "▁in"]
    pieces += [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [(piece, -float(rank)) for rank, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    for name in ("tf_model.h5", "pytorch_model.bin", "flax_model.msgpack"):
        (folder / name).write_bytes(b"the same weights in another form")
