"""Episodes of LeRobot datasets as clips, in formats v2.0, v2.1 and v3.0."""

import json
import re
from pathlib import Path

import pytest
from support.lerobot_datasets import (
    FRONT,
    Layout,
    Recording,
    change_table,
    recordings,
    write_lerobot,
)

from cosmos_worker.config.documents import parse_document
from cosmos_worker.config.network import VideoConfig
from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.check import CheckedClips, check_clips
from cosmos_worker.data.held_out import hold_out
from cosmos_worker.data.index import Clip
from cosmos_worker.data.journal import Journal
from cosmos_worker.data.layouts.candidate import Candidate
from cosmos_worker.data.layouts.lerobot import list_lerobot
from cosmos_worker.errors import ConfigError, DataError

EPISODES = "meta/episodes/chunk-000/file-000.parquet"
DATA = "data/chunk-000/file-000.parquet"
WRIST = "observation.images.wrist"


def change_info(root: Path, **entries: object) -> None:
    path = root / "meta" / "info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def reasons(root: Path) -> dict[str, str]:
    """Reason of each dropped clip, by the episode that its message names or else its file."""
    found = {}
    for bad in list_lerobot(root, None).bad:
        match = re.search(r"episode (\d+)", bad.value)
        found[match[0] if match else bad.file] = bad.reason
    return found


def test_episodes_of_one_file_are_told_apart_by_their_times(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(5, 7, 6), per_file=2))

    listing = list_lerobot(tmp_path, None)

    assert listing.bad == ()
    assert listing.candidates[1] == Candidate(
        clip_id="train/episode_000001",
        split="train",
        source=EPISODES,
        video=f"videos/{FRONT}/chunk-000/file-000.mp4",
        captions=("push 1",),
        num_frames=7,
        start_s=0.5,
        end_s=1.2,
        episode="episode_000001",
    )
    third = listing.candidates[2]
    assert (third.video[-12:], third.start_s, third.end_s) == ("file-001.mp4", 0.0, 0.6)


@pytest.mark.parametrize("version", ["v2.0", "v2.1"])
def test_episodes_with_a_file_each(tmp_path: Path, version):
    write_lerobot(tmp_path, Layout(recordings(5, 7), version))

    listing = list_lerobot(tmp_path, None)

    assert listing.bad == ()
    assert listing.candidates[1] == Candidate(
        clip_id="train/episode_000001",
        split="train",
        source="meta/episodes.jsonl:2",
        video=f"videos/chunk-000/{FRONT}/episode_000001.mp4",
        captions=("push 1",),
        num_frames=7,
        episode="episode_000001",
    )


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_episode_whose_task_changes_is_cut_into_clips_of_one_task(tmp_path: Path, version):
    tasks = ["open"] * 3 + ["close"] * 2 + ["open"] * 4
    write_lerobot(tmp_path, Layout([Recording(["wait"] * 2), Recording(tasks)], version))

    listing = list_lerobot(tmp_path, None)

    begin = 0.2 if version == "v3.0" else 0.0
    assert listing.bad == ()
    assert listing.notes == (
        f"LeRobot format {version}, camera {FRONT}",
        "1 episode with several tasks: cut into clips of one task each, 4 clips of 2 episodes",
    )
    parts = listing.candidates[1:]
    assert [(c.clip_id, c.captions, c.episode) for c in parts] == [
        ("train/episode_000001_frame_000000", ("open",), "episode_000001"),
        ("train/episode_000001_frame_000003", ("close",), "episode_000001"),
        ("train/episode_000001_frame_000005", ("open",), "episode_000001"),
    ]
    times = [(c.start_s, c.end_s) for c in parts]
    assert times == [
        pytest.approx((begin + a, begin + b)) for a, b in ((0, 0.3), (0.3, 0.5), (0.5, 0.9))
    ]
    assert [c.num_frames for c in parts] == [3, 2, 4]


def test_task_of_frames_counts_where_the_list_has_further_ones(tmp_path: Path):
    write_lerobot(tmp_path, Layout([Recording(["open"] * 4, listed=["valid", "open"])]))

    assert [c.captions for c in list_lerobot(tmp_path, None).candidates] == [("open",)]


def test_frames_with_a_task_that_the_list_lacks_are_refused(tmp_path: Path):
    write_lerobot(tmp_path, Layout([Recording(["open"] * 4, listed=["close"])]))

    (bad,) = list_lerobot(tmp_path, None).bad

    assert bad.reason == "annotation_mismatch"
    assert "its frames have the task 'open', which" in str(bad)


def test_data_file_is_needed_only_where_tasks_change(tmp_path: Path):
    episodes = [*recordings(4), Recording(["open", "open", "close"])]
    write_lerobot(tmp_path, Layout(episodes, "v2.1"))
    for path in tmp_path.glob("data/*/*"):
        path.unlink()

    listing = list_lerobot(tmp_path, None)

    assert [c.captions for c in listing.candidates] == [("push 0",)]
    (bad,) = listing.bad
    assert "episode 1 has 2 tasks, and its frames cannot tell which is when" in bad.value


def test_task_table_of_newer_versions_names_its_index(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3)))
    change_table(
        tmp_path / "meta/tasks.parquet", lambda t: t.update(task=t.pop("__index_level_0__"))
    )

    assert list_lerobot(tmp_path, None).candidates[0].captions == ("push 0",)


def test_captions_are_in_one_form(tmp_path: Path):
    write_lerobot(tmp_path, Layout([Recording([" caf\u0065\u0301\r\nopen "] * 2)], "v2.1"))

    assert list_lerobot(tmp_path, None).candidates[0].captions == ("caf\u00e9\nopen",)


# --- cameras ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [WRIST, "wrist", "images.wrist"])
def test_camera_is_chosen_by_its_name_or_the_end_of_it(tmp_path: Path, name):
    write_lerobot(tmp_path, Layout(recordings(3), cameras=(FRONT, WRIST)))

    listing = list_lerobot(tmp_path, name)

    assert [c.video for c in listing.candidates] == [f"videos/{WRIST}/chunk-000/file-000.mp4"]
    assert listing.bad == ()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, f"has 2 cameras: {FRONT}, {WRIST}; choose one with spec.dataset.cameraName"),
        ("top", f"'top' is no camera of the dataset; use one of {FRONT}, {WRIST}"),
        ("rist", "'rist' is no camera of the dataset"),
    ],
)
def test_camera_that_is_not_known_is_refused(tmp_path: Path, name, message):
    write_lerobot(tmp_path, Layout(recordings(3), cameras=(FRONT, WRIST)))

    with pytest.raises(ConfigError, match=re.escape(message)):
        list_lerobot(tmp_path, name)


def test_end_of_a_name_that_two_cameras_share_is_refused(tmp_path: Path):
    cameras = ("left.front", "right.front")
    write_lerobot(tmp_path, Layout(recordings(3), cameras=cameras))

    with pytest.raises(ConfigError, match=r"'front' is the end of left.front, right.front; use"):
        list_lerobot(tmp_path, "front")


DEPTH = {"dtype": "video", "shape": [8, 8, 1], "info": {"video.is_depth_map": True}}
STILLS = {"dtype": "image", "shape": [8, 8, 3]}


def test_depth_maps_and_single_images_are_no_cameras(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3)))
    features = json.loads((tmp_path / "meta/info.json").read_text())["features"]
    change_info(tmp_path, features={**features, "cam.depth": DEPTH, "cam.stills": STILLS})

    assert list_lerobot(tmp_path, None).candidates[0].video.startswith(f"videos/{FRONT}/")
    with pytest.raises(ConfigError, match=r"cam\.depth holds depth maps, which are not read; use"):
        list_lerobot(tmp_path, "depth")
    with pytest.raises(ConfigError, match=r"cam\.stills holds single images \(dtype image\)"):
        list_lerobot(tmp_path, "cam.stills")


def test_dataset_without_videos_is_refused(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3)))
    change_info(tmp_path, features={"cam": STILLS})

    with pytest.raises(
        DataError, match=r"no camera has colour videos \(cam: single images .*use_v"
    ):
        list_lerobot(tmp_path, None)


# --- splits and missing episodes --------------------------------------------------------------


def test_splits_are_honoured(tmp_path: Path):
    splits = {"train": "0:2", "validation": "2:3", "test": "3:4"}
    write_lerobot(tmp_path, Layout(recordings(3, 3, 3, 3, 3), info={"splits": splits}))

    listing = list_lerobot(tmp_path, None)

    assert [c.split for c in listing.candidates] == ["train", "train", "val", "test"]
    (bad,) = listing.bad
    assert (bad.reason, bad.value) == (
        "split_missing",
        "episode 4 is in no split of meta/info.json",
    )


@pytest.mark.parametrize("splits", [..., None, {}])
def test_without_splits_all_is_training_data(tmp_path: Path, splits):
    write_lerobot(tmp_path, Layout(recordings(3, 3), "v2.1", info={"splits": splits}))

    assert {c.split for c in list_lerobot(tmp_path, None).candidates} == {"train"}


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "0:1", "held": "1:2"}, "splits has 'held': '1:2'; the names train, val"),
        ({"train": "first"}, "splits has 'train': 'first'"),
        ({"train": 3}, "splits has 'train': 3"),
        ({"train": "0:2", "val": "1:2"}, "splits: val and train share episodes"),
        ([1], r"splits is [1], not an object"),
    ],
)
def test_splits_that_cannot_be_read_are_refused(tmp_path: Path, splits, message):
    write_lerobot(tmp_path, Layout(recordings(3, 3), "v2.1", info={"splits": splits}))

    with pytest.raises(DataError, match=re.escape(message)):
        list_lerobot(tmp_path, None)


def test_episode_that_no_list_has_is_dropped(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3, 3), "v2.1", info={"total_episodes": 3}))

    (bad,) = list_lerobot(tmp_path, None).bad

    assert (bad.reason, bad.value) == ("episode_missing", "episode 2 of 3 is listed nowhere")


def test_list_with_less_than_half_of_the_episodes_is_refused(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3), "v2.1", info={"total_episodes": 10**8}))

    with pytest.raises(DataError, match="total_episodes is 100000000, 1 are listed; fetch"):
        list_lerobot(tmp_path, None)


def test_video_that_no_episode_names_is_dropped(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3, 3), "v2.1", info={"total_episodes": 1}))
    path = tmp_path / "meta" / "episodes.jsonl"
    path.write_text(path.read_text().splitlines()[0])

    (bad,) = list_lerobot(tmp_path, None).bad

    assert (bad.file[-18:], bad.reason) == ("episode_000001.mp4", "caption_missing")


# --- damage costs an episode ------------------------------------------------------------------


def test_broken_line_costs_its_episode(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3, 3, 3, 3), "v2.1"))
    path = tmp_path / "meta" / "episodes.jsonl"
    lines = path.read_text().splitlines()
    lines[1], lines[2] = lines[1][:-5], "[]"
    path.write_text("\n".join(lines))

    listing = list_lerobot(tmp_path, None)

    assert [c.clip_id[-1] for c in listing.candidates] == ["0", "3"]
    broken = [bad for bad in listing.bad if bad.reason == "annotation_broken"]
    assert [bad.file for bad in broken] == ["meta/episodes.jsonl:2", "meta/episodes.jsonl:3"]
    assert not [bad for bad in listing.bad if bad.reason == "episode_missing"]


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("length", None, "annotation_broken"),
        ("length", 0, "annotation_broken"),
        ("length", 4, "annotation_mismatch"),
        (f"videos/{FRONT}/from_timestamp", 0.2, "annotation_broken"),  # in the episode before it
        (f"videos/{FRONT}/from_timestamp", 0.34, "annotation_broken"),  # between two frames
        (f"videos/{FRONT}/from_timestamp", float("nan"), "annotation_broken"),
        (f"videos/{FRONT}/to_timestamp", 0.1, "annotation_broken"),
        (f"videos/{FRONT}/file_index", None, "annotation_broken"),
        ("episode_index", 0, "clip_id_repeated"),
    ],
)
def test_wrong_entry_costs_its_episode(tmp_path: Path, column, value, reason):
    write_lerobot(tmp_path, Layout(recordings(3, 3, 3)))

    def change(columns):
        columns[column][1] = value

    change_table(tmp_path / EPISODES, change)

    listing = list_lerobot(tmp_path, None)

    assert reason in {bad.reason for bad in listing.bad}
    assert "train/episode_000002" in [c.clip_id for c in listing.candidates]
    assert "train/episode_000001" not in [c.clip_id for c in listing.candidates]


@pytest.mark.parametrize(
    ("column", "row", "value", "reason"),
    [
        ("task_index", 4, 77, "caption_missing"),
        ("frame_index", 4, 0, "annotation_broken"),
        ("episode_index", 4, 9, "annotation_mismatch"),
    ],
)
def test_wrong_row_of_the_data_costs_its_episode(tmp_path: Path, column, row, value, reason):
    write_lerobot(tmp_path, Layout(recordings(3, 3, 3)))

    def change(columns):
        columns[column][row] = value

    change_table(tmp_path / DATA, change)

    assert reasons(tmp_path) == {"episode 1": reason}


def test_empty_task_costs_its_episodes(tmp_path: Path):
    write_lerobot(tmp_path, Layout([*recordings(3), Recording([" "] * 3)]))

    assert reasons(tmp_path) == {"episode 1": "caption_empty"}


# --- damage of the whole ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"codebase_version": "v1.6"}, "codebase_version is 'v1.6', formats v2.0, v2.1, v3.0 are"),
        ({"codebase_version": "v4.0"}, "codebase_version is 'v4.0'"),
        ({"codebase_version": None}, "codebase_version is None"),
        ({"fps": 0}, "fps is 0, not a number above 0"),
        ({"features": []}, "features is [], not an object"),
        ({"features": {"a/b": {"dtype": "video"}}}, "features has the name 'a/b', which no folder"),
        ({"features": {"\ud800": {"dtype": "video"}}}, "which no folder can have"),
        ({"total_episodes": -1}, "total_episodes is -1, not a number"),
        (
            {"video_path": "../{video_key}.mp4"},
            "'../{video_key}.mp4' is no path inside the dataset",
        ),
        ({"video_path": "{video_key.__class__}.mp4"}, "is no path inside the dataset"),
        ({"video_path": "{name}.mp4"}, "has the placeholder {name}; known are"),
        ({"video_path": 3}, "video_path is 3, not a text"),
    ],
)
def test_info_that_cannot_be_used_is_refused(tmp_path: Path, entries, message):
    write_lerobot(tmp_path, Layout(recordings(3), "v2.1"))
    change_info(tmp_path, **entries)

    with pytest.raises(DataError, match=re.escape(message)):
        list_lerobot(tmp_path, None)


def test_info_that_is_no_json_is_refused(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(3), "v2.1"))
    for content in ("{", "[" * 10**5, "3", '{"fps": ' + "9" * 5000 + "}"):
        (tmp_path / "meta" / "info.json").write_text(content)

        with pytest.raises(DataError, match=r"info\.json: .*fetch the dataset again"):
            list_lerobot(tmp_path, None)


@pytest.mark.parametrize("name", [EPISODES, "meta/tasks.parquet"])
def test_damaged_or_absent_table_is_refused(tmp_path: Path, name):
    write_lerobot(tmp_path, Layout(recordings(3)))
    (tmp_path / name).write_bytes(b"PAR1" + bytes(40) + b"PAR1")

    with pytest.raises(DataError, match=f"{name}: cannot be read as parquet .*; fetch the dataset"):
        list_lerobot(tmp_path, None)

    (tmp_path / name).unlink()
    with pytest.raises(DataError, match=r"no such file|no \*/\*\.parquet"):
        list_lerobot(tmp_path, None)


def test_data_file_with_gaps_among_its_numbers_serves_single_tasks_only(tmp_path: Path):
    write_lerobot(tmp_path, Layout([*recordings(3), Recording(["open", "open", "close"])]))
    change_table(tmp_path / DATA, lambda columns: columns["task_index"].__setitem__(0, None))

    listing = list_lerobot(tmp_path, None)

    assert [clip.captions for clip in listing.candidates] == [("push 0",)]
    assert "the column task_index has entries that are no whole numbers" in listing.bad[0].value


def test_tasks_of_one_text_are_one(tmp_path: Path):
    write_lerobot(tmp_path, Layout([Recording(["open"] * 3 + ["open "] * 2)], "v2.1"))

    (clip,) = list_lerobot(tmp_path, None).candidates

    assert (clip.clip_id, clip.num_frames) == ("train/episode_000000", 5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layout": "bridge", "camera_name": "front"}, "camera_name: 'front' chooses a camera of"),
        ({"layout": "lerobot", "camera": 1}, "the layout is lerobot; use camera_name"),
        ({"layout": "jsonl", "camera": 1}, "the layout is jsonl; remove it"),
    ],
)
def test_camera_of_another_layout_is_refused(fields, message):
    document = {
        "key": "k", "target_uri": "t", "data_uri": "d", "source": {"path": "/data"},
        "video": {"num_pixel_frames": 9, "height": 32, "width": 64}, **fields,
    }  # fmt: skip

    with pytest.raises(ConfigError, match=message):
        parse_document(PrepareDatasetConfig, document, "prepare.yaml")


def test_episodes_of_one_file_are_held_out_one_by_one_and_whole(tmp_path: Path):
    changing = Recording(["open"] * 3 + ["close"] * 2)
    write_lerobot(tmp_path, Layout([*recordings(4, 4, 4), changing]))
    listing = list_lerobot(tmp_path, None)
    kept = tuple(
        Clip(c.clip_id, c.split, c.video, c.captions, 4, 10.0, 32, 64, (0,), "0" * 64)
        for c in listing.candidates
    )

    clips, held_out = hold_out(CheckedClips(kept, (), ()), listing, 0.5, 1)

    assert held_out.episodes == 2
    splits = [clip.split for clip in clips.kept]
    assert splits[3] == splits[4]
    assert splits.count("val") == held_out.clips


def checked(root: Path) -> CheckedClips:
    video = VideoConfig(num_pixel_frames=9, height=48, width=64)
    with Journal(root / "journal") as journal:
        return check_clips(root, list_lerobot(root, None), video, 2, journal)


@pytest.mark.parametrize("drift_s", [0.0, 0.002, -0.002, 0.02])
def test_frames_are_the_nearest_to_the_times(tmp_path: Path, drift_s):
    write_lerobot(tmp_path, Layout(recordings(9, 12, 10)))

    def shift(columns):
        for name in ("from", "to"):
            times = columns[f"videos/{FRONT}/{name}_timestamp"]
            times[1:] = [time + drift_s for time in times[1:]]

    change_table(tmp_path / EPISODES, shift)

    kept = checked(tmp_path).kept

    assert [clip.frames_in_file(0, clip.num_frames) for clip in kept] == [
        range(9), range(9, 21), range(21, 31),
    ]  # fmt: skip


@pytest.mark.parametrize("late_s", [-0.1, 0.1])
def test_part_of_a_file_with_a_frame_more_or_less_is_dropped(tmp_path: Path, late_s):
    write_lerobot(tmp_path, Layout(recordings(9, 12, 10), per_file=2))

    def change(columns):
        columns[f"videos/{FRONT}/to_timestamp"][0] += late_s

    change_table(tmp_path / EPISODES, change)

    clips = checked(tmp_path)

    assert "train/episode_000000" not in [clip.clip_id for clip in clips.kept]
    assert "train/episode_000002" in [clip.clip_id for clip in clips.kept]
    own = ("train/episode_000000 ", "episode 0 ")
    (bad,) = [bad for bad in clips.bad if bad.value.startswith(own)]
    assert bad.reason == ("annotation_mismatch" if late_s < 0 else "annotation_broken")


def test_absent_video_is_dropped_and_blamed_on_its_entry(tmp_path: Path):
    write_lerobot(tmp_path, Layout(recordings(9, 9, 9), "v2.1"))
    (tmp_path / f"videos/chunk-000/{FRONT}/episode_000001.mp4").unlink()

    clips = checked(tmp_path)

    assert [clip.clip_id[-1] for clip in clips.kept] == ["0", "2"]
    (bad,) = clips.bad
    assert (bad.file, bad.reason) == ("meta/episodes.jsonl:2", "video_missing")
