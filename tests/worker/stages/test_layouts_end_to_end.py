"""Datasets of all layouts from their files to a generated video: frames and captions of each sample."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from support.clips import annotation
from support.generation import generate_config, read_list
from support.lerobot_datasets import Layout, Recording, recordings, write_lerobot
from support.numbered_videos import HEIGHT, WIDTH, Kind, number_of, write_numbered
from support.text_encoders import write_t5
from support.tiny_tokenizer import write_tiny_tokenizer
from support.training import SMALL_NET, run_path, small_experiment, train_config, write_model

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import TextConfig, VideoConfig
from cosmos_worker.config.source import Source
from cosmos_worker.config.stages import (
    CacheLatentsConfig,
    DatasetLayout,
    EmbedTextConfig,
    PrepareDatasetConfig,
)
from cosmos_worker.data.index import read_index
from cosmos_worker.data.video.files import Frames
from cosmos_worker.stages import cache_latents, embed_text, generate, prepare_dataset
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import Volumes
from cosmos_worker.text.embeddings import EmbeddingStore, pad_text
from cosmos_worker.tokenizer.latents import LatentStore
from cosmos_worker.tokenizer.load import load_tokenizer
from cosmos_worker.tokenizer.tokenizer import video_from_pixels
from cosmos_worker.train.data import (
    Batch,
    WindowDataset,
)

VOLUMES = Volumes()
NUM_FRAMES = 9
MAX_LENGTH = 40
# NVIDIA releases TorchScript, which PyTorch deprecates since 2.9
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is (deprecated|not supported)")


@dataclass
class Expected:
    """A clip as it must come out: numbers in the pictures of its frames, and its captions."""

    numbers: list[int]
    captions: tuple[str, ...]


Clips = dict[str, Expected]


def write_video(path: Path, numbers: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_numbered(path, Kind("libx264"), numbers, fps=10)


def write_bridge(root: Path) -> Clips:
    clips: Clips = {}
    for i, split in enumerate(("train", "train", "train", "val")):
        path = root / "annotation" / split / f"{i}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(annotation(f"e{i}", split, 15, texts=[f"push {i}"])))
        numbers = list(range(15 * i, 15 * i + 15))
        write_video(root / "videos" / split / f"e{i}" / "rgb.mp4", numbers)
        clips[f"{split}/e{i}"] = Expected(numbers, (f"push {i}",))
    return clips


def write_videos(root: Path) -> Clips:
    clips: Clips = {}
    for i in range(4):
        numbers = list(range(15 * i, 15 * i + 15))
        write_video(root / "videos" / f"c{i}.mp4", numbers)
        (root / "metas").mkdir(exist_ok=True)
        (root / "metas" / f"c{i}.txt").write_text(f"push {i}\n")
        clips[f"train/c{i}"] = Expected(numbers, (f"push {i}",))
    return clips


def write_lerobot_v3(root: Path) -> Clips:
    changing = Recording(["open"] * 11 + ["close"] * 13)
    episodes = [*recordings(13, 15), changing, Recording(["push 9"] * 12)]
    splits = {"train": "0:3", "val": "3:4"}
    write_lerobot(root, Layout(episodes, per_file=3, info={"splits": splits}))
    return {
        "train/episode_000000": Expected(list(range(13)), ("push 0",)),
        "train/episode_000001": Expected(list(range(13, 28)), ("push 1",)),
        "train/episode_000002_frame_000000": Expected(list(range(28, 39)), ("open",)),
        "train/episode_000002_frame_000011": Expected(list(range(39, 52)), ("close",)),
        "val/episode_000003": Expected(list(range(52, 64)), ("push 9",)),
    }


def write_list(root: Path) -> Clips:
    write_video(root / "clips" / "a.mp4", range(60))
    write_video(root / "clips" / "b.mp4", range(50, 63))
    three = ("one", "two", "three")
    lines = [
        {"video": "clips/a.mp4", "start": 0.3, "end": 1.6, "captions": three},
        {"video": "clips/a.mp4", "start": 2, "end": 3.7, "captions": ["four", "five"]},
        {"video": "clips/b.mp4", "caption": "six"},
        {"video": "clips/a.mp4", "start": 4.5, "captions": ["seven", "eight"], "split": "val"},
    ]
    (root / "dataset.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {
        "train/clips/a.mp4:0.3-1.6": Expected(list(range(3, 16)), three),
        "train/clips/a.mp4:2-3.7": Expected(list(range(20, 37)), ("four", "five")),
        "train/clips/b.mp4": Expected(list(range(50, 63)), ("six",)),
        "val/clips/a.mp4:4.5-": Expected(list(range(45, 60)), ("seven", "eight")),
    }


WRITERS: dict[DatasetLayout, Callable[[Path], Clips]] = {
    "bridge": write_bridge,
    "videos": write_videos,
    "lerobot": write_lerobot_v3,
    "jsonl": write_list,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt, tokenizer/ and encoder/."""
    folder = tmp_path_factory.mktemp("models")
    write_model(folder / "model.pt")
    write_tiny_tokenizer(folder / "tokenizer")
    write_t5(folder / "encoder", d_model=SMALL_NET.text_channels)
    return folder


def make_experiment() -> Experiment:
    video = VideoConfig(num_pixel_frames=NUM_FRAMES, height=HEIGHT, width=WIDTH, window_stride=4)
    small = small_experiment(2, max_steps=6, save_every_steps=6)
    text = TextConfig(max_length=MAX_LENGTH)
    return Experiment.model_validate({**small.model_dump(), "video": video, "text": text})


@dataclass
class TakenSamples:
    """Samples that a training took, in their order: window, captions with this embedding, latent."""

    windows: list[str] = field(default_factory=list)
    captions: list[set[str]] = field(default_factory=list)
    latents: list[torch.Tensor] = field(default_factory=list)


def record_samples(
    monkeypatch: pytest.MonkeyPatch, text: EmbeddingStore, known: list[str]
) -> TakenSamples:
    """Record the samples of every training batch from now on."""
    seen, true = TakenSamples(), WindowDataset.batch
    experiment = make_experiment()
    embedded = {
        caption: pad_text([text.get(caption)], experiment.text.max_length, experiment.text_padding)[
            0
        ]
        for caption in known
    }

    def batch(windows: WindowDataset, samples: list[int], epochs: list[int] | None = None) -> Batch:
        made = true(windows, samples, epochs)
        if epochs is not None:
            for row, sample in enumerate(samples):
                given = made.text_BSD[row]
                seen.windows.append(windows.windows[sample].window_id)
                seen.latents.append(made.x0_BCTHW[row])
                seen.captions.append(
                    {name for name, value in embedded.items() if torch.equal(value, given)}
                )
        return made

    monkeypatch.setattr(WindowDataset, "batch", batch)
    return seen


def decode_all(path: Path) -> Frames:
    """All frames of a file in the order shown, by FFmpeg alone."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize("layout", WRITERS)
def test_samples_have_the_frames_and_captions_of_their_clips(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: DatasetLayout
) -> None:
    clips = WRITERS[layout](tmp_path / "source")
    experiment = make_experiment()
    common = {"key": "k", "dataset_uri": str(tmp_path / "index")}

    prepare_dataset.run(
        PrepareDatasetConfig(
            key="k", target_uri=str(tmp_path / "index"), data_uri=str(tmp_path / "data"),
            source=Source(path=str(tmp_path / "source")), layout=layout, video=experiment.video,
            max_bad_fraction=0, min_clips=4,
        ),
        VOLUMES,
    )  # fmt: skip
    embed_text.run(
        EmbedTextConfig(
            **common, target_uri=str(tmp_path / "text"), encoder_uri=str(models / "encoder"),
            max_length=MAX_LENGTH,
        ),
        VOLUMES,
    )  # fmt: skip
    cache_latents.run(
        CacheLatentsConfig(
            **common, target_uri=str(tmp_path / "latents"), video=experiment.video,
            tokenizer_uri=str(models / "tokenizer"), tokenizer=experiment.tokenizer,
        tokenizer_runtime="torchscript",
        ),
        VOLUMES,
    )  # fmt: skip

    latents = check_frames(tmp_path, models, clips)

    text = EmbeddingStore(tmp_path / "text")
    seen = record_samples(monkeypatch, text, read_index(tmp_path / "index").captions)
    config = train_config(tmp_path, experiment)
    train_stage.run(config.model_copy(update={"model_uri": str(models / "model.pt")}), VOLUMES)

    check_samples(seen, latents, clips, experiment)

    check_generated(models, tmp_path, clips)


def check_frames(root: Path, models: Path, clips: Clips) -> dict[str, torch.Tensor]:
    """The latents of every window are those of its frames; returns them by window."""
    index, store = read_index(root / "index"), LatentStore(root / "latents")
    tokenizer = load_tokenizer(
        models / "tokenizer", make_experiment().tokenizer, "cpu", "torchscript"
    )
    assert {clip.clip_id: clip.captions for clip in index.clips} == {
        name: clip.captions for name, clip in clips.items()
    }
    latents = {}
    for clip in index.clips:
        shown = decode_all(index.video_path(clip))
        numbers = [number_of(frame) for frame in shown]
        wanted = clips[clip.clip_id].numbers
        assert clip.window_starts == tuple(range(0, len(wanted) - NUM_FRAMES + 1, 4))
        for start in clip.window_starts:
            window = f"{clip.clip_id}@{start}"
            frames = clip.frames_in_file(start, NUM_FRAMES)
            assert [numbers[i] for i in frames] == wanted[start : start + NUM_FRAMES], window
            first = numbers.index(wanted[start])
            pixels = torch.from_numpy(shown[first : first + NUM_FRAMES])[None]
            latents[window] = tokenizer.encode(video_from_pixels(pixels))[0]
            assert torch.equal(store.get(window), latents[window]), window
    assert sorted(store.window_ids) == sorted(latents)
    return latents


def check_samples(
    seen: TakenSamples, latents: dict[str, torch.Tensor], clips: Clips, experiment: Experiment
) -> None:
    """Every training sample had the latent of its window and one caption of its clip."""
    trained = {window for window in latents if window.startswith("train/")}
    assert len(seen.windows) == 24
    assert set(seen.windows) == trained
    drawn: dict[str, set[str]] = {}
    for window, captions, latent in zip(seen.windows, seen.captions, seen.latents, strict=True):
        assert torch.equal(latent, latents[window] * experiment.diffusion.sigma_data), window
        (caption,) = captions
        clip = window.partition("@")[0]
        assert caption in clips[clip].captions, window
        drawn.setdefault(clip, set()).add(caption)
    for clip, captions in drawn.items():
        assert (len(captions) > 1) == (len(clips[clip].captions) > 1), clip


def check_generated(models: Path, root: Path, clips: Clips) -> None:
    """Check that the trained model continues a file of the dataset and keeps its first frame."""
    name, clip = list(clips.items())[-1]
    source = read_index(root / "index")
    video = source.video_path(source.clip(name))
    weights = run_path(root / "out") / "checkpoints" / "iter_000000006_reg_model.pt"
    inputs = [{"prompt": clip.captions[0], "visual_input_uri": str(video)}]
    generate.run(
        generate_config(
            models, root / "generated", inputs, checkpoint_uri=str(weights),
            net=SMALL_NET.model_dump(), text={"max_length": MAX_LENGTH},
            tokenizer={"chunk_pixel_frames": NUM_FRAMES, "dtype": "float32"},
            sampling={
                "num_pixel_frames": NUM_FRAMES, "num_steps": 2, "fps": 10.0,
                "height": HEIGHT, "width": WIDTH,
            },
        ),
        VOLUMES,
    )  # fmt: skip
    (record,) = read_list(root / "generated")
    assert record["prompt"] == clip.captions[0]
    known, true = decode_all(root / "generated" / record["video"]), decode_all(video)
    assert number_of(known[0]) == number_of(true[0])
