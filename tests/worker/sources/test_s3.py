"""Downloads from a real S3 server on the loopback interface, through boto3."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
import time
from pathlib import Path

import pytest
from support.s3_store import BUCKET, S3Store

from cosmos_worker.config.source import S3Source
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.sources import (
    download_progress,
    s3,
    s3_bucket,
    s3_download,
)
from cosmos_worker.sources.s3 import (
    RECORDS_FILE,
    download_source,
    refuse_names,
)
from cosmos_worker.sources.s3_bucket import StoredObject
from cosmos_worker.sources.s3_download import ObjectRecords

BIG = bytes(range(256)) * 400
PIECE = 32 << 10


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_download, "PIECE_BYTES", PIECE)
    monkeypatch.setattr(s3_bucket, "PIECE_BYTES", 4 << 10)


def download(store: S3Store, tmp_path: Path, uri: str = f"s3://{BUCKET}/data", choose=list) -> Path:
    return download_source(S3Source(uri=uri, endpoint=store.url), tmp_path / "partial", choose)


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_prefix_gives_its_objects_and_nothing_else(store: S3Store, tmp_path: Path) -> None:
    expected = {"a.txt": b"A", "empty.txt": b"", "deep/er/ü b.bin": BIG}
    for name, body in expected.items():
        store.put(f"data/{name}", body)
    for key in ("data/", "data/deep/", "data/x_$folder$", "data-other/b.txt", "database.txt"):
        store.put(key)

    for uri in (f"s3://{BUCKET}/data", f"s3://{BUCKET}/data/"):
        assert files_of(download(store, tmp_path / str(len(uri)), uri)) == expected


def test_digests_of_all_objects_are_recorded(store: S3Store, tmp_path: Path) -> None:
    store.put("data/a.txt", b"A")
    store.put("data/big.bin", BIG)

    download(store, tmp_path)

    lines = (tmp_path / "partial" / RECORDS_FILE).read_text().splitlines()
    assert [{**json.loads(line), "etag": ""} for line in lines] == [
        {
            "name": name,
            "size_bytes": len(body),
            "etag": "",
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        for name, body in (("a.txt", b"A"), ("big.bin", BIG))
    ]


def test_whole_bucket_is_a_prefix(store: S3Store, tmp_path: Path) -> None:
    store.put("a.txt", b"A")
    store.put("b/c.txt", b"C")

    assert files_of(download(store, tmp_path, f"s3://{BUCKET}")) == {"a.txt": b"A", "b/c.txt": b"C"}


def test_more_objects_than_one_page_lists(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
    for number in range(8):
        store.put(f"data/{number}", str(number).encode())

    folder = download(store, tmp_path)

    assert len(files_of(folder)) == 8
    assert len([path for _, path, _ in store.asked if path == f"/{BUCKET}"]) == 3


def test_only_chosen_objects_are_downloaded(store: S3Store, tmp_path: Path) -> None:
    for name in ("model.pt", "optimizer.bin", "a/../b"):
        store.put(f"data/{name}", b"x")

    folder = download(store, tmp_path, choose=lambda names: [n for n in names if n == "model.pt"])

    assert files_of(folder) == {"model.pt": b"x"}
    assert store.objects_asked() == ["data/model.pt"]


@pytest.mark.parametrize("key", ["data.tar", "model.safetensors", "iter_1_model.pt"])
def test_single_object(store: S3Store, tmp_path: Path, key: str) -> None:
    store.put(f"data/{key}", BIG)
    store.put(f"data/{key}.json", b"{}")

    path = download(store, tmp_path, f"s3://{BUCKET}/data/{key}")

    assert (path.name, path.read_bytes()) == (key, BIG)


# --- going on ----------------------------------------------------------------------------------


def test_second_attempt_fetches_only_what_is_missing(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_download, "NUM_CONNECTIONS", 1)
    for name in ("a.bin", "b.bin", "c.bin"):
        store.put(f"data/{name}", b"x" * 1000)
    store.put("data/big.bin", BIG)
    size = len(BIG) + 3000
    fetched = []

    def fail_in_the_middle(key: str) -> None:
        fetched.append(key)
        if len(fetched) == 2:
            store.refuse = lambda method, path: (403, {}, b"")  # nothing more is given

    store.before_object = fail_in_the_middle
    with pytest.raises(DataError, match="403"):
        download(store, tmp_path)
    first, store.refuse, store.before_object = (
        store.sent_bytes,
        lambda method, path: None,
        lambda key: None,
    )
    store.forget()

    folder = download(store, tmp_path)

    assert first == 2 * PIECE
    assert store.sent_bytes == size - first
    assert files_of(folder)["big.bin"] == BIG
    store.forget()
    download(store, tmp_path)
    assert store.objects_asked() == []


def test_killed_process_leaves_what_it_has(store: S3Store, tmp_path: Path) -> None:
    """Files as SIGKILL leaves them: parts of an object, a truncated record, a file under its temporary name."""
    store.put("data/big.bin", BIG)
    store.put("data/a.txt", b"A")
    folder = download(store, tmp_path)
    parts = tmp_path / "partial/parts"
    stem = hashlib.sha256(b"big.bin").hexdigest()[:16]
    (etag,) = [
        json.loads(line)["etag"]
        for line in (tmp_path / "partial" / RECORDS_FILE).read_text().splitlines()
        if "big.bin" in line
    ]
    (folder / "big.bin").unlink()
    spoiled = BIG[:PIECE] + b"\0" * PIECE + BIG[2 * PIECE :]
    (parts / f"{stem}.part").write_bytes(spoiled)
    state = {
        "name": "big.bin",
        "etag": etag,
        "size_bytes": len(BIG),
        "piece_bytes": PIECE,
        "done": [0, 2, 3],
    }
    (parts / f"{stem}.json").write_text(json.dumps(state))
    with (tmp_path / "partial/objects.jsonl").open("a") as stream:
        stream.write('{"name": "a.t')
    store.forget()

    assert files_of(download(store, tmp_path)) == {"big.bin": BIG, "a.txt": b"A"}
    assert [(path, wanted) for method, path, wanted in store.asked if wanted] == [
        (f"/{BUCKET}/data/big.bin", f"bytes={PIECE}-{2 * PIECE - 1}")
    ]


def test_object_counts_as_complete_only_once_it_is_on_disk(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine may lose its power at any time; a record that outlives its bytes would be believed."""
    bodies = {"small.txt": b"A" * 100, "big.bin": BIG}
    for name, body in bodies.items():
        store.put(f"data/{name}", body)
    on_disk: dict[int, int] = {}
    at_record: dict[str, int] = {}
    fsync, add = os.fsync, ObjectRecords.add

    def note_fsync(handle: int) -> None:
        fsync(handle)
        on_disk[os.fstat(handle).st_ino] = os.fstat(handle).st_size

    def note_record(records: ObjectRecords, name: str, item: StoredObject, sha256: str) -> None:
        inode = (tmp_path / "partial/objects" / name).stat().st_ino
        at_record[name] = on_disk.get(inode, 0)
        add(records, name, item, sha256)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(ObjectRecords, "add", note_record)
    download(store, tmp_path)

    assert at_record == {name: len(body) for name, body in bodies.items()}


def test_download_of_many_objects_begins_at_once(store: S3Store, tmp_path: Path) -> None:
    """Comparing each object with all others took minutes for 100,000."""
    bucket = s3_bucket.Bucket(S3Source(uri=f"s3://{BUCKET}/data", endpoint=store.url))
    wanted = {f"{number}.txt": StoredObject(f"data/{number}.txt", 1, "v") for number in range(8000)}
    wanted["big.bin"] = StoredObject("data/big.bin", PIECE + 1, "v")
    (tmp_path / "objects").mkdir()
    start = time.process_time()

    with ObjectRecords(tmp_path / "objects.jsonl") as records:
        begun = s3_download._Download(bucket, wanted, tmp_path / "objects", records)

    assert (len(begun.small), list(begun.large)) == (8000, ["big.bin"])
    assert time.process_time() - start < 0.5


def test_connection_that_breaks_goes_on_at_its_byte(store: S3Store, tmp_path: Path) -> None:
    store.put("data/a.bin", b"0123456789" * 1000)
    store.break_after = 6000

    folder = download(store, tmp_path)

    assert files_of(folder)["a.bin"] == b"0123456789" * 1000
    ranges = [wanted for _, path, wanted in store.asked if path.endswith("a.bin")]
    assert ranges[0] is None
    assert ranges[1] in {f"bytes={start}-9999" for start in (4096, 6000)}


def test_object_that_changes_after_it_was_listed_is_refused_then_fetched_anew(
    store: S3Store, tmp_path: Path
) -> None:
    store.put("data/big.bin", BIG)
    changed = []

    def change(key: str) -> None:
        if not changed:
            changed.append(key)
            store.put("data/big.bin", BIG[::-1])

    store.before_object = change
    with pytest.raises(
        RetryableError, match=r"changed since it was listed; run again when nobody writes"
    ):
        download(store, tmp_path)

    assert files_of(download(store, tmp_path)) == {"big.bin": BIG[::-1]}


def test_object_that_changed_between_two_attempts_is_fetched_again(
    store: S3Store, tmp_path: Path
) -> None:
    store.put("data/a.txt", b"old")
    store.put("data/b.txt", b"same")
    store.put("data/gone.txt", b"same")
    download(store, tmp_path)
    store.put("data/a.txt", b"new")
    store.client.delete_object(Bucket=BUCKET, Key="data/gone.txt")
    store.forget()

    assert files_of(download(store, tmp_path)) == {"a.txt": b"new", "b.txt": b"same"}
    assert store.objects_asked() == ["data/a.txt"]


def test_object_without_a_version_is_never_taken_for_complete(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    with ObjectRecords(tmp_path / "objects.jsonl") as records:
        for etag in ("", "v1"):
            item = StoredObject("a", 1, etag)
            records.add("a", item, "0" * 64)
            assert records.has("a", item, tmp_path / "a") == bool(etag)


def test_second_process_waits_for_the_first(
    store: S3Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(s3, "LOCK_WAIT_S", 0.01)
    events: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with s3.locked_download(tmp_path / "partial"):
            inside.set()
            leave.wait()
            events.append("first")

    def follow() -> None:
        with s3.locked_download(tmp_path / "partial"):
            events.append("second")

    threads = [threading.Thread(target=hold), threading.Thread(target=follow)]
    with caplog.at_level(logging.INFO):
        threads[0].start()
        inside.wait()
        threads[1].start()
        threads[1].join(0.1)
        assert events == []
        leave.set()
        for thread in threads:
            thread.join()

    assert events == ["first", "second"]
    assert caplog.text.count("another process downloads the same; waiting") == 1


# --- what arrives is what the store has ---------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["SHA256", "SHA1", "CRC32"])
@pytest.mark.parametrize("size", [100, 3 * PIECE])
def test_checksums_of_the_store_are_compared(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, size: int
) -> None:
    store.put("data/a.bin", b"x" * size, ChecksumAlgorithm=algorithm)
    name = {"SHA256": "SHA-256", "SHA1": "SHA-1", "CRC32": "CRC-32"}[algorithm]
    found = []
    differing = s3_download.Digests.differing

    def watch(digests, expected):
        found.append(set(expected))
        return differing(digests, expected)

    monkeypatch.setattr(s3_download.Digests, "differing", watch)
    download(store, tmp_path)

    assert found == [{name, "MD5"}]


@pytest.mark.parametrize("size", [100, 3 * PIECE])
@pytest.mark.parametrize("kept", [None, "SHA256"])
def test_content_with_another_digest_is_not_taken(
    store: S3Store, tmp_path: Path, size: int, kept: str | None
) -> None:
    store.put("data/a.bin", b"x" * size, **({"ChecksumAlgorithm": kept} if kept else {}))
    store.spoils = True

    message = (
        rf"s3://{BUCKET}/data/a\.bin: arrived with another \S+ than the store says.*; run again"
    )
    with pytest.raises(RetryableError, match=message):
        download(store, tmp_path)

    assert files_of(tmp_path / "partial/objects") == {}
    store.spoils = False
    assert files_of(download(store, tmp_path)) == {"a.bin": b"x" * size}


def test_object_that_was_uploaded_in_parts_has_no_md5(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_download, "PIECE_BYTES", 4 << 20)
    monkeypatch.setattr(s3_bucket, "PIECE_BYTES", 1 << 20)
    client, key = store.client, {"Bucket": BUCKET, "Key": "data/a.bin"}
    upload = client.create_multipart_upload(**key)["UploadId"]
    bodies = (b"x" * (5 << 20), b"tail")
    parts = [
        {
            "PartNumber": number,
            "ETag": client.upload_part(**key, UploadId=upload, PartNumber=number, Body=body)[
                "ETag"
            ],
        }
        for number, body in enumerate(bodies, start=1)
    ]
    client.complete_multipart_upload(**key, UploadId=upload, MultipartUpload={"Parts": parts})

    assert files_of(download(store, tmp_path)) == {"a.bin": b"".join(bodies)}


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (["a/../b.txt"], r"'a/\.\./b\.txt' leaves the folder"),
        (["./b.txt"], r"'\./b\.txt' has a part '\.'"),
        (["/etc/x"], "'/etc/x' is absolute"),
        (["a//b"], "'a//b' has an empty part"),
        (["a\\b"], r"'a\\\\b' has a backslash"),
        (["a\x01b"], r"'a\\x01b' has a control character"),
        (["x" * 256], "has a part of more than 255 bytes"),
        (["ü" * 128], "has a part of more than 255 bytes"),
        (["A.txt", "a.txt"], r"'a\.txt' differs from 'A\.txt' by case or Unicode form only"),
        (["e\u0301.txt", "\u00e9.txt"], "by case or Unicode form only"),
        (["a", "a/b.txt"], r"'a/b\.txt' lies in 'a', which is an object itself"),
    ],
)
def test_names_that_cannot_be_files_are_refused(keys: list[str], problem: str) -> None:
    message = rf"^s3://x: 1 of {len(keys) + 1} objects cannot become files: .*{problem}; rename"
    with pytest.raises(DataError, match=message):
        refuse_names(["good.txt", *keys], "s3://x")


def test_objects_with_such_names_are_not_asked_for(store: S3Store, tmp_path: Path) -> None:
    for key in ("good.txt", "a/../../b.txt", "c\\d"):
        store.put(f"data/{key}", b"x")

    message = r"2 of 3 objects cannot become files: 'a/\.\./\.\./b\.txt' leaves the folder"
    with pytest.raises(DataError, match=message):
        download(store, tmp_path)

    assert store.objects_asked() == []


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"s3://{BUCKET}/data/set", rf"s3://{BUCKET}/data/ holds other\.txt, sets/; correct uri"),
        (f"s3://{BUCKET}/nothing/at/all", rf"s3://{BUCKET}/ holds data/, top\.txt; correct uri"),
        (f"s3://{BUCKET}/data/a.tar", rf"no object is there; s3://{BUCKET}/data/ holds other"),
        (f"s3://{BUCKET}/top.txt", r"is a single object, of which only \.tar, .*\.safetensors can"),
    ],
)
def test_address_of_nothing_tells_what_is_near(
    store: S3Store, tmp_path: Path, uri: str, message: str
) -> None:
    for key in ("data/sets/a.txt", "data/other.txt", "top.txt"):
        store.put(key, b"x")

    with pytest.raises(DataError, match=message):
        download(store, tmp_path, uri)


def test_empty_bucket(store: S3Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no object is there; the bucket {BUCKET} is empty"):
        download(store, tmp_path, f"s3://{BUCKET}/data/")


def test_progress_is_logged(
    store: S3Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(download_progress, "LOG_INTERVAL_S", 0.0)
    monkeypatch.setattr(download_progress, "MIB", 1)
    store.put("data/big.bin", BIG)

    with caplog.at_level(logging.INFO):
        download(store, tmp_path)

    assert f"fetching uri=s3://{BUCKET}/data mib=4096/{len(BIG)} mib_per_s=" in caplog.text
    assert f"fetched uri=s3://{BUCKET}/data mib={len(BIG)}/{len(BIG)}" in caplog.text
