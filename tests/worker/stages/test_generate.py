from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from support.generation import (
    TINY_NET,
    generate_config,
    inputs_of,
    moving_square,
    read_json,
    read_list,
    write_models,
    write_tiny_model,
)
from support.text_encoders import write_unigram_tokenizer
from support.training import CORRECTED, with_correction

from cosmos_worker.data.video.files import (
    open_video,
    read_video,
    write_video,
)
from cosmos_worker.errors import CheckpointError, ConfigError, DataError
from cosmos_worker.metrics.psnr import score_prediction
from cosmos_worker.model.dit import CosmosDiT
from cosmos_worker.sample.checks import check_item
from cosmos_worker.stages import generate
from cosmos_worker.storage.volumes import (
    GENERATED_FILE,
    Volumes,
    sha256_of_file,
)
from cosmos_worker.tokenizer.load import FileTokenizer
from cosmos_worker.weights.adapter import (
    Adapter,
    write_adapter,
)
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.safetensors import Limits

PROMPTS = ("push the red cube right", "push the red cube left", "push the blue cube away")
# NVIDIA releases TorchScript, which PyTorch deprecates since 2.9
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is (deprecated|not supported)")


@pytest.fixture(scope="module")
def finished(models: Path, clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the first two inputs; a test that changes them takes a copy."""
    folder = tmp_path_factory.mktemp("finished") / "after"
    generate.run(generate_config(models, folder, job_inputs(clips)[:2]), Volumes())
    return folder


def job_inputs(clips: list[Path]) -> list[dict[str, Any]]:
    inputs = inputs_of(clips, PROMPTS)
    return [{**one, "ground_truth_uri": one["visual_input_uri"]} for one in inputs]


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_generate_writes_videos_records_and_list(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    config = generate_config(models, tmp_path, job_inputs(clips), metrics=("psnr", "push"))

    result = generate.run(config, Volumes())

    names = [f"{i:03d}.{suffix}" for i in range(3) for suffix in ("json", "mp4")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, GENERATED_FILE])
    record = read_json(tmp_path / "001.json")
    assert record["prompt"] == PROMPTS[1]
    assert record["seed"] == 1
    assert record["known_frames"] == 1
    assert record["sampling"]["num_steps"] == 3
    assert record["checkpoint_sha256"] == sha256_of_file(models / "model.pt")
    assert record["visual_input_sha256"] == sha256_of_file(clips[1])
    assert record["seconds"] > 0
    lines = read_list(tmp_path)
    assert [line["id"] for line in lines] == ["000", "001", "002"]
    assert lines[1] == record
    assert result["videos"] == 3
    assert result["kept"] == 0
    assert result["folder"] == config.target_uri
    assert result["seconds"] > 0
    assert 0 <= result["follow_share"] <= 1
    assert result["gain_db"] == pytest.approx(
        result["mean_psnr_db"] - result["mean_copy_psnr_db"], abs=2e-3
    )


def test_generate_samples_from_a_folder_and_merges_its_corrections(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    shutil.copytree(models, tmp_path / "lora")
    plain = torch.load(models / "model.pt", weights_only=True)
    torch.save(with_correction(plain)[0], tmp_path / "lora" / "model.pt")
    limits = Limits(shard_bytes=1 << 15)
    merged = tmp_path / "merged"
    convert_weights(tmp_path / "lora", merged, "diffusers", TINY_NET, limits, lora_scale=2)

    def video(name: str, checkpoint: Path, scale: float | None) -> NDArray[np.float32]:
        changes = {"checkpoint_uri": str(checkpoint), "checkpoint_lora_scale": scale}
        config = generate_config(models, tmp_path / name, job_inputs(clips)[:1], **changes)
        generate.run(config, Volumes())
        return read_video(tmp_path / name / "000.mp4").astype(np.float32)

    base = video("of-base", models, None)
    corrected = video("of-lora", tmp_path / "lora", 2)
    same = video("of-merged", merged, None)
    assert abs(corrected - base).mean() > 0.2
    # merged once or at every load: products may round in another order
    assert abs(corrected - same).mean() < abs(corrected - base).mean() / 10


def test_generate_samples_from_a_base_with_an_adapter(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    plain = torch.load(models / "model.pt", weights_only=True)
    corrected, _ = with_correction(plain)
    layer = CORRECTED.removesuffix(".weight")
    A, B = list(corrected.values())[-2:]
    adapter = Adapter({f"{layer}.lora_A": A, f"{layer}.lora_B": B}, alpha=4.0)  # scale 2
    shutil.copytree(models, tmp_path / "both")
    write_adapter(tmp_path / "both", adapter)
    shutil.copytree(models, tmp_path / "lora")
    torch.save(corrected, tmp_path / "lora" / "model.pt")

    def digest(name: str, checkpoint: Path, scale: float | None) -> str:
        changes = {"checkpoint_uri": str(checkpoint), "checkpoint_lora_scale": scale}
        config = generate_config(models, tmp_path / name, job_inputs(clips)[:1], **changes)
        generate.run(config, Volumes())
        return sha256_of_file(tmp_path / name / "000.mp4")

    both = digest("of-both", tmp_path / "both", None)
    assert both == digest("of-lora", tmp_path / "lora", 2)
    assert both != digest("of-base", models, None)


def test_generate_measures_the_written_file(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    config = generate_config(models, tmp_path, job_inputs(clips)[:1], metrics=("psnr",))

    result = generate.run(config, Volumes())

    frames = read_video(tmp_path / "000.mp4")
    score = score_prediction(frames, read_video(clips[0]), 1)
    assert frames.shape == (17, 32, 64, 3)
    assert result["mean_psnr_db"] == pytest.approx(score.psnr_db, abs=1e-3)
    assert result["mean_copy_psnr_db"] == pytest.approx(score.copy_psnr_db, abs=1e-3)
    assert "follow_share" not in result


def test_generate_keeps_finished_results(
    models: Path, clips: list[Path], finished: Path, tmp_path: Path
) -> None:
    target = Path(shutil.copytree(finished, tmp_path / "after"))
    before = snapshot(target)

    result = generate.run(generate_config(models, target, job_inputs(clips)), Volumes())

    after = snapshot(target)
    assert result["kept"] == 2
    assert result["videos"] == 3
    for name in ("000.mp4", "000.json", "001.mp4", "001.json"):
        assert after[name] == before[name]


def test_generate_keeps_results_whose_records_are_of_an_earlier_version(
    models: Path, clips: list[Path], finished: Path, tmp_path: Path
) -> None:
    target = Path(shutil.copytree(finished, tmp_path / "after"))
    for name in ("000.json", "001.json"):
        record = read_json(target / name)
        assert record["sampling"].pop("num_passes") == 1
        del record["checkpoint_lora_scale"]
        (target / name).write_text(json.dumps(record))
    folder = {"checkpoint_uri": str(models)}  # earlier, the same weights were called by their file

    same = generate.run(generate_config(models, target, job_inputs(clips)[:2], **folder), Volumes())
    longer = {"sampling": {"num_passes": 2}}
    other = generate.run(
        generate_config(models, target, job_inputs(clips)[:2], **longer), Volumes()
    )

    assert same["kept"] == 2
    assert other["kept"] == 0


def test_generate_gives_the_same_frames_alone_and_in_a_batch(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    inputs = [{**one, "id": f"clip-{i}"} for i, one in enumerate(job_inputs(clips))]
    generate.run(generate_config(models, tmp_path / "all", inputs), Volumes())

    generate.run(generate_config(models, tmp_path / "one", inputs[1:2]), Volumes())

    together, alone, other = (
        read_video(tmp_path / name).astype(int)
        for name in ("all/clip-1.mp4", "one/clip-1.mp4", "all/clip-2.mp4")
    )
    # another order of additions, half-precision embeddings, H.264: some pixels differ, the picture does not
    assert np.abs(together - alone).mean() < 1  # 0.3 to 0.6 of 255, depending on the CPU
    assert np.abs(together - other).mean() > 5


def test_generate_makes_damaged_results_again_bit_equal(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    config = generate_config(models, tmp_path, job_inputs(clips))
    generate.run(config, Volumes())
    videos = [tmp_path / f"{i:03d}.mp4" for i in range(3)]
    wanted = [video.read_bytes() for video in videos]
    videos[0].write_bytes(b"cut off")
    (tmp_path / "002.json").write_text("{")

    result = generate.run(config, Volumes())

    assert result["kept"] == 1
    assert [video.read_bytes() for video in videos] == wanted


def test_generate_makes_results_of_another_checkpoint_again(
    clips: list[Path], tmp_path: Path
) -> None:
    models = tmp_path / "models"
    write_models(models)
    config = generate_config(models, tmp_path / "out", job_inputs(clips)[:1])
    generate.run(config, Volumes())
    before = read_json(tmp_path / "out" / "000.json")

    write_tiny_model(models, seed=1)
    result = generate.run(config, Volumes())

    after = read_json(tmp_path / "out" / "000.json")
    assert result["kept"] == 0
    assert after["checkpoint_sha256"] != before["checkpoint_sha256"]
    assert after["video_sha256"] != before["video_sha256"]


def test_generate_uses_the_negative_prompt(models: Path, clips: list[Path], tmp_path: Path) -> None:
    def video(name: str, negative: str | None) -> str:
        sampling = {"guidance": 4.0, "negative_prompt": negative}
        config = generate_config(models, tmp_path / name, job_inputs(clips)[:1], sampling=sampling)
        generate.run(config, Volumes())
        return str(read_json(tmp_path / name / "000.json")["video_sha256"])

    digests = {video("default", None), video("empty", ""), video("text", "ugly")}

    assert len(digests) == 3


def test_generate_reads_a_prompt_file_and_nine_known_frames(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    prompts = clips[0].parent / "prompts.jsonl"
    prompts.write_text(json.dumps({"visual_input": clips[0].name, "prompt": "a cube"}) + "\n")
    config = generate_config(
        models,
        tmp_path,
        inputs_file_uri=str(prompts),
        text={"max_length": 24},
        text_padding="trim",
        sampling={"num_input_frames": 9, "sampler": "res_2ab"},
    )

    generate.run(config, Volumes())

    known = read_video(tmp_path / "000.mp4")[0].astype(int)
    assert np.abs(known - read_video(clips[0])[0]).mean() < 40  # a tokenizer of 16 patterns a cell


def test_generate_tells_its_progress_without_a_terminal(
    models: Path, clips: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "cosmos_worker.runtime.progress"):
        generate.run(generate_config(models, tmp_path, job_inputs(clips)), Volumes())

    assert "generate steps=6/6 " in caplog.text  # 2 batches of 3 steps


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"inputs_file_uri": "gone.jsonl"}, ConfigError, "gone.jsonl: no such file"),
        ({"sampling": {"height": 144}}, ConfigError, r"sampling\.height: 144 is more"),
        ({"checkpoint_uri": "gone.pt"}, CheckpointError, "gone.pt: no such weight file"),
        (
            {"tokenizer_uri": "embedded"},
            CheckpointError,
            "has 1536 latent channels, the network takes 16",
        ),
        ({"encoder_uri": "gone"}, CheckpointError, "config.json: no such file"),
        (
            {"net": TINY_NET.model_copy(update={"text_channels": 8}).model_dump()},
            CheckpointError,
            r"embeddings are 32 wide, the network takes 8 \(net\.text_channels\)",
        ),
    ],
)
def test_generate_refuses_what_cannot_be_and_leaves_results(
    models: Path,
    clips: list[Path],
    finished: Path,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    before = snapshot(finished)

    with pytest.raises(error, match=message):
        generate.run(generate_config(models, finished, job_inputs(clips), **changes), Volumes())

    assert snapshot(finished) == before


def test_generate_refuses_metrics_that_an_input_cannot_have(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    first = job_inputs(clips)[0]
    other = generate_config(models, tmp_path, [{**first, "prompt": "wave"}], metrics=("push",))
    alone = generate_config(
        models, tmp_path, [{**first, "ground_truth_uri": None}], metrics=("psnr",)
    )

    with pytest.raises(ConfigError, match=r"inputs\.0: prompt: 'wave' is no instruction"):
        generate.run(other, Volumes())
    with pytest.raises(ConfigError, match=r"inputs\.0: ground_truth is missing"):
        generate.run(alone, Volumes())


def test_generate_goes_on_beyond_one_pass_and_says_so(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    write_video(tmp_path / "long.mp4", moving_square(num_frames=33), 4.0)
    given = [{**job_inputs(clips)[0], "ground_truth_uri": str(tmp_path / "long.mp4")}]
    sampling = {"num_passes": 2}
    config = generate_config(models, tmp_path / "out", given, metrics=("psnr",), sampling=sampling)

    generate.run(config, Volumes())

    record = read_json(tmp_path / "out" / "000.json")
    assert record["sampling"]["num_passes"] == 2
    frames = read_video(tmp_path / "out" / "000.mp4")
    assert frames.shape[0] == 33
    truth = read_video(tmp_path / "long.mp4")
    assert record["metrics"]["psnr_db"] == pytest.approx(
        score_prediction(frames, truth, 1).psnr_db, abs=1e-3
    )
    short = generate_config(
        models, tmp_path / "out", job_inputs(clips)[:1], metrics=("psnr",), sampling=sampling
    )
    with pytest.raises(DataError, match="has 17 frames, fewer than the 33 frames of num_passes 2"):
        generate.run(short, Volumes())
    one = generate.run(
        generate_config(models, tmp_path / "out", given, metrics=("psnr",)), Volumes()
    )
    assert one["kept"] == 0


def test_generate_keeps_offloaded_models_in_host_memory(
    models: Path, clips: list[Path], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    move = FileTokenizer.move
    monkeypatch.setattr(
        FileTokenizer,
        "move",
        lambda self, device: (told.append(str(device)), move(self, device))[1],
    )
    offload = ("tokenizer", "network")
    config = generate_config(models, tmp_path, job_inputs(clips)[:2], offload=offload)

    generate.run(config, Volumes())

    assert told == ["cpu"] * 5  # after loading; to and from the device for encoding and decoding
    for name in ("000.mp4", "001.mp4"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes()


def test_generate_refuses_a_ground_truth_that_is_too_short(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    config = generate_config(
        models,
        tmp_path,
        job_inputs(clips),
        metrics=("psnr",),
        tokenizer={"chunk_pixel_frames": 25},
        sampling={"num_pixel_frames": 25},
    )

    with pytest.raises(DataError, match="has 17 frames, fewer than num_pixel_frames 25"):
        generate.run(config, Volumes())


# --- frames per second -------------------------------------------------------------------------


def at_rate(folder: Path, name: str, fps: float) -> Path:
    path = folder / name
    write_video(path, moving_square(), fps)
    return path


def test_each_video_goes_on_at_the_rate_of_the_one_that_it_continues(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[float]] = []
    forward = CosmosDiT.forward

    def note(net: CosmosDiT, *inputs: Any) -> Any:
        seen.append(inputs[4].tolist())
        return forward(net, *inputs)

    monkeypatch.setattr(CosmosDiT, "forward", note)
    clips = [at_rate(tmp_path, f"{fps}.mp4", fps) for fps in (5.0, 10.0)]
    inputs = inputs_of(clips, PROMPTS[:2])
    config = generate_config(
        models, tmp_path / "out", inputs, fps_of_inputs=True, sampling={"batch_size": 2}
    )
    generate.run(config, Volumes())

    assert {fps for batch in seen for fps in batch} == {5.0, 10.0}
    for name, fps in (("000", 5.0), ("001", 10.0)):
        assert open_video(tmp_path / "out" / f"{name}.mp4").fps == pytest.approx(fps)
        assert read_json(tmp_path / "out" / f"{name}.json")["sampling"]["fps"] == fps


def test_an_image_takes_the_rate_of_the_items_videos_if_they_have_one(
    models: Path, tmp_path: Path
) -> None:
    Image.fromarray(moving_square()[0]).save(tmp_path / "start.png")
    start = tmp_path / "start.png"
    slow, fast = (at_rate(tmp_path, f"{fps}.mp4", fps) for fps in (5.0, 10.0))
    one_rate = generate_config(
        models, tmp_path, inputs_of([start, slow], PROMPTS[:2]), fps_of_inputs=True
    )
    two_rates = generate_config(
        models, tmp_path, inputs_of([start, slow, fast], PROMPTS[:3]), fps_of_inputs=True
    )

    checked = [
        check_item(config, config.net, config.tokenizer, Volumes())
        for config in (one_rate, two_rates, one_rate.model_copy(update={"fps_of_inputs": False}))
    ]

    assert [[one.fps for one in inputs] for inputs in checked] == [
        [5.0, 5.0],
        [None, 5.0, 10.0],
        [None, None],
    ]
    assert checked[0][0].notes == ()
    assert "set parameters.fps to choose" in checked[1][0].notes[-1]


@pytest.mark.parametrize(("known", "is_told"), [(1, False), (9, True)])
def test_known_frames_of_another_rate_than_the_result_are_told(
    models: Path, tmp_path: Path, known: int, is_told: bool
) -> None:
    video = at_rate(tmp_path, "fast.mp4", 30.0)
    sampling = {"num_input_frames": known, "fps": 10.0}
    config = generate_config(models, tmp_path, inputs_of([video], PROMPTS[:1]), sampling=sampling)

    (checked,) = check_item(config, config.net, config.tokenizer, Volumes())

    told = "its 9 known frames are 30 a second and are taken as they are, the result has 10"
    assert any(note.startswith(told) for note in checked.notes) is is_told


# --- other aspect ratios -----------------------------------------------------------------------


def test_cropped_result_is_compared_with_the_cropped_ground_truth(
    models: Path, tmp_path: Path
) -> None:
    tall = tmp_path / "tall.mp4"
    write_video(
        tall, moving_square(height=128, width=64), 4.0
    )  # the middle 32 rows fill the result
    inputs = [{**one, "ground_truth_uri": str(tall)} for one in inputs_of([tall], PROMPTS[:1])]
    config = generate_config(models, tmp_path / "out", inputs, metrics=("psnr",), fit="crop")

    generate.run(config, Volumes())

    record = read_json(tmp_path / "out" / "000.json")
    video, truth = read_video(tmp_path / "out" / "000.mp4"), read_video(tall)[:, 48:80]
    expected = score_prediction(video, truth[: len(video)], 1)
    assert record["fit"] == "crop"
    assert record["metrics"]["psnr_db"] == pytest.approx(expected.psnr_db, abs=1e-3)
    assert record["metrics"]["copy_psnr_db"] == pytest.approx(expected.copy_psnr_db, abs=1e-3)


def test_what_was_done_to_an_input_is_in_the_log_and_in_its_record(
    models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.new("RGBA", (32, 64), (255, 0, 0, 128)).save(tmp_path / "tall.png")
    inputs = inputs_of([tmp_path / "tall.png"], PROMPTS[:1])

    generate.run(generate_config(models, tmp_path / "out", inputs), Volumes())

    notes = read_json(tmp_path / "out" / "000.json")["notes"]
    assert [note.split(";")[0] for note in notes] == [
        "transparent parts are laid over black",
        "32x64 is stretched to 64x32, which distorts by 300%",
    ]
    for note in notes:
        assert note in caplog.text


def test_result_of_a_version_that_read_other_frames_is_made_anew(
    models: Path, clips: list[Path], finished: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    for name in ("000", "001"):
        record = read_json(copy / f"{name}.json")
        del record["fit"]
        if name == "001":
            del record["video_reader"]
        (copy / f"{name}.json").write_text(json.dumps(record))

    result = generate.run(generate_config(models, copy, job_inputs(clips)[:2]), Volumes())

    assert result["kept"] == 1


def test_prompt_that_the_encoder_does_not_know_is_told(
    models: Path, clips: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(models / "encoder", tmp_path / "encoder")
    encoder = write_unigram_tokenizer(tmp_path / "encoder")
    inputs = inputs_of(clips, ("推红色方块往左", "push 红 left", "push the red cube left"))
    config = generate_config(models, tmp_path / "out", inputs, encoder_uri=str(encoder))

    result = generate.run(config, Volumes())

    records = [read_json(tmp_path / "out" / f"00{i}.json") for i in range(3)]
    assert [record.get("unknown_text") for record in records] == [1.0, 0.1111, None]
    assert result["unknown_prompts"] == 1
    assert "100 % of the text '推红色方块往左' is unknown to the encoder" in caplog.text
    assert generate.run(config, Volumes())["kept"] == 3
