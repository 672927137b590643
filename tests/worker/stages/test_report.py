from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from support.chromium import PLAY_ALL, Chromium, chromium
from support.reports import PROMPTS, write_finished_job

from cosmos_worker.config.stages import ReportConfig
from cosmos_worker.data.video.files import read_video
from cosmos_worker.errors import ConfigError, DataError
from cosmos_worker.guardrails.verdict import Blocked
from cosmos_worker.report.collect import ABSENT
from cosmos_worker.sample import records
from cosmos_worker.stages import report
from cosmos_worker.storage.volumes import (
    METRICS_FILE,
    SUMMARY_FILE,
    WORDS_FILE,
    Volumes,
    write_json,
)


class PageParts(HTMLParser):
    """Tags with their attributes, and the text of the page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ReportConfig:
    return write_finished_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def written(job: ReportConfig) -> Path:
    return Path(report.run(job, Volumes())["report"])


@pytest.fixture(scope="module")
def page(written: Path) -> PageParts:
    return PageParts(written.read_text(encoding="utf-8"))


def decode_uri(uri: str | None, kind: str) -> bytes:
    assert uri is not None
    prefix = f"data:{kind};base64,"
    assert uri.startswith(prefix)
    return base64.b64decode(uri.removeprefix(prefix), validate=True)


def test_report_result_has_path_and_table(job: ReportConfig) -> None:
    result = report.run(job, Volumes())

    header, base, after = result["table"]
    assert Path(result["report"]).name == "report.html"
    assert header[0] == "item"
    assert base[:2] == ["base", "2"]
    assert float(base[4]) == pytest.approx(0, abs=0.3)  # it copies the frame; H.264 costs little
    assert float(after[2]) > 35
    assert float(after[4]) > 10
    assert after[5] == ABSENT  # follows was not measured


def test_report_embeds_the_generated_files_byte_for_byte(
    job: ReportConfig, page: PageParts
) -> None:
    videos = [decode_uri(one["src"], "video/mp4") for one in page.attributes("video")]

    folder = Path(job.generated[1][1])
    assert len(videos) == 6  # truth, base, post-trained of two clips
    assert (folder / "000.mp4").read_bytes() in videos
    assert (folder / "001.mp4").read_bytes() in videos
    for attributes in page.attributes("video"):
        assert {"controls", "muted", "loop", "playsinline"} <= attributes.keys()


def test_report_embeds_the_ground_truth_as_a_video(
    job: ReportConfig, page: PageParts, tmp_path: Path
) -> None:
    path = tmp_path / "truth.mp4"
    path.write_bytes(decode_uri(page.attributes("video")[0]["src"], "video/mp4"))

    clip = read_video(Path(job.run_uri).parent / "clips" / "clip-0.mp4")
    assert abs(read_video(path).astype(int) - clip).mean() < 3


def test_report_shows_conditioning_frames_and_strips_as_png(page: PageParts) -> None:
    pictures = [
        Image.open(io.BytesIO(decode_uri(one["src"], "image/png")))
        for one in page.attributes("img")
    ]

    sizes = [picture.size for picture in pictures]
    assert sizes == 2 * [(64, 32), *3 * [(5 * 64 + 4 * 3, 32)]]


def test_report_loads_nothing_from_elsewhere(page: PageParts) -> None:
    addresses = [
        value or ""
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "poster", "srcset", "data", "action")
    ]

    assert addresses
    assert all(address.startswith("data:") for address in addresses)
    assert "@import" not in page.text
    assert "url(" not in page.text


def test_report_tells_instructions_figures_and_configuration(page: PageParts) -> None:
    for prompt in PROMPTS:
        assert prompt in page.text  # escaped in the source: the parser gives it back
    assert "3 training clips with 2 different instructions" in page.text
    assert "copy-first-frame PSNR (dB)" in page.text
    assert "video2world_instruction_push_tiny" in page.text
    assert "learning_rate: 0.0015" in page.text
    assert "1 min 40 s" in page.text  # 50 steps of 2 s


def test_report_draws_the_loss_curve(page: PageParts) -> None:
    lines = {one["class"]: one["points"] or "" for one in page.attributes("polyline")}

    assert len(lines["raw"].split()) == 5
    assert len(lines["held"].split()) == 2
    heights = [float(point.split(",")[1]) for point in lines["raw"].split()]
    assert heights == sorted(heights)  # falling loss: further down


def test_report_shows_verdicts_of_the_push_example(tmp_path: Path) -> None:
    job = write_finished_job(tmp_path, metrics=())
    for name, follows in (("base", False), ("post-trained", True)):
        path = tmp_path / name / "generated.jsonl"
        direction = (
            '"follows": true, "direction": "right"'
            if follows
            else '"follows": false, "direction": "none"'
        )
        path.write_text(re.sub(r'"metrics": \{\}', f'"metrics": {{{direction}}}', path.read_text()))

    result = report.run(job, Volumes())

    text = PageParts(Path(result["report"]).read_text()).text
    assert [row[5] for row in result["table"]][1:] == ["0.0", "100.0"]
    assert "✓ follows" in text
    assert "✗ does not follow" in text
    assert re.search(r"0 %\s*→\s*100 %", text)


def test_report_counts_what_guardrails_held_back_and_shows_the_rest(
    tmp_path: Path,
) -> None:
    job = write_finished_job(tmp_path)
    for _, uri in job.generated[1:]:
        first, second = records.read_list(Path(uri))
        first["frames_with_faces"] = 3
        blocked = records.write_blocked(Path(uri), second, Blocked("blocklist", "a word"))
        records.write_list(Path(uri), [first, blocked])

    result = report.run(job, Volumes())

    parts = PageParts(Path(result["report"]).read_text())
    assert [row[1] for row in result["table"]] == ["videos", "2", "1 (1 blocked, 1 with faces)"]
    assert len(parts.attributes("video")) == 5  # truth, base, post-trained; truth, base

    for _, uri in job.generated:
        held = [
            records.write_blocked(Path(uri), one, Blocked("blocklist", "a word"))
            for one in records.read_list(Path(uri))
        ]
        records.write_list(Path(uri), held)
    result = report.run(job, Volumes())

    assert [row[1:3] for row in result["table"][1:]] == [["0 (2 blocked)", ABSENT]] * 2


def test_report_limits_the_videos_of_an_item(job: ReportConfig, tmp_path: Path) -> None:
    update = {"max_videos": 1, "target_uri": str(tmp_path)}
    result = report.run(job.model_copy(update=update), Volumes())

    parts = PageParts(Path(result["report"]).read_text())
    assert len(parts.attributes("video")) == 3
    assert result["table"][1][1] == "2"  # the figures are of all videos


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (f"run/{METRICS_FILE}", None, r"metrics\.jsonl: no such file; run train"),
        (f"run/{METRICS_FILE}", "{", r"metrics\.jsonl: damaged"),
        (f"run/{METRICS_FILE}", '{"step": 1, "validation_loss": 1}\n', "holds no loss"),
        ("base/generated.jsonl", None, r"base/generated\.jsonl: no such file; run generate"),
        ("base/generated.jsonl", "", "no generated video is listed"),
        ("base/000.mp4", None, r"000\.mp4: no such video file"),
        ("dataset/index.jsonl", None, r"index\.jsonl: no such file; run prepare-dataset"),
    ],
)
def test_report_refuses_what_is_not_complete_and_leaves_the_old_report(
    tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    job = write_finished_job(tmp_path)
    before = tmp_path / "report" / "report.html"
    before.parent.mkdir()
    before.write_text("old")
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)

    with pytest.raises(DataError, match=message):
        report.run(job, Volumes())

    assert before.read_text() == "old"


def test_report_refuses_a_job_without_inference(job: ReportConfig) -> None:
    with pytest.raises(ConfigError, match="generated: the list is empty"):
        report.run(job.model_copy(update={"generated": ()}), Volumes())


# --- in a real browser -----------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path / "profile") as started:
        yield started


@pytest.mark.browser
def test_report_plays_every_video_without_a_complaint(written: Path, browser: Chromium) -> None:
    browser.show(1200)
    browser.open(written)

    played = browser.evaluate(PLAY_ALL)

    assert len(played) == 6
    for ready_state, advanced_s, video_width, error in played:
        assert error is None
        assert ready_state >= 2
        assert advanced_s > 0
        assert video_width == 64
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith("data:")] == [written.as_uri()]


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("dark", [False, True])
def test_report_fits_the_window_in_both_themes(
    written: Path, browser: Chromium, width: int, dark: bool
) -> None:
    browser.show(width, dark=dark)
    browser.open(written)

    overflow = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
    red, green, blue = re.findall(
        r"\d+", browser.evaluate("getComputedStyle(document.body).backgroundColor")
    )

    assert overflow <= 0
    assert (int(red) + int(green) + int(blue) < 200) is dark
    assert browser.complaints == []


@pytest.mark.browser
def test_report_button_starts_and_stops_all_videos(written: Path, browser: Chromium) -> None:
    browser.open(written)
    num_playing = "[...document.querySelectorAll('video')].filter((video) => !video.paused).length"

    browser.evaluate("document.getElementById('toggle').click()")
    stopped = browser.evaluate(num_playing)
    browser.evaluate("document.getElementById('toggle').click()")
    started = browser.evaluate(num_playing)

    assert (stopped, started) == (0, 6)
    assert browser.complaints == []


@pytest.mark.browser
def test_report_shows_the_controls_of_a_video_that_has_the_focus(
    written: Path, browser: Chromium
) -> None:
    browser.open(written)
    has_controls = "[...document.querySelectorAll('video')].map((video) => video.controls)"

    before = browser.evaluate(has_controls)
    browser.evaluate("document.querySelector('video').focus()")
    after = browser.evaluate(has_controls)

    assert before == [False] * 6
    assert after == [True] + [False] * 5


def test_report_says_what_is_to_be_known_of_the_dataset(tmp_path: Path) -> None:
    config = write_finished_job(tmp_path)
    path = tmp_path / "dataset" / SUMMARY_FILE
    summary = {
        **json.loads(path.read_text()),
        "clips": {"found": 9, "kept": 7},
        "splits": {"train": {"clips": 7, "windows": 70}, "val": {"clips": 0, "windows": 0}},
        "sizes": {"720x1280": 6, "1280x720": 1},
        "dropped": {"caption_empty": 2},
        "distortion": {"clips": 1, "fit": "crop", "largest": "55 % of the picture is cut"},
        "passed_over": {"videos/**/*.gif": 3},
        "notes": ["annotation/<b>\n/ is taken as split val"],
        "held_out": {"sentence": "1 of 4 training episodes is held out"},
    }
    path.write_text(json.dumps(summary))

    page = Path(report.run(config, Volumes())["report"]).read_text(encoding="utf-8")

    for text in (
        "<dt>clips</dt><dd>7 of 9</dd>",
        "<dt>train</dt><dd>7 clips, 70 windows</dd>",
        "720x1280 (6 clips), 1280x720 (1 clips)",
        "2 of 9 clips were dropped: caption_empty.",
        "1 of 7 clips have another aspect ratio than their window (fit: crop); the worst is 55 % of",
        "Passed over: videos/**/*.gif (3 files).",
        "annotation/&lt;b&gt;\\n/ is taken as split val.",
        "1 of 4 training episodes is held out.",
    ):
        assert text in page


def test_report_of_an_earlier_index_has_no_section_of_the_dataset(page: PageParts) -> None:
    assert "Clips that prepare-dataset kept" not in page.text


def test_report_says_what_the_encoder_lost_of_the_captions(tmp_path: Path) -> None:
    config = write_finished_job(tmp_path)
    words = {"captions": 9, "truncated": 2, "with_unknown": 3, "unknown": 1}
    write_json(tmp_path / "run" / WORDS_FILE, {**words, "dropped_clips": ["train/7"]})

    page = Path(report.run(config, Volumes())["report"]).read_text(encoding="utf-8")

    assert "2 of 9 captions are longer than the text encoder reads" in page
    assert "3 of 9 captions have characters that the text encoder does not know; 1 are more" in page
    assert "1 clips were left out, since the encoder does not know their captions: train/7." in page


def test_videos_of_a_model_that_no_known_run_trained_are_reported_without_a_training(
    job: ReportConfig, tmp_path: Path
) -> None:
    changes = {"run_uri": None, "dataset_uri": None, "steps": None, "target_uri": str(tmp_path)}
    result = report.run(job.model_copy(update=changes), Volumes())
    page = PageParts(Path(result["report"]).read_text(encoding="utf-8"))

    headings = {one.get("id") for one in page.attributes("h2")}
    assert headings == {"figures", "videos"}
    assert len(page.attributes("video")) > 1
    assert "Post-training" not in page.text
    assert result["table"] == report.run(job, Volumes())["table"]
