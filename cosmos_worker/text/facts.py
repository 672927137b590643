"""What the tokenizer made of each caption, beside the embeddings in their store: token counts and unknown shares.

``captions-<digest>.json`` files are named after their content, written whole or not at all and never changed, as the
shards of the store are; captions go by the same keys.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import atomic_write
from cosmos_worker.text.embeddings import (
    REMEDY,
    caption_key,
)
from cosmos_worker.text.tokens import TextFacts

FACTS_PATTERN = "captions-*.json"


class CaptionFacts:
    """The facts of the captions in a store of embeddings.

    Args:
        folder: of the store; one that does not exist has none.
        encoder: identity of the encoder (``t5.encoder_identity``); None to read whatever encoder the folder belongs to.

    Raises:
        DataError: a file is damaged, or belongs to another encoder.
    """

    def __init__(self, folder: Path, encoder: str | None = None) -> None:
        self.folder, self.encoder = folder, encoder
        self._facts: dict[str, TextFacts] = {}
        for path in sorted(folder.glob(FACTS_PATTERN)):
            self._facts |= self._read(path)

    def get(self, caption: str) -> TextFacts | None:
        """What is known of a caption; None = it was embedded by a version that did not note it."""
        return self._facts.get(caption_key(caption))

    def missing(self, captions: Iterable[str]) -> list[str]:
        """The distinct captions of which nothing is known, in the order given."""
        return [caption for caption in dict.fromkeys(captions) if self.get(caption) is None]

    def add(self, facts: Mapping[str, TextFacts]) -> None:
        """Store the facts of captions as one new file; it is durable when this returns."""
        if not facts:
            return
        own = {caption_key(caption): one for caption, one in facts.items()}
        values = {key: [one.tokens, one.unknown] for key, one in own.items()}
        text = json.dumps({"encoder": self.encoder, "captions": values}, sort_keys=True)
        name = FACTS_PATTERN.replace("*", hashlib.sha256(text.encode()).hexdigest()[:16])
        with atomic_write(self.folder / name, "w") as stream:
            stream.write(text)
        self._facts |= own

    def _read(self, path: Path) -> dict[str, TextFacts]:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            encoder = document["encoder"]
            found = {
                key: TextFacts(int(tokens), float(unknown))
                for key, (tokens, unknown) in document["captions"].items()
            }
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: damaged ({error}); {REMEDY}") from None
        if self.encoder is not None and encoder != self.encoder:
            raise DataError(
                f"{path}: made by encoder {encoder}, expected {self.encoder}; "
                "use a folder of its own for each encoder and max_length, or delete the file"
            )
        return found
