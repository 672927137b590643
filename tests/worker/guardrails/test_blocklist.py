from __future__ import annotations

from pathlib import Path

import pytest
from support.auxiliary_models import write_guardrails

from cosmos_worker.errors import DataError
from cosmos_worker.guardrails.blocklist import Blocklist


@pytest.fixture(scope="module")
def lists(tmp_path_factory: pytest.TempPathFactory) -> Blocklist:
    return Blocklist(write_guardrails(tmp_path_factory.mktemp("guardrails")))


@pytest.mark.parametrize(
    "prompt",
    [
        "a bomb on a table",
        "a BOMB!",
        "two bombs",
        "the b0mb",
        "the b*mb",
        "a *bomb*",
        "a bömb",
        "\uff42\uff4f\uff4d\uff42",  # full-width letters
        "bomb-making",
        "a  wicked\ndeed",
        "some wicked deeds",
        "a villain walks",
        "the villain's cube",
        "a villaain walks",
        "",
        "\u597d",
    ],
)
def test_blocklist_blocks(lists: Blocklist, prompt: str) -> None:
    verdict = lists.check(prompt)

    assert verdict is not None
    assert verdict.by == "blocklist"


@pytest.mark.parametrize(
    "prompt",
    [
        "push the red cube left",
        "a bombastic speech",  # no whole word
        "a wicked old deed",
        "an assay of gold",
        "the vilain",  # a letter less; only one more is taken for the word
        "a glass of water",
        "villainous plans",
    ],
)
def test_blocklist_lets_other_prompts_through(lists: Blocklist, prompt: str) -> None:
    assert lists.check(prompt) is None


def test_blocklist_says_what_it_found(lists: Blocklist) -> None:
    verdict = lists.check("red cubes and Bombs")

    assert verdict is not None
    assert verdict.reason == "'bomb' is on a list of words"


def test_whitelist_takes_words_out(tmp_path: Path) -> None:
    folder = write_guardrails(tmp_path / "guardrails")
    assert Blocklist(folder).check("a bomb") is not None

    (folder / "blocklist" / "whitelist" / "more").write_text("Bomb\n")

    assert Blocklist(folder).check("a bomb") is None
    assert Blocklist(folder).check("an ass") is not None


@pytest.mark.parametrize("name", ["custom", "exact_match"])
def test_blocklist_refuses_lists_that_block_nothing(tmp_path: Path, name: str) -> None:
    folder = write_guardrails(tmp_path / "guardrails")
    path = folder / "blocklist" / name / "list"

    path.write_text("\n \n")
    with pytest.raises(DataError, match=rf"blocklist/{name}: all lists are empty"):
        Blocklist(folder)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"byte 0 is not UTF-8"):
        Blocklist(folder)
    path.unlink()
    with pytest.raises(DataError, match=rf"blocklist/{name}: no list of words"):
        Blocklist(folder)
