"""Upsampler, text classifier, image encoder and video filter of the true classes, tiny, written by the tests.

The two chat models are machines of one state: the next token follows from the last one alone, through weights that
are set, not drawn. So their answer depends on the last letter of the prompt alone, and is known to the test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipTextConfig,
    SiglipVisionConfig,
)

PAD, START, END, PICTURE = "<pad>", "<s>", "</s>", "[IMG]"
SPECIAL = (PAD, START, END, PICTURE)
CHAT = (
    "{% for m in messages %}<s>{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
    "{% if c.type == 'image' %}[IMG]{% else %}{{ c.text }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)
FEATURES = 16
SIZE = 32
VERDICTS = {"?": ("unsafe\nS2",), "~": ("maybe",)}
"""Last letter of a prompt → the classifier's answer; anything else is safe."""


def write_classifier(
    folder: Path, answers: Mapping[str, Sequence[str]] = VERDICTS, otherwise: str = "safe"
) -> Path:
    """A Llama with a chat template that answers to the last letter of a prompt."""
    words = [word for answer in answers.values() for word in answer]
    tokenizer, vocabulary = small_tokenizer([*words, otherwise], CHAT)
    model = LlamaForCausalLM(_llama(len(vocabulary)))
    set_answers(model, vocabulary, answers, otherwise)
    _save(model, folder)
    tokenizer.save_pretrained(folder)
    return folder


def draw_llava(
    vision: PretrainedConfig, text: PretrainedConfig, vocabulary: Mapping[str, int]
) -> LlavaForConditionalGeneration:
    """A vision-language model with fixed random weights; the test's random state is not changed."""
    config = LlavaConfig(
        vision_config=vision.to_dict(),
        text_config=text.to_dict(),
        image_token_index=vocabulary[PICTURE],
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlavaForConditionalGeneration(config)


def write_upsampler(
    folder: Path,
    answers: Mapping[str, Sequence[str]] | None = None,
    otherwise: str = "A cube moves.",
) -> Path:
    """A Llava with a processor that answers to the last letter of the request, or (with {}) always the same."""
    words = [word for answer in (answers or {}).values() for word in answer]
    tokenizer, vocabulary = small_tokenizer([*words, otherwise], CHAT)
    vision = CLIPVisionConfig(
        hidden_size=FEATURES, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=SIZE, patch_size=8, projection_dim=16,
    )  # fmt: skip
    model = draw_llava(vision, _llama(len(vocabulary)), vocabulary)
    if answers is not None:
        set_answers(model, vocabulary, answers, otherwise)
    _save(model, folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessor(
            size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
        image_token=PICTURE,
        chat_template=CHAT,
    ).save_pretrained(folder)
    return folder


def write_image_encoder(folder: Path) -> Path:
    """A whole SigLIP, text tower included, as it is published."""
    config = SiglipConfig(
        text_config=SiglipTextConfig(
            hidden_size=FEATURES, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            vocab_size=32,
        ).to_dict(),
        vision_config=SiglipVisionConfig(
            hidden_size=FEATURES, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            image_size=SIZE, patch_size=8,
        ).to_dict(),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SiglipModel(config)
    _save(model, folder)
    SiglipImageProcessor(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    return folder


def filter_state(
    bias: Sequence[float] = (9, 0, 0, 0, 0, 0, 0), features: int = FEATURES, *, random: bool = False
) -> dict[str, torch.Tensor]:
    """Weights of the video filter by the names of the published file; its last bias decides unless random."""
    network = nn.Sequential(
        nn.Linear(features, 12), nn.BatchNorm1d(12), nn.ReLU(),
        nn.Linear(12, 10), nn.BatchNorm1d(10), nn.ReLU(),
        nn.Linear(10, len(bias)),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        network[6].bias.copy_(torch.tensor(bias))
        if not random:
            network[6].weight.zero_()
    return {f"network.layers.{name}": value for name, value in network.state_dict().items()}


def write_guardrails(
    folder: Path, bias: Sequence[float] = (9, 0, 0, 0, 0, 0, 0), state: Any = None
) -> Path:
    """Word lists and a video filter that finds every frame to be of the class with the largest bias."""
    lists = {
        "custom": ["bomb", "wicked deed", "ass"],
        "exact_match": ["villain"],
        "whitelist": ["assay"],
    }
    for name, words in lists.items():
        path = folder / "blocklist" / name / "list"
        path.parent.mkdir(parents=True)
        path.write_text("\n".join([*words, ""]))
    path = folder / "video_content_safety_filter" / "safety_filter.pt"
    path.parent.mkdir()
    torch.save({"model": filter_state(bias) if state is None else state}, path)
    return folder


def write_auxiliary_models(folder: Path) -> dict[str, Any]:
    """Write all these models below a folder; returns their values in a document of the generate stage."""
    write_upsampler(folder / "upsampler", {})
    write_guardrails(folder / "guardrails")
    write_classifier(folder / "classifier")
    write_image_encoder(folder / "siglip")
    return {
        "prompt_upsampler_uri": str(folder / "upsampler"),
        "guardrails": {
            "folder_uri": str(folder / "guardrails"),
            "text_classifier_uri": str(folder / "classifier"),
            "image_encoder_uri": str(folder / "siglip"),
        },
    }


# --- parts -----------------------------------------------------------------------------------


def small_tokenizer(
    words: Sequence[str], chat: str
) -> tuple[PreTrainedTokenizerFast, dict[str, int]]:
    """A tokenizer of bytes, the special tokens, and one token for each whole answer."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *letters])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=PAD,
        additional_special_tokens=[PICTURE],
    )  # fmt: skip
    fast.add_tokens(list(dict.fromkeys(words)))
    fast.chat_template = chat
    return fast, fast.get_vocab()


def _llama(vocab_size: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size, hidden_size=320, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, tie_word_embeddings=False, eos_token_id=2, pad_token_id=0, bos_token_id=1,
    )  # fmt: skip


def set_answers(
    model: nn.Module,
    vocabulary: Mapping[str, int],
    answers: Mapping[str, Sequence[str]],
    otherwise: str,
) -> None:
    """Set weights so that each token has a direction of its own, layers add zero, and the head maps it to the next."""
    state = model.state_dict()
    head = next(value for name, value in state.items() if name.endswith("lm_head.weight"))
    embed = next(value for name, value in state.items() if name.endswith("embed_tokens.weight"))
    with torch.no_grad():
        for name, value in state.items():
            if name.endswith(("o_proj.weight", "mlp.down_proj.weight")) and "vision" not in name:
                value.zero_()
        embed.zero_()
        head.zero_()
        embed[range(len(vocabulary)), range(len(vocabulary))] = 1
        head[vocabulary[otherwise]] = 1
        words = {word for answer in answers.values() for word in answer} | {otherwise}
        for letter, answer in answers.items():
            for before, after in zip((letter, *answer), answer, strict=False):
                head[:, vocabulary[before]] = 0
                head[vocabulary[after], vocabulary[before]] = 1
        for word in words - {w for a in answers.values() for w in a[:-1]}:
            head[:, vocabulary[word]] = 0
            head[vocabulary[END], vocabulary[word]] = 1


def _save(model: Any, folder: Path) -> None:
    model.eval().save_pretrained(folder)
