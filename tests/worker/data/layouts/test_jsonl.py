"""Clips of a list in layout ``jsonl``, in all forms of lists."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cosmos_worker.data.layouts.by_name import find_root
from cosmos_worker.data.layouts.candidate import Candidate
from cosmos_worker.data.layouts.clip_lists import find_lists
from cosmos_worker.data.layouts.jsonl import list_jsonl
from cosmos_worker.errors import DataError


def write(root: Path, name: str, *lines: object) -> Path:
    """Write a file of these lines; values other than text and bytes are written as JSON."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str | bytes) else json.dumps(line) for line in lines]
    path.write_bytes(
        b"\n".join(text.encode() if isinstance(text, str) else text for text in texts) + b"\n"
    )
    return path


def clips(root: Path) -> list[tuple[str, tuple[str, ...]]]:
    listing = list_jsonl(root)
    assert listing.bad == ()
    return [(clip.clip_id, clip.captions) for clip in listing.candidates]


def test_list_with_all_keys(tmp_path: Path):
    write(
        tmp_path,
        "dataset.jsonl",
        {"video": "clips/a.mp4", "caption": " push\r\nleft "},
        "",
        {
            "video": "clips/a.mp4",
            "captions": ["one", "two"],
            "start": 1.5,
            "end": 3,
            "split": "val",
        },
        {"video": "./clips//b.mp4", "caption": "go", "start": None, "end": 2, "split": "test"},
    )

    listing = list_jsonl(tmp_path)

    assert listing.bad == ()
    assert listing.candidates == (
        Candidate(
            "train/clips/a.mp4", "train", "dataset.jsonl:1", "clips/a.mp4", ("push\nleft",),
            episode="clips/a.mp4",
        ),
        Candidate(
            "val/clips/a.mp4:1.5-3", "val", "dataset.jsonl:3", "clips/a.mp4", ("one", "two"),
            start_s=1.5, end_s=3.0, episode="clips/a.mp4",
        ),
        Candidate(
            "test/clips/b.mp4:-2", "test", "dataset.jsonl:4", "clips/b.mp4", ("go",),
            end_s=2.0, episode="clips/b.mp4",
        ),
    )  # fmt: skip


A = {"video": "a.mp4", "caption": "go"}


@pytest.mark.parametrize(
    ("line", "reason", "message"),
    [
        ({**A, "captions": ["x"]}, "annotation_broken", "both caption and captions are given"),
        ({"video": "a.mp4"}, "caption_missing", "none of caption, captions, text, prompt is given"),
        ({**A, "caption": None}, "caption_missing", "none of caption, captions, text, prompt"),
        ({**A, "caption": " \n"}, "caption_empty", "caption is ' \\n'; write a caption"),
        ({**A, "caption": 3}, "annotation_broken", "caption is 3, not a text"),
        ({"video": "a.mp4", "captions": []}, "caption_empty", "captions is []"),
        ({"video": "a.mp4", "captions": ["x", " "]}, "caption_empty", "captions[1] is ' '"),
        ({"video": "a.mp4", "captions": "x"}, "annotation_broken", "captions is 'x', not a list"),
        ({"video": "a.mp4", "captions": ["x", 3]}, "annotation_broken", "not a list of texts"),
        ({**A, "caption": "\ud800"}, "caption_broken", "lone surrogate"),
        ({"caption": "go"}, "video_missing", "none of video, file_name is given"),
        ({**A, "file_name": "b.mp4"}, "annotation_broken", "both video and file_name"),
        ({**A, "video": 3}, "annotation_broken", "video is 3, not a path"),
        ({**A, "video": ""}, "annotation_broken", "video is '', not a path"),
        ({**A, "video": "a\0.mp4"}, "name_unusable", "video has '\\x00', a control character; rename"),
        ({**A, "video": "\udfff.mp4"}, "name_unusable", "half of a character; rename the file"),
        ({**A, "video": "/data/a.mp4"}, "video_outside", "video '/data/a.mp4'; name a file"),
        ({**A, "video": "b/../../a.mp4"}, "video_outside", "video 'b/../../a.mp4'"),
        ({**A, "video": "x" * 600 + ".mp4"}, "name_unusable", "a name of over 255 bytes"),
        ({**A, "video": "clips"}, "file_unreadable", "video 'clips' is a folder, not a file"),
        ({**A, "start": 2, "end": 2.0}, "annotation_broken", "start 2 is not before end 2 (seconds)"),
        ({**A, "end": 0}, "annotation_broken", "start 0 is not before end 0"),
        ({**A, "start": -1}, "annotation_broken", "start is -1, not a time in seconds"),
        ({**A, "start": "1"}, "annotation_broken", "start is '1', not a time in seconds"),
        ({**A, "end": True}, "annotation_broken", "end is True, not a time in seconds"),
        ({**A, "end": 10**400}, "annotation_broken", "not a time in seconds"),
        ('{"video": "a.mp4", "caption": "go", "end": NaN}', "annotation_broken", "end is nan"),
        ('{"video": "a.mp4", "caption": "go", "end": 1e999}', "annotation_broken", "end is inf"),
        ({**A, "split": "held"}, "annotation_broken", "split is 'held'; train, val (or validation)"),
        ({**A, "split": 1}, "annotation_broken", "split is 1; train"),
        ({**A, "strat": 1}, "annotation_broken", "unknown key 'strat' (is 'start' meant?)"),
        ({**A, "zebra": 1}, "annotation_broken", "unknown key 'zebra'; known are video, file_name"),
        ('{"video": "a.mp4", "video": "b.mp4"}', "annotation_broken", "'video' is given twice"),
        ("[1]", "annotation_broken", "holds [1], not an object"),
        ("{", "annotation_broken", "not JSON"),
        ("[" * 10**5, "annotation_broken", "nested"),
        ("9" * 5000, "annotation_broken", "too many digits"),
        (b'{"video": "caf\xe9.mp4"}', "annotation_broken", "not UTF-8: byte 0xe9 at position 14"),
    ],
)  # fmt: skip
def test_wrong_line_costs_itself(tmp_path: Path, line, reason, message):
    (tmp_path / "clips").mkdir()
    write(tmp_path, "dataset.jsonl", {"video": "b.mp4", "caption": "go"}, line)

    listing = list_jsonl(tmp_path)

    assert [clip.video for clip in listing.candidates] == ["b.mp4"]
    (bad,) = listing.bad
    assert (bad.file, bad.reason) == ("dataset.jsonl:2", reason)
    assert message in str(bad)


def test_same_part_of_a_video_twice_costs_the_later_line(tmp_path: Path):
    part = {"video": "a.mp4", "start": 1, "end": 2}
    write(
        tmp_path,
        "dataset.jsonl",
        {**part, "caption": "one"},
        {**part, "caption": "two", "split": "val"},
        {**part, "end": 3, "caption": "three"},
    )

    listing = list_jsonl(tmp_path)

    assert [clip.captions for clip in listing.candidates] == [("one",), ("three",)]
    (bad,) = listing.bad
    assert (bad.file, bad.reason) == ("dataset.jsonl:2", "clip_id_repeated")
    assert "the same clip as dataset.jsonl:1; further captions of a clip belong into" in bad.value


@pytest.mark.parametrize(
    ("start", "end", "part"),
    [
        (0, 0.04, "0-0.04"),
        (1.5, 2 + 1 / 3, "1.5-2.33333"),
        (10000.04, 10000.08, "10000.04-10000.08"),
        (1234.567, 2000000, "1234.567-2000000"),
    ],
)
def test_ids_of_parts_tell_milliseconds(tmp_path: Path, start: float, end: float, part: str):
    write(tmp_path, "dataset.jsonl", {**A, "start": start, "end": end})

    assert clips(tmp_path) == [(f"train/a.mp4:{part}", ("go",))]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(tmp_path: Path, encoding, end):
    lines = [
        '{"video": "a.mp4", "caption": "cafe\u0301"}',
        '{"video": "b.mp4", "caption": "x\u2028y"}',
    ]
    (tmp_path / "dataset.jsonl").write_bytes((end.join(lines) + end).encode(encoding))

    assert clips(tmp_path) == [
        ("train/a.mp4", ("caf\u00e9",)),
        ("train/b.mp4", ("x\u2028y",)),
    ]


def test_letters_with_accents_have_the_other_form_on_disk(tmp_path: Path):
    (tmp_path / "cafe\u0301.mp4").touch()
    write(tmp_path, "dataset.jsonl", {**A, "video": "caf\u00e9.mp4"})

    (clip,) = list_jsonl(tmp_path).candidates

    assert (clip.clip_id, clip.video) == ("train/caf\u00e9.mp4", "cafe\u0301.mp4")


# --- which list -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["any.jsonl"], ["any.jsonl"]),
        (["any.csv"], ["any.csv"]),
        (["dataset.jsonl", "metadata.csv", "other.jsonl"], ["dataset.jsonl"]),
        (["metadata.jsonl", "other.jsonl"], ["metadata.jsonl"]),
        (["train.jsonl", "val.jsonl"], ["train.jsonl", "val.jsonl"]),
        (["train/metadata.csv", "test/metadata.csv", "README.md"], ["test/metadata.csv", "train/metadata.csv"]),
        (["prompts.txt", "videos.txt", "notes.txt"], ["prompts.txt", "videos.txt"]),
        (["prompt.txt", "videos.txt"], ["prompt.txt", "videos.txt"]),
        (["captions.txt", "video.txt"], ["captions.txt", "video.txt"]),
        ([".hidden.jsonl", "any.jsonl"], ["any.jsonl"]),
    ],
)  # fmt: skip
def test_list_is_found(tmp_path: Path, files, chosen):
    for name in files:
        write(tmp_path, name)

    assert list(find_lists(tmp_path)) == chosen


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.jsonl", "b.jsonl"], "holds 2 lists of clips (a.jsonl, b.jsonl); keep one list, or call"),
        (["metadata.jsonl", "metadata.csv"], "holds 2 lists of clips (metadata.csv, metadata.jsonl)"),
        (["dataset.jsonl", "dataset.csv"], "holds 2 lists of clips"),
        (["metadata.csv", "prompts.txt", "videos.txt"], "holds 3 lists"),
        (["metadata.csv", "train/metadata.csv"], "holds 2 lists"),
        (["prompts.txt", "prompt.txt", "videos.txt"], "holds 3 lists"),
        (["prompts.txt"], "no list of clips; write dataset.jsonl with a line such as"),
        ([], "no list of clips"),
    ],
)  # fmt: skip
def test_list_is_not_chosen_by_chance(tmp_path: Path, files, message):
    for name in files:
        write(tmp_path, name)

    with pytest.raises(DataError, match=re.escape(message)):
        list_jsonl(tmp_path)


def test_lists_of_splits_say_the_split(tmp_path: Path):
    write(tmp_path, "train.jsonl", A)
    write(tmp_path, "validation.jsonl", {**A, "video": "b.mp4"}, {**A, "split": "train"})

    listing = list_jsonl(tmp_path)

    assert [clip.clip_id for clip in listing.candidates] == ["train/a.mp4", "val/b.mp4"]
    assert "split is 'train', its list or folder is of the split val" in str(listing.bad[0])


def test_list_that_is_not_used_is_told(tmp_path: Path):
    write(tmp_path, "dataset.jsonl", A)
    write(tmp_path, "metadata.csv", "file_name,text")

    assert list_jsonl(tmp_path).notes == (
        "clips are those of dataset.jsonl",
        "not used besides: metadata.csv",
    )


def test_videos_that_no_line_names_are_counted(tmp_path: Path):
    for name in ("a.mp4", "b.mp4", "c.MOV", "notes.txt", ".d.mp4"):
        (tmp_path / "clips").mkdir(exist_ok=True)
        (tmp_path / "clips" / name).touch()
    write(tmp_path, "dataset.jsonl", {**A, "video": "clips/a.mp4"})

    assert list_jsonl(tmp_path).passed_over == {
        "clips/*.mov (of no usable line)": 1,
        "clips/*.mp4 (of no usable line)": 1,
    }


def test_empty_list_is_refused(tmp_path: Path):
    write(tmp_path, "dataset.jsonl", "", " ")

    with pytest.raises(DataError, match=r"dataset\.jsonl: lists no clip; write one line for each"):
        list_jsonl(tmp_path)


# --- Hugging Face's metadata, CSV -------------------------------------------------------------


def test_metadata_jsonl_may_have_other_keys_but_no_misspelt_ones(tmp_path: Path):
    row = {"file_name": "a.mp4", "text": "go", "duration": 3.5}
    write(tmp_path, "metadata.jsonl", row, {**row, "file_name": "b.mp4", "ends": 2})

    listing = list_jsonl(tmp_path)

    assert [(clip.clip_id, clip.captions) for clip in listing.candidates] == [
        ("train/a.mp4", ("go",))
    ]
    assert "unknown key 'ends' (is 'end' meant?)" in listing.bad[0].value
    assert "keys of metadata.jsonl that are not used: duration" in listing.notes


def test_metadata_in_folders_of_splits(tmp_path: Path):
    write(tmp_path, "train/metadata.csv", "file_name,text,label", 'a.mp4,"push, then ""pull""",3')
    write(tmp_path, "validation/metadata.csv", "file_name,text,label", "sub/b.mp4,go,1")

    assert clips(tmp_path) == [
        ("train/train/a.mp4", ('push, then "pull"',)),
        ("val/validation/sub/b.mp4", ("go",)),
    ]


def test_folders_of_splits_in_the_paths_of_a_metadata_file_say_the_split(tmp_path: Path):
    rows = [{"file_name": f"{folder}/a.mp4", "text": "go"} for folder in ("train", "test", "x/val")]
    write(tmp_path, "metadata.jsonl", *rows, {"file_name": "b.mp4", "text": "go", "split": "test"})

    splits = [clip.split for clip in list_jsonl(tmp_path).candidates]

    assert splits == ["train", "test", "val", "test"]


def test_csv_with_times_splits_and_lines_in_quotes(tmp_path: Path):
    content = 'video,caption,start,end,split\r\na.mp4,"two\r\nlines",1.5,,val\r\nb.mp4,go,,2e0,\r\n'
    (tmp_path / "clips.csv").write_bytes(b"\xef\xbb\xbf" + content.encode())

    listing = list_jsonl(tmp_path)

    assert [(c.clip_id, c.captions, c.start_s, c.end_s) for c in listing.candidates] == [
        ("val/a.mp4:1.5-", ("two\nlines",), 1.5, None),
        ("train/b.mp4:-2", ("go",), None, 2.0),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.mp4", "1 field, the first line names 2"),
        ("a.mp4,go,3", "3 fields, the first line names 2"),
        ("a.mp4,", "caption is ''"),
        (",go", "video is '', not a path"),
    ],
)
def test_wrong_line_of_csv_costs_itself(tmp_path: Path, line, message):
    write(tmp_path, "metadata.csv", "video,caption", "b.mp4,go", line)

    listing = list_jsonl(tmp_path)

    assert len(listing.candidates) == 1
    assert (listing.bad[0].file, message in str(listing.bad[0])) == ("metadata.csv:3", True)


@pytest.mark.parametrize(
    ("name", "header", "message"),
    [
        (
            "metadata.csv",
            "video;caption",
            "line 1 lacks a column, one of video, file_name is needed",
        ),
        ("metadata.csv", "video,label", "line 1 lacks a column, one of caption, text, prompt"),
        ("metadata.csv", "file_name,text,caption", "line 1 has the columns caption and text"),
        ("metadata.csv", "video,captions,text", "line 1 has captions, which is a list"),
        ("metadata.csv", "video,caption,caption", "line 1 has a name twice"),
        ("clips.csv", "video,caption,label", "unknown key 'label'"),
        ("metadata.csv", "video,caption,strat", "is 'start' meant?"),
        ("metadata.csv", 'video,"caption', "not CSV"),
    ],
)
def test_csv_that_is_wrong_as_a_whole_is_refused(tmp_path: Path, name, header, message):
    write(tmp_path, name, header, "a.mp4,go")

    with pytest.raises(DataError, match=re.escape(message)):
        list_jsonl(tmp_path)


# --- finetrainers' two files ------------------------------------------------------------------


def test_two_text_files(tmp_path: Path):
    write(tmp_path, "prompts.txt", "push left ", "", "pull", "", "")
    write(tmp_path, "videos.txt", "videos/0.mp4", "", "videos/1.mp4")

    listing = list_jsonl(tmp_path)

    assert listing.bad == ()
    assert [(c.source, c.clip_id, c.captions) for c in listing.candidates] == [
        ("videos.txt:1", "train/videos/0.mp4", ("push left",)),
        ("videos.txt:3", "train/videos/1.mp4", ("pull",)),
    ]


def test_two_text_files_with_an_empty_line_in_one(tmp_path: Path):
    write(tmp_path, "prompts.txt", "push", "", "pull", "go")
    write(tmp_path, "videos.txt", "0.mp4", "1.mp4", "", "3.mp4")

    listing = list_jsonl(tmp_path)

    assert [c.clip_id for c in listing.candidates] == ["train/0.mp4", "train/3.mp4"]
    assert [(bad.file, bad.reason) for bad in listing.bad] == [
        ("videos.txt:2", "caption_empty"),
        ("videos.txt:3", "video_missing"),
    ]


def test_two_text_files_of_different_lengths_are_refused(tmp_path: Path):
    write(tmp_path, "prompts.txt", "push", "pull")
    write(tmp_path, "videos.txt", "0.mp4", "1.mp4", "2.mp4")

    with pytest.raises(
        DataError, match=r"prompts\.txt has 2 lines, videos\.txt has 3: which caption"
    ):
        list_jsonl(tmp_path)


# --- parquet ----------------------------------------------------------------------------------


def write_table(root: Path, name: str, **columns: list[object]) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), root / name)


def test_metadata_of_parquet(tmp_path: Path):
    write_table(
        tmp_path,
        "metadata.parquet",
        file_name=["train/a.mp4", "test/b.mp4", "c.mp4", None],
        captions=[["one", "two"], ["go"], [], ["go"]],
        start=[1.5, None, None, None],
        label=[1, 2, 3, 4],
    )

    listing = list_jsonl(tmp_path)

    assert [(c.clip_id, c.captions) for c in listing.candidates] == [
        ("train/train/a.mp4:1.5-", ("one", "two")),
        ("test/test/b.mp4", ("go",)),
    ]
    assert [(one.file, one.reason) for one in listing.bad] == [
        ("metadata.parquet: row 3", "caption_empty"),
        ("metadata.parquet: row 4", "video_missing"),
    ]
    assert listing.notes == (
        "clips are those of metadata.parquet",
        "columns of metadata.parquet that are not used: label",
    )


def test_metadata_of_parquet_in_folders_of_splits(tmp_path: Path):
    for split in ("train", "validation"):
        write_table(tmp_path, f"{split}/metadata.parquet", file_name=["a.mp4"], text=["go"])

    assert find_root(tmp_path, "jsonl") == tmp_path
    assert [clip_id for clip_id, _ in clips(tmp_path)] == [
        "train/train/a.mp4",
        "val/validation/a.mp4",
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file_name": ["a.mp4"]}, "lacks a column, one of caption, captions, text, prompt is"),
        ({"path": ["a.mp4"], "text": ["go"]}, "lacks a column, one of video, file_name is needed"),
        ({"file_name": ["a"], "text": ["a"], "ends": [1]}, "names of columns: unknown key 'ends'"),
        ({"file_name": [], "text": []}, "lists no clip"),
    ],
)
def test_metadata_of_parquet_without_what_is_needed(tmp_path: Path, columns, message):
    write_table(tmp_path, "metadata.parquet", **columns)

    with pytest.raises(DataError, match=re.escape(message)):
        list_jsonl(tmp_path)


def test_damaged_parquet_is_one_error(tmp_path: Path):
    write(tmp_path, "metadata.parquet", "PAR1 and no more")

    with pytest.raises(DataError, match=r"metadata\.parquet: cannot be read as parquet"):
        list_jsonl(tmp_path)


def test_splits_may_be_written_with_capitals(tmp_path: Path):
    write(tmp_path, "metadata.csv", "file_name,text,split", "Test/a.mp4,go,", "b.mp4,go,Validation")

    assert [clip.split for clip in list_jsonl(tmp_path).candidates] == ["test", "val"]
