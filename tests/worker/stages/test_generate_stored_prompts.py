"""Prompts whose embeddings embed-text has stored: the text encoder is not loaded for them, nor is its library."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from support.generation import generate_config, inputs_of, read_list
from support.text_encoders import write_t5

from cosmos_worker.config.sampling import DEFAULT_NEGATIVE_PROMPT
from cosmos_worker.config.stages import GenerateConfig
from cosmos_worker.sample.prompts import embed_prompts
from cosmos_worker.stages import generate
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.embeddings import CaptionFacts, EmbeddingStore
from cosmos_worker.text.t5 import T5Encoder, encoder_identity

PROMPTS = ("push the red cube right", "push the red cube left", "push the blue cube away")
# NVIDIA releases TorchScript, which PyTorch deprecates since 2.9
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is (deprecated|not supported)")
RUN = """
import json, sys
from pathlib import Path
from cosmos_worker.config.overrides import load_stage_config
from cosmos_worker.stages import generate
from cosmos_worker.storage.volumes import Volumes
generate.run(load_stage_config("generate", Path(sys.argv[1]), []), Volumes())
print(json.dumps([name for name in ("transformers", "tokenizers", "diffusers") if name in sys.modules]))
"""


def store_prompts(models: Path, folder: Path, texts: Sequence[str], max_length: int = 24) -> None:
    """Store embeddings and facts of texts as embed-text does."""
    encoder = T5Encoder(models / "encoder")
    identity = encoder_identity(models / "encoder", max_length)
    arrays = encoder.encode(texts, max_length)
    EmbeddingStore(folder, identity).add(dict(zip(texts, arrays, strict=True)))
    facts = encoder.tokenizer.facts(texts)
    CaptionFacts(folder, identity).add(dict(zip(texts, facts, strict=True)))


def make_config(models: Path, clips: list[Path], target: Path, **changes: object) -> GenerateConfig:
    return generate_config(models, target, inputs_of(clips, PROMPTS)[:2], **changes)


def test_stored_prompts_give_the_same_videos_without_the_encoder(
    models: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampling = {"guidance": 2.0}
    generate.run(make_config(models, clips, tmp_path / "computed", sampling=sampling), Volumes())
    store_prompts(models, tmp_path / "text", [*PROMPTS[:2], DEFAULT_NEGATIVE_PROMPT])
    monkeypatch.setattr(T5Encoder, "__init__", lambda *_: pytest.fail("the encoder was loaded"))

    config = make_config(
        models, clips, tmp_path / "stored", sampling=sampling, embeddings_uri=str(tmp_path / "text")
    )
    generate.run(config, Volumes())

    videos = [
        [record["video_sha256"] for record in read_list(tmp_path / name)]
        for name in ("computed", "stored")
    ]
    assert videos[0] == videos[1]
    assert len(set(videos[0])) == 2


def test_only_texts_that_are_not_stored_are_computed(
    models: Path, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_prompts(models, tmp_path / "text", PROMPTS[:1])
    encode, computed = T5Encoder.encode, list[str]()

    def watch(self: T5Encoder, texts: Sequence[str], *rest: int) -> object:
        computed.extend(texts)
        return encode(self, texts, *rest)

    monkeypatch.setattr(T5Encoder, "encode", watch)
    config = make_config(models, clips, tmp_path / "out", embeddings_uri=str(tmp_path / "text"))

    found = embed_prompts(config, Volumes(), "cpu", [*PROMPTS, PROMPTS[0]])

    assert computed == [*PROMPTS[1:]]
    assert list(found.by_prompt) == [*PROMPTS]
    assert found.negative_LD is None


def test_a_store_of_another_encoder_is_told_and_not_used(
    models: Path, clips: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = tmp_path / "other"
    write_t5(other / "encoder", d_model=32, seed=5)
    store_prompts(other, tmp_path / "text", PROMPTS)
    config = make_config(models, clips, tmp_path / "out", embeddings_uri=str(tmp_path / "text"))
    plain = config.model_copy(update={"embeddings_uri": None})

    found, expected = (
        embed_prompts(one, Volumes(), "cpu", PROMPTS[:1]).by_prompt for one in (config, plain)
    )

    assert (found[PROMPTS[0]] == expected[PROMPTS[0]]).all()
    assert "stored embeddings are not used, all prompts are computed" in caplog.text


def test_a_store_that_is_not_there_yet_is_empty(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    config = make_config(models, clips, tmp_path / "out", embeddings_uri=str(tmp_path / "text"))

    assert list(embed_prompts(config, Volumes(), "cpu", PROMPTS).by_prompt) == [*PROMPTS]


def test_the_encoders_library_is_not_imported_for_stored_texts(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    store_prompts(models, tmp_path / "text", PROMPTS)
    config = make_config(models, clips, tmp_path / "out", embeddings_uri=str(tmp_path / "text"))
    document = tmp_path / "stage.yaml"
    document.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN, str(document)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []
