"""The share of a text that is unknown to tokenizers of every kind."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from support.text_encoders import write_t5, write_unigram_tokenizer

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.text.tokens import TextTokenizer, shown


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_t5(tmp_path_factory.mktemp("bytes"))


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = write_t5(tmp_path_factory.mktemp("unigram"))
    return TextTokenizer(write_unigram_tokenizer(folder))


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("push the red cube", 0),
        ("", 0),
        ("   ", 0),
        ("\uff50\uff55\uff53\uff48", 0),  # full-width letters, which normalization replaces
        ("推红色方块往左", 1),
        ("推红色方块 往左", 1),
        ("push 红色", 2 / 6),
        ("push the 红色 cube", 2 / 13),
        ("推 the 红色方块", 5 / 8),
        ("red {cube}", 2 / 9),
        ("😀😀😀 left", 3 / 7),
        (unicodedata.normalize("NFD", "éééé"), 1),  # combining accents are not in the vocabulary
        ("RED CUBE", 1),  # this vocabulary has small letters only
    ],
)  # fmt: skip
def test_unknown_share_counts_characters_not_tokens(
    unigram: TextTokenizer, text: str, unknown: float
) -> None:
    (facts,) = unigram.facts([text])

    assert facts.unknown == pytest.approx(unknown)
    assert facts.is_mostly_unknown == (unknown > 0.5)
    assert facts.tokens == len(unigram.encode([text])[0])


def test_two_texts_of_an_unknown_script_have_the_same_tokens(unigram: TextTokenizer) -> None:
    """The tokens alone do not show that the texts differ, hence the message about unknown text."""
    one, other = unigram.encode(["推红色方块", "拉蓝色圆球"])

    assert one == other


def test_bytes_know_everything(folder: Path, tmp_path: Path) -> None:
    fallback = write_unigram_tokenizer(write_t5(tmp_path), byte_fallback=True)
    texts = ["推红色方块往左", "push {it} 😀"]

    for tokenizer in (TextTokenizer(folder), TextTokenizer(fallback)):
        assert [facts.unknown for facts in tokenizer.facts(texts)] == [0, 0]


def test_share_without_offsets_follows_from_the_decoded_known_tokens(
    unigram: TextTokenizer,
) -> None:
    """Tokenizers in Python do not say which characters a token stands for."""
    text = "push the 红色 cube"

    assert unigram._share_by_decoding(text, unigram.encode([text])[0]) == pytest.approx(2 / 13)
    assert unigram._share_by_decoding("push", unigram.encode(["push"])[0]) == 0


@pytest.mark.parametrize("text", ["push \ud83d cube", "push\0cube"])
def test_text_that_no_tokenizer_reads_is_named(
    unigram: TextTokenizer, folder: Path, text: str
) -> None:
    for tokenizer in (unigram, TextTokenizer(folder)):
        with pytest.raises(
            DataError, match=r"^text 'push.*cube': character [56] is U\+(D83D|0000)"
        ):
            tokenizer.facts(["fine", text])


def test_folder_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="transformers cannot load it"):
        TextTokenizer(tmp_path)


def test_texts_are_shown_in_one_short_line() -> None:
    assert shown("a\nb") == r"'a\nb'"
    assert shown("x" * 200) == f"'{'x' * 80}…'"
