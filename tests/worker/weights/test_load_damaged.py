"""A damaged or changed weight file is refused or gives the original tensors, never others."""

from __future__ import annotations

import random
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.fetched_weights import fetch
from support.programs import follow_advice
from support.training import SMALL_NET, small_model
from torch import Tensor

from cosmos_worker.errors import CheckpointError, WorkerError
from cosmos_worker.weights.load import (
    load_model,
    read_weight_file,
)
from cosmos_worker.weights.tensor_files import read_saved

TENSORS = {f"net.t{i}": torch.arange(40.0).view(8, 5) + i for i in range(12)}


def read(path: Path) -> dict[str, Tensor]:
    state = read_weight_file(path)
    return {name: state[name].clone() for name in state}


def is_same(state: Mapping[str, Tensor], expected: Mapping[str, Tensor] = TENSORS) -> bool:
    return state.keys() == expected.keys() and all(
        torch.equal(state[name], value) for name, value in expected.items()
    )


def outcome(path: Path) -> str:
    """The tensors that a reader of the file gets."""
    try:
        return "same" if is_same(read(path)) else "GARBAGE"
    except WorkerError:
        return "refused"


def damage(content: bytes, draw: random.Random) -> bytes:
    """A file with a bit flipped, some bytes overwritten, cut off, or lengthened."""
    kind = draw.randrange(4)
    at = draw.randrange(len(content))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + bytes(draw.randrange(1, 9)) + content[at:]
    width = 1 if kind == 2 else draw.randrange(1, 16)
    piece = bytes(byte ^ draw.randrange(1, 256) for byte in content[at : at + width])
    return content[:at] + piece + content[at + width :]


def test_damaged_file_of_torch_is_never_read_as_other_weights(tmp_path: Path) -> None:
    path, draw = tmp_path / "model.pt", random.Random(1)
    torch.save(TENSORS, path)
    content = path.read_bytes()

    outcomes = []
    for _ in range(300):
        path.write_bytes(damage(content, draw))
        outcomes.append(outcome(path))

    assert "GARBAGE" not in outcomes
    assert outcomes.count("refused") > 100


def test_damaged_file_of_safetensors_is_never_read_as_other_weights(tmp_path: Path) -> None:
    """The format has no checksums; the digest that fetch-model recorded tells the change."""
    source, draw = tmp_path / "source.safetensors", random.Random(2)
    save_file(TENSORS, source)
    path = fetch(source, tmp_path / "Tiny") / "model.safetensors"
    content = path.read_bytes()

    outcomes = []
    for _ in range(200):
        path.write_bytes(damage(content, draw))
        outcomes.append(outcome(path.parent))

    assert "GARBAGE" not in outcomes
    path.write_bytes(content)
    assert outcome(path.parent) == "same"


def zip_again(path: Path, method: int, change: Callable[[str, bytes], bytes] | None = None) -> None:
    """Write the records of a zip file anew, as archivers do."""
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in records.items():
            archive.writestr(name, content if change is None else change(name, content))


def test_compressed_records_are_refused_with_a_command_that_mends_them(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(TENSORS, path)
    zip_again(path, zipfile.ZIP_DEFLATED)

    with pytest.raises(CheckpointError, match=r"record '.*' is compressed \(deflate\)") as caught:
        read_weight_file(path)

    command = str(caught.value).partition("write the file again: ")[2]
    follow_advice(command, tmp_path)
    assert is_same(read(path))


def test_file_that_an_archiver_has_written_without_compression_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"  # whose records are not aligned
    torch.save(TENSORS, path)
    zip_again(path, zipfile.ZIP_STORED)

    assert is_same(read(path))


@pytest.mark.parametrize("size", [0, 100, 4000])
def test_record_of_another_size_than_its_tensor_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.pt"
    torch.save(TENSORS, path)
    zip_again(path, zipfile.ZIP_STORED, lambda name, c: bytes(size) if "/data/3" in name else c)

    with pytest.raises(CheckpointError, match=f"record 'data/3' has {size} bytes instead of 160"):
        read_weight_file(path)


def patch_size(path: Path, name: str, size: int) -> None:
    """Let both headers of a record say another size."""
    with zipfile.ZipFile(path) as archive:
        entry = next(one for one in archive.infolist() if one.filename.endswith(name))
        start_of_list = archive.start_dir
    content = bytearray(path.read_bytes())
    of_list = content.index(entry.filename.encode(), start_of_list) - 46
    for at in (entry.header_offset + 18, of_list + 20):
        content[at : at + 8] = size.to_bytes(4, "little") * 2
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("data/3", 400, r"records 'data/3' and 'data/4' overlap"),
        ("data/3", 1 << 20, r"record 'model/data/3' does not end before the list of records"),
        ("data/3", 40, r"record 'data/3' has 40 bytes instead of 160"),
    ],
)
def test_records_that_overlap_or_leave_the_file_are_refused(
    tmp_path: Path, name: str, size: int, message: str
) -> None:
    path = tmp_path / "model.pt"
    torch.save(TENSORS, path)
    zip_again(path, zipfile.ZIP_STORED)
    patch_size(path, name, size)

    with pytest.raises(CheckpointError, match=message):
        read_weight_file(path)


def test_file_of_before_2020_is_refused_with_a_command_that_mends_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(TENSORS, path, _use_new_zipfile_serialization=False)

    with pytest.raises(
        CheckpointError, match=r"a pickle, as torch\.save wrote it before"
    ) as caught:
        read_weight_file(path)

    command = str(caught.value).partition("write it again: ")[2]
    follow_advice(command, tmp_path)
    assert is_same(read(path))


def test_whole_module_is_named_and_not_run(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")

    with pytest.raises(
        CheckpointError, match=r"holds an object of torch\.nn\.modules\.linear\.Linear, not a flat"
    ):
        read_weight_file(tmp_path / "model.pt")


@pytest.mark.parametrize("place", ["key", "ordered", "member", "storage"])
def test_pickle_that_would_never_finish_is_refused(tmp_path: Path, place: str) -> None:
    """Nested tuples whose hash or text would take years."""
    nested = b"(tq\x000" + b"h\x00h\x00\x86q\x000" * 60 + b"h\x00"
    program = {
        "key": b"}" + nested + b"K\x01s",
        "ordered": b"ccollections\nOrderedDict\n]" + nested + b"K\x01\x86a\x85R",
        "member": b"(" + nested + b"\x91",
        "storage": b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        + nested
        + b"X\x03\x00\x00\x00cpuK\x01tQ",
    }[place]
    torch.save(TENSORS, tmp_path / "model.pt")
    zip_again(
        tmp_path / "model.pt",
        zipfile.ZIP_STORED,
        lambda name, c: b"\x80\x04" + program + b"." if name.endswith("data.pkl") else c,
    )

    with pytest.raises(
        CheckpointError, match=r"cannot be read as a file of torch tensors \(a (key|st)"
    ):
        read_weight_file(tmp_path / "model.pt")


def test_views_and_shared_storages_are_what_they_were(tmp_path: Path) -> None:
    whole = torch.arange(60.0).view(6, 10)
    tensors = {"net.a": whole, "net.b": whole[2:, 3:7].T, "net.c": torch.nn.Parameter(whole[1])}
    tensors |= {"net.d": torch.zeros(0, 3), "net.e": torch.tensor(2.0)}
    torch.save(tensors, tmp_path / "model.pt")

    assert is_same(read(tmp_path / "model.pt"), tensors)


def of_storage(num_bytes: int, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    storage = torch.UntypedStorage(num_bytes)
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)


@pytest.mark.parametrize(
    ("tensor", "problem"),
    [
        (torch.zeros(1).expand(10**6, 10**6), r"takes 4000000000000 bytes, its record 'data/0' ha"),
        (of_storage(5, torch.uint16, (2,)), r"record 'data/0' has 5 bytes, no multiple of the 2"),
        (torch.zeros(1).as_strided((1,), (2**62,)), None),
    ],
    ids=["stride of 0", "half a value", "stride that is not used"],
)
def test_tensor_that_is_no_plain_part_of_its_record_is_refused(
    tmp_path: Path, tensor: Tensor, problem: str | None
) -> None:
    torch.save({"net.a": torch.ones(1), "net.bad": tensor}, tmp_path / "model.pt")

    if problem is None:
        assert read(tmp_path / "model.pt")["net.bad"].tolist() == [0.0]
        return
    with pytest.raises(
        CheckpointError, match=rf"\(net\.bad: .*{problem}".replace("data/0", "data/1")
    ):
        read_weight_file(tmp_path / "model.pt")


def test_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(TENSORS, tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)

    assert is_same(read(tmp_path / "model.pt"))


def test_small_files_of_torch_are_checked_too(tmp_path: Path) -> None:
    path = tmp_path / "safety_filter.pt"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(
        CheckpointError, match=r"record 'data/0' is damaged: .*; fetch the guardrai"
    ):
        read_saved(path, "fetch the guardrails again")


# --- values that are no weights --------------------------------------------------------------


def with_bad_values(value: float) -> dict[str, Tensor]:
    state = dict(small_model().state_dict())
    broken = state["net.final_layer.linear.weight"].clone()
    broken[0, :3] = value
    return {**state, "net.final_layer.linear.weight": broken}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_values_that_are_not_finite_are_refused_at_fetch_and_at_load(
    tmp_path: Path, value: float, form: str
) -> None:
    path = tmp_path / f"model.{form}"
    state = with_bad_values(value)
    torch.save(state, path) if form == "pt" else save_file(state, path)

    message = (
        r"3 values in 1 tensor are NaN or infinite: net\.final_layer\.linear\.weight \(3\); a train"
    )
    with pytest.raises(CheckpointError, match=message):
        fetch(path, tmp_path / "Tiny")
    assert not (tmp_path / "Tiny").exists()
    with pytest.raises(CheckpointError, match=message):
        load_model(path, SMALL_NET)


@pytest.mark.parametrize(
    ("dtype", "shown"),
    [(torch.int8, "int8"), (torch.int64, "int64"), (torch.bool, "bool"), (torch.complex64, "complex64")],
)  # fmt: skip
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_weights_of_a_type_that_is_none_are_refused(
    tmp_path: Path, dtype: torch.dtype, shown: str, form: str
) -> None:
    state = {name: value.to(dtype) for name, value in small_model().state_dict().items()}
    path = tmp_path / f"model.{form}"
    torch.save(state, path) if form == "pt" else save_file(state, path)

    message = rf"that are no floating-point weights: net\.\S+ \({shown}\).*give the network in bfl"
    with pytest.raises(CheckpointError, match=message):
        load_model(path, SMALL_NET)
    with pytest.raises(
        CheckpointError, match=rf"of another type than floating point, such as .* \({shown}\)"
    ):
        fetch(path, tmp_path / "Tiny")


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "a quantised tensor"),
        (lambda: torch.ones(3).to_sparse(), "a sparse tensor"),
        (lambda: torch.empty(3, device="meta"), "a tensor without values"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_tensors_of_other_kinds_are_named(
    tmp_path: Path, make: Callable[[], Tensor], what: str
) -> None:
    torch.save({"net.x": make()}, tmp_path / "model.pt")

    with pytest.raises(CheckpointError, match=rf"net\.x is {what}"):
        read_weight_file(tmp_path / "model.pt")
