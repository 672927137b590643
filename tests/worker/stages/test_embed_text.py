from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from support.text_encoders import write_t5

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
from cosmos_worker.text.embeddings import EmbeddingStore
from cosmos_worker.text.reference_pickles import (
    read_pickle,
    write_pickle,
)
from cosmos_worker.text.t5 import T5Encoder

CAPTIONS = ["push the red cube left", "push the blue cube right", "push the red cube left", "lift"]
SPLITS = ["train", "train", "val", "test"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "dataset", CAPTIONS, SPLITS)


def write_dataset(folder: Path, captions: Sequence[str], splits: Sequence[str]) -> Path:
    """An index and annotations in the bridge layout; the stage never opens the videos."""
    clips = []
    for i, (caption, split) in enumerate(zip(captions, splits, strict=True)):
        annotation = folder / "annotation" / split / f"{i}.json"
        annotation.parent.mkdir(parents=True, exist_ok=True)
        annotation.write_text(json.dumps({"texts": [caption]}))
        clips.append(
            Clip(
                f"{split}/{i}", split, f"videos/{split}/{i}/rgb.mp4", (caption,), 17, 10.0, 128, 160,
                (0,), "0" * 64,
            )
        )  # fmt: skip
    digest = write_index(folder, clips)
    write_json(
        folder / SUMMARY_FILE,
        {"root": ".", "index_sha256": digest, "video_reader": VIDEO_READER_VERSION},
    )
    return folder


def make_config(dataset: Path, encoder: Path, **values: object) -> EmbedTextConfig:
    return EmbedTextConfig.model_validate(
        {
            "key": "k", "target_uri": str(dataset.parent / "embeddings"), "dataset_uri": str(dataset),
            "encoder_uri": str(encoder), "max_length": 32, "batch_size": 2,
        }
        | values
    )  # fmt: skip


def store_of(config: EmbedTextConfig) -> EmbeddingStore:
    return EmbeddingStore(Path(config.target_uri))


def test_embed_text_embeds_each_distinct_caption_once(dataset: Path, encoder: Path) -> None:
    config = make_config(dataset, encoder, extra_captions=("a prompt", "lift"))

    result = embed_text.run(config, Volumes())

    assert result == {
        "captions": 5, "computed": 5, "reused": 0, "imported": 0, "exported": 0, "dim": 16, "longest": 25,
        "truncated": 0, "with_unknown": 0, "unknown": 0, "dropped_clips": 0, "equal": 0,
    }  # fmt: skip
    store = store_of(config)
    t5 = T5Encoder(encoder)
    for caption in (*CAPTIONS, "a prompt", ""):
        (expected,) = t5.encode([caption], 32)
        np.testing.assert_allclose(
            store.get(caption).astype(np.float32), expected.astype(np.float32), atol=2**-9, rtol=0
        )


def test_embed_text_computes_only_what_is_missing(dataset: Path, encoder: Path) -> None:
    embed_text.run(make_config(dataset, encoder), Volumes())

    again = embed_text.run(make_config(dataset, encoder), Volumes())
    more = embed_text.run(make_config(dataset, encoder, extra_captions=("new",)), Volumes())

    assert (again["computed"], again["reused"]) == (0, 4)
    assert (more["computed"], more["reused"]) == (1, 4)


def test_embed_text_continues_after_an_interruption(
    dataset: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(dataset, encoder, batch_size=1)
    monkeypatch.setattr(embed_text, "SHARD_CAPTIONS", 1)
    encode = T5Encoder.encode

    def encode_until_killed(self: T5Encoder, captions: Sequence[str], *rest: int) -> object:
        if captions[0] == CAPTIONS[1]:
            raise KeyboardInterrupt
        return encode(self, captions, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(T5Encoder, "encode", encode_until_killed)
        with pytest.raises(KeyboardInterrupt):
            embed_text.run(config, Volumes())
    assert store_of(config).missing(CAPTIONS) == [CAPTIONS[1]]

    result = embed_text.run(config, Volumes())

    assert (result["computed"], result["reused"]) == (1, 3)


def test_embed_text_logs_progress(
    dataset: Path, encoder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(embed_text, "LOG_INTERVAL_S", 0.0)

    with caplog.at_level(logging.INFO):
        embed_text.run(make_config(dataset, encoder), Volumes())

    lines = [record.message for record in caplog.records if "per_s=" in record.message]
    assert [line.split()[0] for line in lines] == ["captions=2/4", "captions=4/4"]


def test_embed_text_counts_truncated_captions(dataset: Path, encoder: Path) -> None:
    result = embed_text.run(make_config(dataset, encoder, max_length=10), Volumes())

    assert (result["truncated"], result["longest"]) == (2, 10)


def test_embed_text_refuses_a_store_of_another_encoder(
    tmp_path: Path, dataset: Path, encoder: Path
) -> None:
    embed_text.run(make_config(dataset, encoder), Volumes())
    other = write_t5(tmp_path / "other", seed=1)

    with pytest.raises(DataError, match=r"made by encoder .*-32, expected .*-32"):
        embed_text.run(make_config(dataset, other), Volumes())
    with pytest.raises(DataError, match=r"made by encoder .*-32, expected .*-16"):
        embed_text.run(make_config(dataset, encoder, max_length=16), Volumes())


def test_embed_text_imports_pickles_when_told(dataset: Path, encoder: Path) -> None:
    marked = np.full((4, 16), 0.5, np.float16)
    write_pickle(dataset / "annotation" / "train" / "0.pickle", marked)

    ignored = embed_text.run(make_config(dataset, encoder), Volumes())
    config = make_config(
        dataset, encoder, import_pickles=True, target_uri=str(dataset.parent / "imported")
    )
    result = embed_text.run(config, Volumes())

    assert (ignored["computed"], ignored["imported"]) == (4, 0)
    assert (result["computed"], result["imported"], result["reused"]) == (3, 1, 0)
    np.testing.assert_array_equal(store_of(config).get(CAPTIONS[0]), marked)


def test_embed_text_needs_no_weights_to_import_all(dataset: Path, encoder: Path) -> None:
    """All captions have pickles but the empty one, which an earlier run has computed."""
    config = make_config(dataset, encoder, import_pickles=True)
    T5 = T5Encoder(encoder)
    for path in dataset.glob("annotation/*/*.json"):
        write_pickle(path.with_suffix(".pickle"), T5.encode(["x"], 8)[0])

    result = embed_text.run(config, Volumes())

    assert (result["computed"], result["imported"]) == (1, 3)


def test_embed_text_reports_a_hostile_pickle_and_stores_nothing(
    dataset: Path, encoder: Path
) -> None:
    bad = dataset / "annotation" / "train" / "0.pickle"
    bad.write_bytes(b"cposix\nsystem\n(S'touch trace'\ntR.")
    config = make_config(dataset, encoder, import_pickles=True)

    with pytest.raises(DataError, match=r"0\.pickle: refused, the pickle asks for posix\.system"):
        embed_text.run(config, Volumes())
    assert len(store_of(config)) == 0


def test_embed_text_exports_pickles_in_the_datasets_layout(
    tmp_path: Path, dataset: Path, encoder: Path
) -> None:
    target = tmp_path / "export"
    config = make_config(dataset, encoder, export_pickles_uri=str(target))

    result = embed_text.run(config, Volumes())

    assert result["exported"] == 4
    store = store_of(config)
    for i, (caption, split) in enumerate(zip(CAPTIONS, SPLITS, strict=True)):
        array = read_pickle(target / "annotation" / split / f"{i}.pickle")
        np.testing.assert_array_equal(array, store.get(caption))
