"""check-inputs: faults of inference items are found without models, before the training."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from support.generation import TINY_NET, generate_config, inputs_of, moving_square
from support.text_encoders import write_t5, write_unigram_tokenizer

from cosmos_worker.cli import main
from cosmos_worker.config.stages import CheckInputsConfig, ItemConfig
from cosmos_worker.data.video.files import (
    open_video,
    write_video,
)
from cosmos_worker.errors import CheckpointError, ConfigError, DataError, UserError
from cosmos_worker.stages import check_inputs, generate
from cosmos_worker.storage.volumes import (
    Volumes,
    read_marker,
)

PROMPTS = ("push the red cube right", "push the red cube left")


def item(folder: Path, name: str, **values: Any) -> ItemConfig:
    """An inference item whose model paths below ``folder`` do not exist."""
    document = generate_config(folder, folder, values.pop("inputs", []), **values)
    fields = {field: getattr(document, field) for field in ItemConfig.model_fields}
    return ItemConfig(**{**fields, "name": name})


def document(folder: Path, *items: ItemConfig) -> CheckInputsConfig:
    tokenizer = generate_config(folder, folder, []).tokenizer
    return CheckInputsConfig(
        key="k1", target_uri=str(folder / "checked"), net=TINY_NET, tokenizer=tokenizer, items=items
    )


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, moving_square(), 4.0)
    return path


def test_items_that_can_be_sampled_pass_with_what_is_done_to_them(
    tmp_path: Path, clip: Path
) -> None:
    Image.new("RGB", (32, 64)).save(tmp_path / "tall.png")
    lines = [
        {"visual_input": "clip.mp4", "prompt": "a"},
        {"visual_input": "tall.png", "prompt": "b"},
    ]
    listed = tmp_path / "list.jsonl"
    listed.write_text("\n".join(map(json.dumps, lines)))
    config = document(
        tmp_path,
        item(tmp_path, "file", inputs_file_uri=str(listed)),
        item(tmp_path, "job", inputs=inputs_of([clip], PROMPTS[:1])),
    )

    result = check_inputs.run(config, Volumes())

    assert result["inputs"] == {"file": 2, "job": 1}
    ((note, count),) = result["notes"].items()
    assert "32x64 is stretched to 64x32" in note
    assert count == 1


def test_what_is_wrong_in_every_item_is_told_at_once(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"visual_input": "clip.mp4", "promt": "a"}\n')
    (tmp_path / "text.png").write_text("no image")
    Image.new("RGB", (64, 32)).save(tmp_path / "one.png")
    nine = {"sampling": {"num_input_frames": 9, "num_pixel_frames": 17}}
    psnr = inputs_of([clip], PROMPTS[:1])
    config = document(
        tmp_path,
        item(tmp_path, "good", inputs=inputs_of([clip], PROMPTS[:1])),
        item(tmp_path, "key", inputs_file_uri=str(tmp_path / "bad.jsonl")),
        item(tmp_path, "text", inputs=inputs_of([tmp_path / "text.png"], PROMPTS[:1])),
        item(tmp_path, "image", inputs=inputs_of([tmp_path / "one.png"], PROMPTS[:1]), **nine),
        item(tmp_path, "gone", inputs=inputs_of([tmp_path / "gone.mp4"], PROMPTS[:1])),
        item(tmp_path, "truth", inputs=psnr, metrics=("psnr",)),
        item(tmp_path, "large", inputs=psnr, sampling={"height": 144}),
    )

    with pytest.raises(UserError) as caught:
        check_inputs.run(config, Volumes())

    said = str(caught.value)
    for name, words in (
        ("key", "bad.jsonl:1: unknown key 'promt'; did you mean 'prompt'?"),
        ("text", "text.png is neither an image"),
        ("image", "is an image, but num_input_frames is 9"),
        ("gone", "no such file"),
        ("truth", "ground_truth is missing"),
        ("large", "sampling.height: 144 is more than the network admits"),
    ):
        assert f"inference item {name}: " in said
        assert words in said
    assert "item good" not in said
    assert "\n" not in said


def test_ground_truth_that_is_damaged_after_its_first_frame_is_one_line(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_video(tmp_path / "whole.mp4", moving_square(height=64, width=96), 4.0)
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) * 3 // 4])
    open_video(tmp_path / "cut.mp4")
    (given,) = inputs_of([clip], PROMPTS[:1])
    given["ground_truth_uri"] = str(tmp_path / "cut.mp4")
    path = tmp_path / "stage.yaml"
    config = document(tmp_path, item(tmp_path, "a", inputs=[given], metrics=("psnr",)))
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))

    assert main(["check-inputs", "--config", str(path)]) == 2

    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert "inference item a: inputs.0: ground_truth: " in said
    assert "cut.mp4: cannot be decoded as video" in said


@pytest.mark.parametrize("name", ["text.mp4", "cut.jpg", "gone.png"])
def test_what_fails_here_is_what_the_sampling_would_have_failed_with(
    tmp_path: Path, clip: Path, name: str
) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    Image.new("RGB", (64, 32)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:300])
    inputs = inputs_of([tmp_path / name], PROMPTS[:1])

    with pytest.raises((DataError, ConfigError)) as early:
        check_inputs.run(document(tmp_path, item(tmp_path, "a", inputs=inputs)), Volumes())
    config = generate_config(tmp_path, tmp_path / "out", inputs, tokenizer_uri="embedded")
    with pytest.raises((DataError, ConfigError)) as late:
        generate.run(config, Volumes())

    assert str(early.value) == f"inference item a: {late.value}"


def test_command_ends_with_2_and_one_line_or_leaves_its_marker(
    tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "stage.yaml"
    for name, code in (("gone.mp4", 2), ("clip.mp4", 0)):
        config = document(
            tmp_path, item(tmp_path, "a", inputs=inputs_of([tmp_path / name], PROMPTS[:1]))
        )
        path.write_text(yaml.safe_dump(config.model_dump(mode="json")))

        assert main(["check-inputs", "--config", str(path)]) == code

        assert "Traceback" not in capsys.readouterr().err
    assert read_marker(tmp_path / "checked", "k1") is not None


def test_no_code_of_models_is_loaded() -> None:
    program = (
        "import sys, cosmos_worker.stages.check_inputs\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'transformers', 'torchvision'}, loaded"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_prompts_of_a_list_that_the_encoder_does_not_know_are_found(
    tmp_path: Path, clip: Path
) -> None:
    encoder = write_unigram_tokenizer(write_t5(tmp_path / "encoder"))
    lines = [
        {"visual_input": "clip.mp4", "prompt": text} for text in (PROMPTS[0], "推红色方块往左")
    ]
    listed = tmp_path / "list.jsonl"
    listed.write_text("\n".join(map(json.dumps, lines)))
    one = item(tmp_path, "file", inputs_file_uri=str(listed))
    config = document(tmp_path, one).model_copy(update={"encoder_uri": str(encoder)})

    with pytest.raises(DataError, match=r"item file: 1 of 2 prompts .* such as .*list\.jsonl:2: "):
        check_inputs.run(config, Volumes())

    upsampled = one.model_copy(update={"prompt_upsampler_uri": str(tmp_path / "absent")})
    config = config.model_copy(update={"items": (upsampled,)})
    with pytest.raises(CheckpointError, match=r"item file: upsample: .*absent") as caught:
        check_inputs.run(config, Volumes())
    assert "unknown to the encoder" not in str(caught.value)


def test_published_name_of_another_job_is_found_before_the_training(
    tmp_path: Path, clip: Path
) -> None:
    published = tmp_path / "published"
    published.mkdir()
    (published / "model.json").write_text(json.dumps({"job": "arm"}))
    checked = document(tmp_path, item(tmp_path, "a", inputs=inputs_of([clip], PROMPTS[:1])))
    with_name = {"published_uri": str(published)}

    with pytest.raises(CheckpointError, match="belongs to arm, not to leg; choose another outputs"):
        check_inputs.run(checked.model_copy(update={**with_name, "job": "leg"}), Volumes())
    check_inputs.run(checked.model_copy(update={**with_name, "job": "arm"}), Volumes())
