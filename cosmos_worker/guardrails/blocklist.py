"""The blocklist: word lists, the first guardrail of a prompt. Needs no model and no package.

A folder ``blocklist`` has text files of one word or phrase a line: ``custom/*`` blocks words in any of their forms,
``exact_match/*`` blocks whole words and those with one letter more, ``whitelist/*`` takes words out of ``custom``.

Source: cosmos_predict1/auxiliary/guardrail/blocklist. Differs: plurals follow the rules of WordNet's morphology without
its table of exceptions; letters in disguise are those of DISGUISES; phrases of the whitelist take whole entries out;
the reference compares words of 6 letters or more by a fuzzy ratio that no changed letter passes; here a word with one
inserted letter is found too.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cosmos_worker.errors import DataError
from cosmos_worker.guardrails.verdict import (
    BLOCKLIST,
    Blocked,
)
from cosmos_worker.storage.volumes import (
    CUSTOM_WORDS,
    EXACT_WORDS,
    WHITELIST,
    WORD_LISTS,
)

MIN_FUZZY_LETTERS = 6
"""Words of exact_match with fewer letters are found only as they are, without an inserted letter."""
DISGUISES = (  # digits and signs that stand for letters
    str.maketrans("@4301!5$7", "aaeoiisst"),
    str.maketrans("@4301!5$7", "aaeolisst"),  # a 1 is an i or an l
)
PLURALS = (
    ("ies", "y"), ("sses", "ss"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
    ("ses", "s"), ("men", "man"), ("s", ""),
)  # fmt: skip
ENDS = "".join(set(string.punctuation) - set("@$!*"))

Phrase = tuple[str, ...]


def list_files(folder: Path) -> list[Path]:
    """List the files of the word lists.

    Args:
        folder: the guardrails' folder, which holds ``blocklist``.

    Raises:
        DataError: no list of custom or exact words.
    """
    found = []
    for name in WORD_LISTS:
        lists = folder / name
        files = [path for path in sorted(lists.glob("*")) if _is_list(path)]
        if not files and name != WHITELIST:  # the whitelist may be absent: then more is blocked
            raise DataError(
                f"{lists}: no list of words; without it nothing is blocked; fetch the guardrails again"
            )
        found += files
    return found


def _is_list(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".")


class Blocklist:
    """The word lists of a guardrails folder.

    Args:
        folder: the guardrails' folder, which holds ``blocklist``.

    Raises:
        DataError: no lists, an empty one, or one that is no text.
    """

    def __init__(self, folder: Path) -> None:
        words: dict[str, set[Phrase]] = {name: set() for name in WORD_LISTS}
        for path in list_files(folder):
            words[path.parent.relative_to(folder).as_posix()].update(_read_list(path))
        for name in (CUSTOM_WORDS, EXACT_WORDS):
            if not words[name]:
                raise DataError(f"{folder / name}: all lists are empty; fetch the guardrails again")
        self._custom = words[CUSTOM_WORDS] - words[WHITELIST]
        self._exact = words[EXACT_WORDS]
        self._allowed = words[WHITELIST]

    def check(self, prompt: str) -> Blocked | None:
        """Judge a prompt; None = no entry of the lists is in it."""
        text = to_ascii(prompt).lower()
        if not text.strip():
            return Blocked(BLOCKLIST, "the prompt has no letter that the lists could know")
        found = self._find_custom(text) or self._find_exact(text)
        return Blocked(BLOCKLIST, found) if found else None

    def _find_custom(self, text: str) -> str | None:
        for stream in _streams(text):
            for phrase in _windows(stream, _sizes(self._custom)):
                if phrase in self._allowed:
                    continue
                if phrase in self._custom or _is_masked(phrase, self._custom):
                    return f"{' '.join(phrase)!r} is on a list of words"
        return None

    def _find_exact(self, text: str) -> str | None:
        for stream in (_words(text), _spaced(text)):
            for phrase in _windows(stream, _sizes(self._exact)):
                for entry in (phrase, *_without_one_letter(phrase)):
                    if entry in self._exact:
                        return f"{' '.join(phrase)!r} is on a list of exact words"
        return None


def to_ascii(text: str) -> str:
    """The text without accents and without signs that ASCII lacks; full-width letters become plain ones."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


def _read_list(path: Path) -> Iterator[Phrase]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8; fetch the guardrails again"
        ) from None
    for line in lines:
        text = to_ascii(line).lower()
        yield from (phrase for phrase in {_spaced(text), _words(text)} if phrase)


# --- ways to read a prompt -------------------------------------------------------------------


def _spaced(text: str) -> Phrase:
    """Words between spaces, without punctuation at their ends."""
    return tuple(word for part in text.split() if (word := part.strip(ENDS)))


def _words(text: str) -> Phrase:
    """Runs of letters and digits."""
    return tuple(re.findall(r"[a-z0-9]+", text))


def _streams(text: str) -> Iterator[Phrase]:
    """Readings of a prompt: by spaces, by letters and digits, in the singular, and with digits read as letters."""
    spaced, words = _spaced(text), _words(text)
    yield spaced
    yield words
    yield tuple(map(_singular, words))
    for disguise in DISGUISES:
        plain = _words(" ".join(spaced).translate(disguise))
        yield plain
        yield tuple(map(_singular, plain))


def _singular(word: str) -> str:
    for ending, instead in PLURALS:
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + instead
    return word


def _sizes(phrases: Iterable[Phrase]) -> list[int]:
    return sorted({len(phrase) for phrase in phrases})


def _windows(stream: Phrase, sizes: Sequence[int]) -> Iterator[Phrase]:
    for size in sizes:
        for start in range(len(stream) - size + 1):
            yield stream[start : start + size]


def _is_masked(phrase: Phrase, words: set[Phrase]) -> bool:
    """Say whether a word with asterisks in place of vowels is one of these words."""
    if len(phrase) > 1 or "*" not in phrase[0] or not phrase[0].strip("*"):
        return False
    pattern = re.compile(re.escape(phrase[0]).replace(r"\*", "[aeiou]"))
    return any(len(word) == 1 and pattern.fullmatch(word[0]) for word in words)


def _without_one_letter(phrase: Phrase) -> Iterator[Phrase]:
    """Every phrase that results from removing one letter of this one."""
    text = " ".join(phrase)
    if len(text) <= MIN_FUZZY_LETTERS:
        return
    for i, letter in enumerate(text):
        if letter != " ":
            yield tuple((text[:i] + text[i + 1 :]).split())
