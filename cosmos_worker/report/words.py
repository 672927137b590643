"""Sentences of the report on what the text encoder lost of the captions. Makes no HTML."""

from __future__ import annotations

import json
from pathlib import Path

from cosmos_worker.data.known_captions import name_clips
from cosmos_worker.errors import DataError
from cosmos_worker.storage.volumes import WORDS_FILE


def describe_losses(run: Path) -> list[str]:
    """Sentences on truncated and unknown captions and on clips left out; empty if nothing was lost or noted.

    Args:
        run: folder of the run, with what train noted of the words.

    Raises:
        DataError: the note is damaged.
    """
    path = run / WORDS_FILE
    if not path.is_file():  # a run of an earlier version
        return []
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        total, dropped = int(words["captions"]), list(words["dropped_clips"])
        truncated, partly, unknown = (
            int(words[name]) for name in ("truncated", "with_unknown", "unknown")
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); run train again") from None
    sentences = []
    if truncated:
        sentences.append(
            f"{truncated} of {total} captions are longer than the text encoder reads; their ends had no effect."
        )
    if partly:
        sentences.append(
            f"{partly} of {total} captions have characters that the text encoder does not know; {unknown} are more "
            "than half unknown to it."
        )
    if dropped:
        sentences.append(
            f"{len(dropped)} clips were left out, since the encoder does not know their captions: "
            f"{name_clips(dropped)}."
        )
    return sentences
