from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.generation import generate_config, moving_square

from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.stages import GenerateInput
from cosmos_worker.data.video.decoding import UnreadableVideo
from cosmos_worker.data.video.files import (
    read_video,
    write_video,
)
from cosmos_worker.errors import ConfigError, DataError
from cosmos_worker.sample.conditioning import (
    check_visual_input,
    read_known_frames,
    read_last_known_frame,
)
from cosmos_worker.sample.inputs import SampleInput, collect_inputs, raise_all
from cosmos_worker.storage.volumes import Volumes

SAMPLING = SamplingConfig(num_pixel_frames=17, height=32, width=64, input_frames="first")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    write_video(path, moving_square(), 4.0)
    return path


def make_input(path: Path, ground_truth: Path | None = None) -> SampleInput:
    return SampleInput("000", "push", path, ground_truth, "inputs.0")


def write_lines(folder: Path, *lines: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text(
        "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    )
    return path


def collect_file(path: Path) -> list[SampleInput]:
    return collect_inputs((), path, Volumes())


def test_inputs_file_paths_are_relative_to_the_file(clip: Path) -> None:
    path = write_lines(
        clip.parent,
        {"visual_input": "clip.mp4", "prompt": " push the cube "},
        {"visual_input": "clip.mp4", "prompt": "lift", "ground_truth": "clip.mp4", "id": "lift-1"},
    )

    first, second = collect_file(path)

    assert (first.id, first.prompt, first.visual_input, first.ground_truth) == (
        "000",
        "push the cube",
        clip,
        None,
    )
    assert (second.id, second.ground_truth) == ("lift-1", clip)


def test_errors_that_are_told_together_are_of_the_first_ones_kind() -> None:
    with pytest.raises(DataError, match=r"a\.mp4: cannot .* damaged; .*; too large$") as caught:
        raise_all([UnreadableVideo(Path("a.mp4"), "damaged"), ConfigError("too large")])

    assert type(caught.value) is DataError


def test_inputs_of_the_job_resolve_addresses_and_come_first(clip: Path) -> None:
    listed = (GenerateInput(prompt="lift", visual_input_uri="datasets://clip.mp4"),)
    path = write_lines(clip.parent, {"visual_input": "clip.mp4", "prompt": "push"})

    inputs = collect_inputs(listed, path, Volumes({"datasets": clip.parent}))

    assert [(one.id, one.prompt, one.visual_input) for one in inputs] == [
        ("000", "lift", clip),
        ("001", "push", clip),
    ]


@pytest.mark.parametrize(
    ("stored", "written"), [("caf\u00e9", "cafe\u0301"), ("cafe\u0301", "caf\u00e9")]
)
def test_names_and_prompts_are_the_same_in_either_form(
    clip: Path, stored: str, written: str
) -> None:
    file = clip.rename(clip.with_name(f"{stored}.mp4"))
    entry = {"visual_input": f"{written}.mp4", "ground_truth": f"{written}.mp4"}
    path = write_lines(file.parent, {**entry, "prompt": written})
    listed = GenerateInput(
        prompt=written,
        visual_input_uri=f"datasets://{written}.mp4",
        ground_truth_uri=f"datasets://{written}.mp4",
    )

    inputs = collect_inputs((listed,), path, Volumes({"datasets": file.parent}))

    assert [one.prompt for one in inputs] == ["caf\u00e9"] * 2
    assert [one.visual_input for one in inputs] == [file] * 2
    assert [one.ground_truth for one in inputs] == [file] * 2


def test_inputs_file_that_is_empty_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path, "", "   ")

    with pytest.raises(DataError, match=r"prompts\.jsonl: the file is empty; give one"):
        collect_file(path)


def test_inputs_file_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl: no such file; inputs_file_uri names"):
        collect_file(tmp_path / "none.jsonl")


def test_inputs_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "\xe9"}')

    with pytest.raises(DataError, match=r"prompts\.jsonl: not UTF-8: byte 0xe9 at position 12"):
        collect_file(path)


def test_no_inputs_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="inputs: the list is empty"):
        collect_inputs((), None, Volumes())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{nonsense", r"prompts\.jsonl:2: not JSON: .*got '\{nonsense'"),
        ("[1]", r":2: got list; give an object with visual_input, prompt"),
        ({"visual_input": "clip.mp4"}, r":2: prompt is missing; give an object with"),
        ({"visual_input": "clip.mp4", "prompt": None}, r":2: prompt: got None; give a text"),
        ({"visual_input": "clip.mp4", "prompt": "  "}, r":2: prompt: is blank; write"),
        ({"visual_input": "clip.mp4", "prompt": 3}, r":2: prompt: got 3; give a text"),
        (
            {"visual_input": "gone.mp4", "prompt": "a"},
            r":2: visual_input: no such file .*gone\.mp4",
        ),
        ({"visual_input": "", "prompt": "a"}, r":2: visual_input: no such file"),
        (
            {"visual_input": "clip.mp4", "prompt": "a", "promt": "b"},
            r":2: unknown key 'promt'; did you mean 'prompt'\? allowed: visual_input, prompt, ground_truth, id",
        ),
        ({"xyz": 1}, r":2: unknown key 'xyz'; allowed: visual_input, prompt, ground_truth, id"),
        (
            {"visual_input": "clip.mp4", "prompt": "a", "ground_truth": "gone.mp4"},
            r":2: ground_truth: no such file",
        ),
        ({"visual_input": "clip.mp4", "prompt": "a", "id": "../x"}, r":2: id: got '\.\./x'; use"),
        ({"visual_input": "clip.mp4", "prompt": "a", "id": "000"}, r":2: id '000' is used by .*:1"),
    ],
)
def test_inputs_file_with_a_wrong_line_is_refused(clip: Path, line: object, message: str) -> None:
    path = write_lines(clip.parent, {"visual_input": "clip.mp4", "prompt": "a"}, line)

    with pytest.raises((DataError, ConfigError), match=message):
        collect_file(path)


def test_inputs_file_tells_all_wrong_lines_at_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path, "{", "[]", {"prompt": "a"})

    with pytest.raises(DataError, match=r":1: .*:2: .*:3: visual_input is missing"):
        collect_file(path)


DEEP = "[" * 100_000
DIGITS = '{"visual_input": "clip.mp4", "prompt": ' + "1" * 5000 + "}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (DEEP, r":2: JSON that is too deeply nested; got '\[+\.\.\.\[+'"),
        (DIGITS, ":2: a number of too many digits; got"),
        ('{"visual_input": "clip.mp4", "prompt": "a \\ud800 b"}', ":2: prompt: the lone surrogate"),
        ('{"visual_input": "a\\u0000.mp4", "prompt": "a"}', r":2: visual_input: .* cannot be a file's name"),
        ('{"visual_input": "\\ud800.mp4", "prompt": "a"}', r":2: visual_input: .* cannot be a file's name"),
        ({"visual_input": "x" * 5000, "prompt": "a"}, ":2: visual_input: .*: File name too long; correct"),
        ({"visual_input": "folder.mp4", "prompt": "a"}, r":2: visual_input: .*folder\.mp4 is a folder, not"),
        ({"visual_input": "clip.mp4/x", "prompt": "a"}, ":2: visual_input: .*Not a directory; correct"),
        ('{"prompt": "a", "prompt": "b"}', ":2: 'prompt' is given twice"),
    ],
)  # fmt: skip
def test_hostile_lines_are_refused_in_one_line_with_their_number(
    clip: Path, line: object, message: str
) -> None:
    (clip.parent / "folder.mp4").mkdir()
    path = write_lines(clip.parent, {"visual_input": "clip.mp4", "prompt": "a"}, line)

    with pytest.raises(DataError, match=message) as caught:
        collect_file(path)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 1000


def test_inputs_file_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder, not a file; inputs_file_uri names"):
        collect_file(tmp_path)


def test_marks_line_ends_and_accents_of_other_systems_change_nothing(clip: Path) -> None:
    line = json.dumps({"visual_input": "clip.mp4", "prompt": "le cafe\u0301"}, ensure_ascii=False)
    path = clip.parent / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n{line}\r\n".encode())

    assert [one.prompt for one in collect_file(path)] == ["le caf\u00e9"] * 2


def test_blank_prompt_of_the_job_is_refused(clip: Path) -> None:
    config = generate_config(
        clip.parent, clip.parent, [{"prompt": " ", "visual_input_uri": str(clip)}]
    )

    with pytest.raises(ConfigError, match=r"inputs\.0: prompt: is blank"):
        collect_inputs(config.inputs, None, Volumes())


@pytest.mark.parametrize(("which", "start"), [("first", 0), ("last", 8)])
def test_known_frames_are_the_first_or_last_of_a_video(clip: Path, which: str, start: int) -> None:
    sampling = SAMPLING.model_copy(update={"num_input_frames": 9, "input_frames": which})

    known = read_known_frames(make_input(clip), sampling)

    wanted = torch.from_numpy(read_video(clip)[start : start + 9]).permute(3, 0, 1, 2)
    assert known.shape == (3, 9, 32, 64)
    torch.testing.assert_close(known, wanted / 127.5 - 1)
    legacy = read_known_frames(
        make_input(clip), sampling.model_copy(update={"pixel_range": "legacy"})
    )
    torch.testing.assert_close(legacy, wanted / 128 - 1)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_known_frame_of_an_image_is_resized_and_spans_minus_one_to_one(
    tmp_path: Path, mode: str
) -> None:
    picture = np.zeros((64, 64, 3), dtype=np.uint8)
    picture[:, 32:] = 255
    path = tmp_path / "picture.png"
    Image.fromarray(picture).convert(mode).save(path)

    known = read_known_frames(make_input(path), SAMPLING)

    assert known.shape == (3, 1, 32, 64)
    assert (float(known.min()), float(known.max())) == (-1.0, 1.0)  # white is 1, not 0.992


def test_broken_image_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n broken")

    with pytest.raises(DataError, match=r"picture\.png: cannot be read as an image"):
        check_visual_input(make_input(path), SAMPLING)


def test_image_for_nine_known_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    Image.new("RGB", (48, 32)).save(path)

    with pytest.raises(ConfigError, match="is an image, but num_input_frames is 9"):
        check_visual_input(make_input(path), SAMPLING.model_copy(update={"num_input_frames": 9}))


def test_video_shorter_than_the_known_frames_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "short.mp4"
    write_video(path, moving_square(num_frames=5), 4.0)

    with pytest.raises(DataError, match="has 5 frames, fewer than num_input_frames 9"):
        check_visual_input(make_input(path), SAMPLING.model_copy(update={"num_input_frames": 9}))


def test_ground_truth_that_ends_where_the_result_begins_is_refused(clip: Path) -> None:
    sampling = SAMPLING.model_copy(update={"input_frames": "last"})

    with pytest.raises(ConfigError, match="set input_frames to 'first'"):
        check_visual_input(make_input(clip, ground_truth=clip), sampling)


def test_files_are_what_their_content_says(tmp_path: Path, clip: Path) -> None:
    frame = read_video(clip)[-1]
    Image.fromarray(frame).save(tmp_path / "image.mp4", format="PNG")
    clip.rename(tmp_path / "video.png")

    image = check_visual_input(make_input(tmp_path / "image.mp4"), SAMPLING)
    video = check_visual_input(make_input(tmp_path / "video.png"), SAMPLING)

    assert (image.fps, video.fps) == (None, 4.0)
    last = SAMPLING.model_copy(update={"input_frames": "last"})
    torch.testing.assert_close(read_known_frames(image, last), read_known_frames(video, last))


def test_a_file_that_is_neither_image_nor_video_is_refused(tmp_path: Path) -> None:
    for name, message in (
        ("a.png", "neither an image .* nor a video"),
        ("a.mp4", "cannot be decoded"),
    ):
        path = tmp_path / name
        path.write_text("once upon a time " * 20)

        with pytest.raises(DataError, match=rf"inputs\.0: visual_input: .*{message}"):
            check_visual_input(make_input(path), SAMPLING)


def test_a_distorted_input_is_told_unless_it_is_cropped_or_padded(tmp_path: Path) -> None:
    path = tmp_path / "portrait.png"
    Image.new("RGB", (36, 64), (200, 100, 50)).save(path)

    notes = [
        check_visual_input(make_input(path), SAMPLING, fit).notes
        for fit in ("stretch", "crop", "pad")
    ]

    assert notes[0] == (
        "36x64 is stretched to 64x32, which distorts by 256%; to keep the aspect ratio, crop it before, or set "
        "spec.dataset.fit to Crop or Pad, which changes the frames of the training too (video2world: --fit crop or "
        "--fit pad)",
    )
    assert notes[1:] == [(), ()]


def test_known_frames_are_cropped_or_padded(tmp_path: Path) -> None:
    path = tmp_path / "tall.png"
    picture = np.full((64, 32, 3), 255, dtype=np.uint8)
    picture[:16] = picture[48:] = 0
    Image.fromarray(picture).save(path)
    one, small = make_input(path), SAMPLING.model_copy(update={"height": 32, "width": 32})

    cropped = read_known_frames(one, small, "crop")
    padded = read_known_frames(one, small, "pad")

    assert (cropped == 1).all()  # the middle 32 rows
    assert cropped.shape == padded.shape == (3, 1, 32, 32)
    assert (padded[..., :8] == -1).all()
    assert (padded[..., 24:] == -1).all()
    assert (padded[..., 12:20, 10:22] == 1).all()


@pytest.mark.parametrize(("height", "width"), [(32, 64), (16, 32)])
def test_known_frames_of_the_results_aspect_ratio_are_the_same_however_they_are_fit(
    clip: Path, height: int, width: int
) -> None:
    sampling = SAMPLING.model_copy(update={"height": height, "width": width})

    stretched, cropped, padded = (
        read_known_frames(make_input(clip), sampling, fit) for fit in ("stretch", "crop", "pad")
    )

    assert torch.equal(stretched, cropped)
    assert torch.equal(stretched, padded)


def test_prompts_are_written_for_the_part_of_a_frame_that_is_sampled(tmp_path: Path) -> None:
    picture = np.arange(48 * 32 * 3, dtype=np.uint8).reshape(48, 32, 3)
    Image.fromarray(picture).save(tmp_path / "tall.png")
    one = make_input(tmp_path / "tall.png")

    np.testing.assert_array_equal(read_last_known_frame(one, SAMPLING, "crop"), picture[16:32])
    for fit in ("stretch", "pad"):
        np.testing.assert_array_equal(read_last_known_frame(one, SAMPLING, fit), picture)
