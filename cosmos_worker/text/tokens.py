"""The tokenizer of a text encoder, without the encoder: tokens of texts, and the share of a text that it does not know.

SentencePiece Unigram (T5) makes one unknown token of any run of characters that its vocabulary lacks, so all texts in
a script that it lacks get the same few tokens, and the same embedding. Byte tokenizers (ByT5) and those with byte
fallback know everything.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from cosmos_worker.errors import CheckpointError, DataError
from cosmos_worker.runtime.imports import importing_transformers
from cosmos_worker.runtime.load_errors import LOAD_ERRORS, describe_load_error

MOSTLY_UNKNOWN = 0.5
"""Share of unknown characters above which an embedding no longer follows the text."""
SHOWN_CHARACTERS = 80


@dataclass(frozen=True)
class TextFacts:
    """Number of tokens of a text, and the share of it that the tokenizer does not know."""

    tokens: int
    """Tokens of the whole text, end token included."""
    unknown: float
    """Share (0 to 1) of its characters, without spaces, that lie in unknown tokens."""

    @property
    def is_mostly_unknown(self) -> bool:
        """More than half of the text is unknown to the encoder."""
        return self.unknown > MOSTLY_UNKNOWN


def shown(text: str) -> str:
    """A text for messages: quoted, on one line, cut off after 80 characters."""
    return repr(text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…")


def check_text(text: str) -> None:
    """Raise DataError if a text has NUL or half of a surrogate pair, which are no text to any tokenizer."""
    for position, character in enumerate(text):
        if character == "\0" or unicodedata.category(character) == "Cs":
            raise DataError(
                f"text {shown(text)}: character {position + 1} is U+{ord(character):04X}, which belongs to no text; "
                "write the caption or prompt anew without it"
            )


class TextTokenizer:
    """The tokenizer in the folder of a T5 encoder.

    Raises:
        CheckpointError: transformers cannot load it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with importing_transformers():
            from transformers import AutoTokenizer

        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (*LOAD_ERRORS, SafetensorError) as error:
            raise CheckpointError(
                f"{folder}: transformers cannot load it ({describe_load_error(error)}); fetch the encoder again"
            ) from None

    @property
    def end_id(self) -> int:
        """Id of the token that ends every text."""
        return int(self._tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Id of the token that fills up shorter texts of a batch."""
        return int(self._tokenizer.pad_token_id or 0)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, end token included.

        Raises:
            DataError: a text with NUL or half of a surrogate pair.
        """
        return [ids for ids, _ in self._encode(texts)]

    def facts(self, texts: Sequence[str]) -> list[TextFacts]:
        """Tokens and unknown share of each text.

        Raises:
            DataError: as :meth:`encode`.
        """
        return [
            TextFacts(len(ids), self._unknown_share(text, ids, offsets))
            for text, (ids, offsets) in zip(texts, self._encode(texts), strict=True)
        ]

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]] | None]]:
        """Tokens of each text, and the range of characters of each token; None = the tokenizer does not give ranges."""
        for text in texts:
            check_text(text)
        if not texts:
            return []
        has_offsets = bool(self._tokenizer.is_fast)
        options = {"return_offsets_mapping": True} if has_offsets else {}
        encoded = self._tokenizer(list(texts), verbose=False, **options)
        offsets = encoded["offset_mapping"] if has_offsets else [None] * len(texts)
        return [(list(ids), o) for ids, o in zip(encoded["input_ids"], offsets, strict=True)]

    def _unknown_share(
        self, text: str, ids: Sequence[int], offsets: Sequence[tuple[int, int]] | None
    ) -> float:
        unknown_id = self._tokenizer.unk_token_id
        if offsets is None:
            return self._share_by_decoding(text, ids)
        in_tokens, lost = set[int](), set[int]()
        for token, (begin, end) in zip(ids, offsets, strict=True):
            in_tokens.update(range(begin, end))
            if token == unknown_id:
                lost.update(range(begin, end))
        # characters that normalization removes or merges, such as combining accents, belong to no token
        spaces = {i for i in in_tokens if text[i].isspace()}
        in_tokens, lost = in_tokens - spaces, lost - spaces
        if not in_tokens:
            return float(bool(text.strip()))
        return len(lost) / len(in_tokens)

    def _share_by_decoding(self, text: str, ids: Sequence[int]) -> float:
        """Unknown share if tokens have no ranges of characters: characters that the decoded known tokens lack."""
        known = [token for token in ids if token != self._tokenizer.unk_token_id]
        if len(known) == len(ids):
            return 0.0
        decoded = self._tokenizer.decode(known, skip_special_tokens=True)
        whole, kept = (len("".join(one.split())) for one in (text, decoded))
        return max(0.0, 1 - kept / whole) if whole else 0.0
