"""Pixtral with the true processor of transformers, tiny: its vision tower takes pictures of any shape, row by row."""

from __future__ import annotations

from pathlib import Path

from transformers import (
    MistralConfig,
    PixtralImageProcessor,
    PixtralProcessor,
    PixtralVisionConfig,
)

from support.auxiliary_models import END, PAD, START, draw_llava, set_answers, small_tokenizer

PATCH = 8
ROW_END, PICTURE_END = "[IMG_BREAK]", "[IMG_END]"
CHAT = (
    "<s>{% for m in messages %}[INST]{% for c in m.content %}{% if c.type == 'image' %}[IMG]{% else %}{{ c.text }}"
    "{% endif %}{% endfor %}[/INST]{% endfor %}"
)
EARLIER_CHAT = CHAT.replace("c.text", "c.content")
"""Chat template of early folders, which read the text from another key."""


def write_pixtral(folder: Path, answer: str | None = None, chat: str = CHAT) -> Path:
    """A Pixtral of random weights with its processor; with an answer it gives that one to every request."""
    words = [ROW_END, PICTURE_END, "[INST]", "[/INST]", *([answer] if answer else [])]
    tokenizer, vocabulary = small_tokenizer(words, chat)
    vision = PixtralVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=64, patch_size=PATCH,
    )  # fmt: skip
    text = MistralConfig(
        vocab_size=len(vocabulary), hidden_size=320, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, tie_word_embeddings=False,
        bos_token_id=vocabulary[START], eos_token_id=vocabulary[END], pad_token_id=vocabulary[PAD],
    )  # fmt: skip
    model = draw_llava(vision, text, vocabulary)
    if answer:
        set_answers(model, vocabulary, {}, answer)
    model.eval().save_pretrained(folder)
    PixtralProcessor(
        image_processor=PixtralImageProcessor(
            size={"longest_edge": 64}, patch_size={"height": PATCH, "width": PATCH}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH,
        chat_template=chat,
    ).save_pretrained(folder)
    return folder
