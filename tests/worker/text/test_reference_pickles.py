from __future__ import annotations

import json
import os
import pickle
import random
from pathlib import Path

import numpy as np
import pytest

from cosmos_worker.data.captions import find_caption_files
from cosmos_worker.errors import DataError
from cosmos_worker.text.reference_pickles import (
    read_pickle,
    read_pickles,
    write_pickle,
    write_pickles,
)

ARRAY = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float16)


class Attack:
    """A call that a hostile file makes while it is read."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        function, *arguments = self.call
        return function, tuple(arguments)


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def write_annotation(root: Path, split: str, stem: str, caption: str) -> Path:
    path = root / "annotation" / split / f"{stem}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"texts": [caption]}))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("array", [ARRAY, np.asfortranarray(ARRAY), ARRAY.astype(">f2")])
def test_read_pickle_reads_what_numpy_writes(
    tmp_path: Path, protocol: int, array: np.ndarray
) -> None:
    path = write_bytes(tmp_path / "a.pickle", pickle.dumps([array], protocol=protocol))

    result = read_pickle(path)

    assert result.dtype == np.float16
    np.testing.assert_array_equal(result, ARRAY)


def test_read_pickle_reads_numpy_1_files(tmp_path: Path) -> None:
    content = pickle.dumps([ARRAY], protocol=3).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in content

    np.testing.assert_array_equal(read_pickle(write_bytes(tmp_path / "a.pickle", content)), ARRAY)


def test_write_pickle_is_a_list_with_one_float16_array(tmp_path: Path) -> None:
    path = tmp_path / "t5_xxl" / "clip.pickle"

    write_pickle(path, ARRAY)

    with path.open("rb") as stream:
        value = pickle.load(stream)  # as the reference reads it
    assert isinstance(value, list)
    assert len(value) == 1
    assert value[0].dtype == np.float16
    np.testing.assert_array_equal(value[0], ARRAY)
    np.testing.assert_array_equal(read_pickle(path), ARRAY)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, r"posix\.system"),
        (eval, r"builtins\.eval"),
        (getattr, r"builtins\.getattr"),
        (np.load, r"numpy\.load"),
        (Path.touch, r"getattr|pathlib"),
    ],
)
def test_hostile_pickle_runs_nothing_and_is_reported(
    tmp_path: Path, function: object, name: str
) -> None:
    trace = tmp_path / "trace"
    payload = pickle.dumps([Attack(function, f"touch {trace}"), ARRAY])
    path = write_bytes(tmp_path / "bad.pickle", payload)

    with pytest.raises(DataError, match=rf"bad\.pickle: refused, the pickle asks for .*{name}"):
        read_pickle(path)
    assert not trace.exists()


def test_hostile_call_after_a_valid_array_is_reported(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = write_bytes(tmp_path / "a.pickle", pickle.dumps([ARRAY, Attack(os.mkdir, str(trace))]))

    with pytest.raises(DataError, match=r"asks for posix\.mkdir"):
        read_pickle(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (ARRAY, "got _ArrayStandIn|got .*expected a list with one float16"),
        ([ARRAY, ARRAY], "got list, expected a list with one"),
        ([], "got list, expected a list with one"),
        ([1.5], "got list, expected"),
        ([ARRAY[0]], r"got an array of shape \(8,\)"),
        ([ARRAY.astype(np.float32)], "an array of type 'f4', expected float16"),
        ([np.array([[object()]], dtype=object)], "refused|an array of type 'O8'"),
        ([np.full((2, 8), np.nan, np.float16)], "not finite"),
        ([np.zeros((0, 8), np.float16)], r"an array of shape \(0, 8\)"),
    ],
)
def test_read_pickle_refuses_other_values(tmp_path: Path, value: object, message: str) -> None:
    path = write_bytes(tmp_path / "a.pickle", pickle.dumps(value, protocol=4))

    with pytest.raises(DataError, match=message):
        read_pickle(path)


def test_read_pickle_names_an_absent_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.pickle: no such file"):
        read_pickle(tmp_path / "a.pickle")


def test_read_pickle_refuses_a_memo_index_that_would_fill_the_memory(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.pickle", b"\x80\x03]r\xff\xff\xff\x7f.")

    with pytest.raises(DataError, match="memo index 2147483647"):
        read_pickle(path)


@pytest.mark.parametrize("protocol", [3, 5])
def test_damaged_pickles_give_no_other_error_than_ours(tmp_path: Path, protocol: int) -> None:
    good = pickle.dumps([ARRAY], protocol=protocol)
    rng = random.Random(0)
    refused = 0
    for _ in range(500):
        content = bytearray(good[: rng.randrange(len(good) + 1)] if rng.random() < 0.3 else good)
        for _ in range(rng.randrange(1, 4)):
            if content:
                content[rng.randrange(min(len(content), 180))] = rng.randrange(256)
        path = write_bytes(tmp_path / "a.pickle", bytes(content))
        try:
            result = read_pickle(path)
        except DataError:
            refused += 1
        else:
            assert result.dtype == np.float16
            assert result.ndim == 2
    assert refused > 150


def test_pickles_written_for_a_dataset_are_read_back(tmp_path: Path) -> None:
    write_annotation(tmp_path, "train", "1", "push left")
    write_annotation(tmp_path, "train", "2", "push right")
    write_annotation(tmp_path, "val", "3", "push left")
    write_annotation(tmp_path, "val", "4", "dropped")
    embeddings = {"push left": ARRAY, "push right": ARRAY[:2]}

    count = write_pickles(
        find_caption_files(tmp_path), tmp_path, embeddings, embeddings.__getitem__
    )
    found = read_pickles(
        tmp_path, find_caption_files(tmp_path), ["push right", "push left", "never seen"], 8, 16
    )

    assert count == 3
    assert not (tmp_path / "annotation" / "val" / "4.pickle").exists()
    assert found.keys() == embeddings.keys()
    for caption, array in embeddings.items():
        np.testing.assert_array_equal(found[caption], array)


@pytest.mark.parametrize(("dim", "max_length"), [(1024, 16), (8, 4)])
def test_read_pickles_refuses_embeddings_of_another_encoder(
    tmp_path: Path, dim: int, max_length: int
) -> None:
    annotation = write_annotation(tmp_path, "train", "1", "push left")
    write_pickle(annotation.with_suffix(".pickle"), ARRAY)

    with pytest.raises(
        DataError, match=rf"1\.pickle: embedding \(5, 8\).*L <= {max_length}, {dim}"
    ):
        read_pickles(tmp_path, find_caption_files(tmp_path), ["push left"], dim, max_length)


def nested(levels: int) -> bytes:
    """Instructions for a tuple that holds the tuple of the level below twice."""
    return b"(t" + b"".join(b"q%c0h%ch%c\x86" % (n, n, n) for n in range(levels))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x80\x02}" + nested(60) + b"K\x01s.", "an instruction SETITEM"),
        (b"\x80\x02}(" + nested(60) + b"K\x01u.", "an instruction SETITEMS"),
        (b"\x80\x02(" + nested(60) + b"K\x01d.", "an instruction DICT"),
        (b"\x80\x04\x8f(" + nested(60) + b"\x90.", "an instruction ADDITEMS"),
        (b"\x80\x04(" + nested(60) + b"\x91.", "an instruction FROZENSET"),
        (b"\x80\x02cnumpy\ndtype\n" + nested(60) + b"\x85R.", "an array of type"),
        (b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f2\x85R(K\x03" + nested(60) + b"tb.", "byte order"),
        (b"\x80\x02(ios\nsystem\n.", r"asks for os\.system"),
        (b"\x80\x02" + nested(60) + b".", "got tuple, expected a list"),
    ],
)  # fmt: skip
def test_pickle_without_an_end_is_refused_at_once(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.pickle"
    path.write_bytes(content)

    with pytest.raises(DataError, match=message) as caught:
        read_pickle(path)

    assert len(str(caught.value)) < 1000
