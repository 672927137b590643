"""Captions and prompts unknown to the encoder: counted, refused or reported, also if all are embedded already."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import ValidationError
from support.text_encoders import write_t5, write_unigram_tokenizer

from cosmos_worker.config.stages import EmbedTextConfig
from cosmos_worker.data.index import Clip, write_index
from cosmos_worker.errors import DataError
from cosmos_worker.stages import embed_text
from cosmos_worker.storage.volumes import (
    SUMMARY_FILE,
    VIDEO_READER_VERSION,
    Volumes,
    write_json,
)
from cosmos_worker.text.embeddings import CaptionFacts
from cosmos_worker.text.t5 import T5Encoder
from cosmos_worker.text.tokens import TextTokenizer

KNOWN = ("push the red cube left", "push the blue cube left", "push 红 left")
CHINESE = ("推红色方块往左", "推蓝色方块往左")
VOLUMES = Volumes()


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_unigram_tokenizer(write_t5(tmp_path_factory.mktemp("unigram")))


def write_dataset(folder: Path, captions: Sequence[Sequence[str]]) -> Path:
    """An index with one clip for each list of captions."""
    clips = [
        Clip(f"train/{i}", "train", f"{i}.mp4", tuple(some), 17, 10.0, 32, 32, (0,), "0" * 64)
        for i, some in enumerate(captions)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    digest = write_index(folder, clips)
    write_json(
        folder / SUMMARY_FILE,
        {"root": ".", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION},
    )
    return folder


def make_config(dataset: Path, encoder: Path, **values: object) -> EmbedTextConfig:
    return EmbedTextConfig.model_validate(
        {
            "key": "k", "target_uri": str(dataset.parent / "text"), "dataset_uri": str(dataset),
            "encoder_uri": str(encoder), "max_length": 6, **values,
        }
    )  # fmt: skip


def test_unknown_captions_beyond_the_limit_fail_before_anything_is_computed(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "index", [[text] for text in (*KNOWN, *CHINESE)])
    monkeypatch.setattr(T5Encoder, "encode", lambda *_: pytest.fail("it was computed"))

    with pytest.raises(DataError) as caught:
        embed_text.run(make_config(dataset, encoder), VOLUMES)

    message = str(caught.value)
    assert message.startswith(
        f"2 of 5 captions (40.0 %) are more than half unknown to the encoder {encoder}, "
        f"max_unknown_fraction allows 5 %: {CHINESE[0]!r}, {CHINESE[1]!r}; "
    )
    assert "raise spec.embeddings.maxUnknownFraction" in message


def test_unknown_captions_within_the_limit_are_counted_and_told(
    tmp_path: Path, encoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    captions = [[text] for text in (*KNOWN, *CHINESE)] + [[CHINESE[0], KNOWN[0]]]
    dataset = write_dataset(tmp_path / "index", captions)
    config = make_config(dataset, encoder, max_unknown_fraction=0.4)

    with caplog.at_level(logging.INFO):
        result = embed_text.run(config, VOLUMES)

    counts = {name: result[name] for name in ("truncated", "with_unknown", "unknown", "equal")}
    assert counts == {"truncated": 0, "with_unknown": 3, "unknown": 2, "equal": 2}
    assert result["dropped_clips"] == 2  # that with another caption is kept
    assert result["note"] == (
        "5 captions and prompts: 0 truncated, 3 with unknown tokens, 2 more than half unknown; 2 clips will be left out"
    )
    assert "clips=2 will be left out of the training, reason=caption_unknown: train/3, train/4" in (
        caplog.text
    )
    assert f"cannot tell them apart, such as {CHINESE[0]!r} = {CHINESE[1]!r}" in caplog.text


def test_negative_prompt_that_nobody_wrote_fails_no_job(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "index", [[text] for text in KNOWN])
    config = make_config(dataset, encoder, extra_captions=(CHINESE[0],))
    with pytest.raises(DataError, match="1 of 1 prompts are more than half unknown"):
        embed_text.run(config, VOLUMES)
    monkeypatch.setattr(embed_text, "DEFAULT_NEGATIVE_PROMPT", CHINESE[0])

    assert embed_text.run(config, VOLUMES)["unknown"] == 1


def test_words_are_checked_where_everything_was_embedded(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by an earlier version, which noted nothing of the captions; the encoder is not loaded for that."""
    dataset = write_dataset(tmp_path / "index", [[text] for text in (*KNOWN, *CHINESE)])
    embed_text.run(make_config(dataset, encoder, max_unknown_fraction=1), VOLUMES)
    monkeypatch.setattr(T5Encoder, "__init__", lambda *_: pytest.fail("the encoder was loaded"))
    with pytest.raises(DataError, match="2 of 5 captions"):
        embed_text.run(make_config(dataset, encoder), VOLUMES)
    for note in (tmp_path / "text").glob("captions-*.json"):
        note.unlink()

    with pytest.raises(DataError, match="2 of 5 captions"):
        embed_text.run(make_config(dataset, encoder), VOLUMES)
    result = embed_text.run(make_config(dataset, encoder, max_unknown_fraction=1), VOLUMES)

    assert (result["computed"], result["unknown"]) == (0, 2)


def test_facts_are_taken_once(
    tmp_path: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write_dataset(tmp_path / "index", [[text] for text in KNOWN])
    first = embed_text.run(make_config(dataset, encoder), VOLUMES)
    monkeypatch.setattr(TextTokenizer, "facts", lambda *_: pytest.fail("tokenized again"))

    again = embed_text.run(make_config(dataset, encoder), VOLUMES)

    assert (again["with_unknown"], again["unknown"]) == (1, 0)
    assert (first["with_unknown"], first["unknown"]) == (1, 0)


def test_truncated_captions_are_counted_where_they_were_embedded_before(
    tmp_path: Path, encoder: Path
) -> None:
    long = "push the red cube left push"
    dataset = write_dataset(tmp_path / "index", [[KNOWN[0]], [long]])
    embed_text.run(make_config(dataset, encoder), VOLUMES)

    result = embed_text.run(make_config(dataset, encoder), VOLUMES)

    assert (result["computed"], result["truncated"], result["longest"]) == (0, 1, 6)


def test_unknown_prompts_of_the_job_are_refused(tmp_path: Path, encoder: Path) -> None:
    dataset = write_dataset(tmp_path / "index", [[text] for text in KNOWN])
    config = make_config(dataset, encoder, extra_captions=(KNOWN[0], "模糊", "blurry"))

    with pytest.raises(
        DataError, match=r"1 of 3 prompts are more than half unknown .*: '模糊'; their"
    ):
        embed_text.run(config, VOLUMES)


def test_prompt_that_is_no_text_is_named(tmp_path: Path, encoder: Path) -> None:
    with pytest.raises(ValidationError, match=r"extra_captions\.1\n.*lone surrogate '\\ud83d'"):
        make_config(tmp_path, encoder, extra_captions=("push", "push \ud83d"))


def test_prompt_and_caption_in_other_forms_are_one_text(tmp_path: Path, encoder: Path) -> None:
    dataset = write_dataset(tmp_path / "index", [["pouss\u00e9"]])
    config = make_config(dataset, encoder, extra_captions=("\ufeffpousse\u0301\r\n",))

    assert embed_text.run(config, VOLUMES)["captions"] == 2  # with the empty text


def test_captions_that_differ_in_spaces_or_forms_only_are_not_told(
    tmp_path: Path, encoder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = write_dataset(tmp_path / "index", [["push"], ["\uff50\uff55\uff53\uff48"], ["push "]])

    assert embed_text.run(make_config(dataset, encoder), VOLUMES)["equal"] == 0
    assert "equal embeddings" not in caplog.text


def test_notes_of_another_encoder_or_damaged_ones_are_refused(
    tmp_path: Path, encoder: Path
) -> None:
    dataset = write_dataset(tmp_path / "index", [[text] for text in KNOWN])
    embed_text.run(make_config(dataset, encoder), VOLUMES)
    (note,) = (tmp_path / "text").glob("captions-*.json")

    with pytest.raises(DataError, match=r"made by encoder .*, expected other"):
        CaptionFacts(tmp_path / "text", "other")
    shutil.copy(note, tmp_path / "kept")
    note.write_text(note.read_text()[:50])
    with pytest.raises(DataError, match=r"captions-.*damaged .*delete the file and run embed-text"):
        CaptionFacts(tmp_path / "text")
