"""The whole quickstart, as a user runs it: quality of its model, files, a second run that repeats nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.chromium import PLAY_ALL, chromium
from support.memory import PeakMemory

from cosmos_worker.data.video.files import read_video
from cosmos_worker.metrics.push import score_push

ROOT = Path(__file__).resolve().parents[1]
JOB = ROOT / "examples" / "quickstart.yaml"

pytestmark = [pytest.mark.quickstart, pytest.mark.timeout(1500)]


@dataclass(frozen=True)
class Finished:
    """A finished ``cosmos run``."""

    workspace: Path
    output: str
    seconds: float
    peak_gib: float


def cosmos_run(workspace: Path) -> Finished:
    started = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "cosmos_operator.cli",
        "run",
        str(JOB),
        "--workspace",
        str(workspace),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    watch = PeakMemory(process.pid)
    watch.start()
    output, _ = process.communicate()
    peak = watch.stop() / 2**30
    assert process.returncode == 0, output
    return Finished(workspace, output, time.monotonic() - started, peak)


@pytest.fixture(scope="module")
def quickstart(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    finished = cosmos_run(tmp_path_factory.mktemp("quickstart"))
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        sys.stdout.write(
            f"\nquickstart: {finished.seconds:.0f} s, peak {finished.peak_gib:.1f} GiB\n"
        )
        sys.stdout.write("\n".join(finished.output.splitlines()[-9:]) + "\n")
    return finished


def generated(finished: Finished, item: str) -> list[dict[str, object]]:
    """Records of an inference item."""
    (listing,) = finished.workspace.glob(f"**/generated/{item}-????????????/generated.jsonl")
    return [
        {**json.loads(line), "folder": listing.parent}
        for line in listing.read_text().splitlines()
        if line
    ]


def share_that_follows(finished: Finished, item: str) -> float:
    """Share of videos that follow their instruction, scored from the MP4 files and their prompts."""
    records = generated(finished, item)
    scores = [
        score_push(read_video(record["folder"] / f"{record['id']}.mp4"), record["prompt"]).follows
        for record in records
    ]
    return sum(scores) / len(scores)


def psnr_gain(finished: Finished, item: str) -> float:
    """PSNR of the generated frames over that of the copied first frame, in dB."""
    metrics = [record["metrics"] for record in generated(finished, item)]
    return sum(m["psnr_db"] - m["copy_psnr_db"] for m in metrics) / len(metrics)


def test_base_ignores_the_instruction(quickstart: Finished) -> None:
    assert share_that_follows(quickstart, "base-one") < 0.5  # four directions: chance is a quarter
    assert share_that_follows(quickstart, "base-two") < 0.35  # and two cubes: an eighth


@pytest.mark.parametrize("item", ["one", "one-swapped"])
def test_post_training_follows_the_instruction_with_one_cube(
    quickstart: Finished, item: str
) -> None:
    assert share_that_follows(quickstart, item) >= 0.90


@pytest.mark.parametrize("item", ["two", "two-swapped"])
def test_post_training_follows_the_instruction_with_two_cubes(
    quickstart: Finished, item: str
) -> None:
    assert share_that_follows(quickstart, item) >= 0.75


@pytest.mark.parametrize("item", ["one", "two"])
def test_generated_videos_are_nearer_to_the_truth_than_the_copied_first_frame(
    quickstart: Finished, item: str
) -> None:
    assert psnr_gain(quickstart, item) >= 3.0


def test_held_out_loss_falls(quickstart: Finished) -> None:
    (metrics,) = quickstart.workspace.glob("**/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [line["validation_loss"] for line in lines if "validation_loss" in line]

    assert losses[-1] < losses[0]


def test_published_model_has_nvidia_names(quickstart: Finished) -> None:
    (published,) = quickstart.workspace.glob("**/pushing-tiny/model.pt")

    state = torch.load(published, weights_only=True)

    assert "net.blocks.block0.blocks.0.block.attn.to_q.0.weight" in state
    assert {key.split(".")[0] for key in state} == {"net", "logvar"}
    exports = list(quickstart.workspace.glob("**/posttraining/*/*/checkpoints/iter_*_ema_model.pt"))
    assert exports


def test_report_plays_every_video_in_a_browser(quickstart: Finished, tmp_path: Path) -> None:
    (report,) = quickstart.workspace.glob("**/report.html")

    with chromium(tmp_path / "profile") as browser:
        browser.open(report)
        played = browser.evaluate(PLAY_ALL)

        assert len(played) >= 24
        for ready_state, advanced_s, video_width, error in played:
            assert error is None
            assert ready_state >= 2
            assert advanced_s > 0
            assert video_width == 160
        assert browser.complaints == []


def test_memory_stays_small(quickstart: Finished) -> None:
    assert quickstart.peak_gib < 10


def test_second_run_repeats_nothing(quickstart: Finished) -> None:
    (published,) = quickstart.workspace.glob("**/pushing-tiny/model.pt")
    before = published.stat().st_mtime_ns

    again = cosmos_run(quickstart.workspace)

    assert published.stat().st_mtime_ns == before
    assert again.seconds < quickstart.seconds / 5
    assert "already done" in again.output
