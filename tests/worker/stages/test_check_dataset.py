"""check-dataset: its output about a folder, and its exit codes."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.clips import (
    add_bridge_clip,
    add_folder_clip,
    write_bridge_dataset,
    write_videos_dataset,
)

from cosmos_worker.cli import main
from cosmos_worker.errors import DataError
from cosmos_worker.stages.check_dataset import (
    align_tables,
    detect_layout,
)

SMALL = (
    "video.num_pixel_frames=9",
    "tokenizer.chunk_pixel_frames=9",
    "trainer.global_batch_size=4",
)


def content(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in folder.rglob("*")
    }


def test_the_report_is_printed_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_bridge_dataset(tmp_path / "data", train=4, val=0)
    add_bridge_clip(root, "silent", texts=[""])
    add_bridge_clip(root, "short", frames=5)
    before = content(root)

    shares = ("--max-bad-fraction", "0.2", "--validation-fraction", "0.25", "--fit", "crop")
    code = main(["check-dataset", str(root), *SMALL, *shares])

    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert content(root) == before
    lines = printed.out.splitlines()
    assert lines[2] == (
        f"{root}, layout bridge: 6 clips, 4 kept, 1 unusable, 1 shorter than the window."
    )
    assert "| train | 3     | 27      |" in lines
    assert "| val   | 1     | 9       |" in lines
    assert "| 32x48 | 256x320 | 4     | 17 % of the picture is cut (left and right) |" in lines
    assert any("annotation/train/silent.json | caption_empty" in line for line in lines)
    assert lines[-1] == "usable: 27 training windows, 4 make a batch"
    assert "check-clips videos=5/5" in printed.err


def test_options_of_the_experiment_may_stand_after_other_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_videos_dataset(tmp_path / "data", clips=1)

    code = main(["check-dataset", str(root), SMALL[0], "--fit", "pad", *SMALL[1:]])

    assert code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "usable: 9 training windows, 4 make a batch"


@pytest.mark.parametrize("argument", ["more", "--mor=3"])
def test_other_arguments_after_the_options_are_refused(
    argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["check-dataset", str(tmp_path), "--fit", "pad", argument, SMALL[0]])

    assert f"unrecognized arguments: {argument}\n" in capsys.readouterr().err


def test_what_prepare_dataset_would_refuse_is_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_bridge_dataset(tmp_path / "data", train=2, val=0)

    assert main(["check-dataset", str(tmp_path)]) == 2

    printed = capsys.readouterr()
    assert f"{root}, layout bridge: 2 clips, 0 kept, 0 unusable, 2 shorter" in printed.out
    assert "the dataset is smaller than one batch: 0 training windows of 57 frames" in printed.err
    assert "all in the report above); shorten the windows (experiment.video.num_" in printed.err


def test_json_has_the_summary_and_all_dropped_clips(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_videos_dataset(tmp_path / "data", clips=4)
    add_folder_clip(root, "gone", "a caption").unlink()

    assert main(["check-dataset", str(root), *SMALL, "--json", "--layout", "Videos"]) == 2
    found = json.loads(capsys.readouterr().out)

    assert found["usable"] is False
    assert "1 of 5 clips (20.0%) is unusable (video_missing 1)" in found["reason"]
    assert "remove them (all in dropped_clips)" in found["reason"]
    assert found["splits"]["train"] == {"clips": 4, "windows": 36}
    assert found["dropped_clips"] == [
        {
            "file": "metas/gone.txt",
            "reason": "video_missing",
            "value": "its video videos/gone.mp4 does not exist",
            "remedy": "add the video or remove what names it",
        }
    ]

    assert main(["check-dataset", str(tmp_path / "absent"), "--json", "--layout", "videos"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["usable"], list(found)) == (False, ["usable", "reason"])
    assert "absent is no folder" in found["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--experiment", "brigde"], "did you mean 'video2world_instruction_bridge_57frames'"),
        (["--max-bad-fraction", "3"], "check-dataset.max_bad_fraction: Input should be less than"),
        (["--camera", "-1"], "check-dataset.camera: Input should be greater than or equal to 0"),
        ([], "looks like no dataset that can be read; give the folder that holds annotation/"),
    ],
)
def test_bad_arguments_are_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    folder = tmp_path / ("empty" if not arguments else "data")
    folder.mkdir()
    if arguments:
        (folder / "annotation/train").mkdir(parents=True)

    assert main(["check-dataset", str(folder), *arguments]) == 2

    assert message in capsys.readouterr().err


def test_the_layout_is_what_the_folder_looks_like(tmp_path: Path) -> None:
    marks = {
        "bridge": ["annotation/train/x.json", "videos/x.mp4"],
        "videos": ["videos/x.mp4", "metas/x.txt"],
        "lerobot": ["meta/info.json", "videos/chunk-000/x.mp4"],
        "jsonl": ["dataset.jsonl", "videos/x.mp4"],
    }
    for layout, names in marks.items():
        for name in names:
            path = tmp_path / layout / "above/root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

        assert detect_layout(tmp_path / layout) == layout
        assert detect_layout(tmp_path / layout / "above/root") == layout

    with pytest.raises(DataError, match="absent: is no folder; correct the path or mount"):
        detect_layout(tmp_path / "absent")


def test_columns_of_tables_are_aligned() -> None:
    lines = ["text", "| a | b |", "|---|---|", r"| x\|y | 1 |", "", "|n|", "|---|"]

    assert align_tables(lines) == [
        "text",
        "| a    | b |",
        "|------|---|",
        r"| x\|y | 1 |",
        "",
        "|n  |",
        "|---|",
    ]


def test_help_needs_no_torch() -> None:
    script = (
        "import sys, contextlib\nfrom cosmos_worker.cli import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['check-dataset', '--help'])\n"
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )

    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=os.environ
    )

    assert result.returncode == 0, result.stderr
    assert "--validation-fraction" in result.stdout


def test_an_interrupted_check_ends_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cosmos_worker.stages.check_dataset.build_config", interrupt)

    assert main(["check-dataset", str(tmp_path)]) == 130
    assert capsys.readouterr().out == ""


def test_a_volume_that_fails_is_no_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_videos_dataset(tmp_path / "data", clips=1)

    def fail(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)

    assert main(["check-dataset", str(root), *SMALL]) == 74
    assert "metas/clip0.txt" in capsys.readouterr().err
