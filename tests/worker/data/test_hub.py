"""data/hub.py against a Hub on the loopback interface, through the real client library."""

from pathlib import Path

import huggingface_hub
import pytest
from fake_hub import COMMIT, point_client, serve_hub

from cosmos_worker.config import HuggingFaceSource
from cosmos_worker.data.hub import download_repository
from cosmos_worker.errors import DataError, RetryableError

SOURCE = HuggingFaceSource(repo="owner/name")


@pytest.fixture
def set_hub(tmp_path, monkeypatch):
    def apply(url: str, *, offline: bool = False) -> None:
        point_client(monkeypatch, url, tmp_path / "cache", offline=offline)

    return apply


def make_repository(folder: Path, **files: str) -> Path:
    for name, content in {"a.txt": "A", "sub/b.txt": "B", "x[1].txt": "X", **files}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_download_repository_fetches_all(tmp_path: Path, set_hub):
    with serve_hub(make_repository(tmp_path / "repo"), "dataset") as hub:
        set_hub(hub.url)
        folder = download_repository(SOURCE, tmp_path / "out", "dataset", choose=list)

    assert folder == tmp_path / "out" / COMMIT
    assert (folder / "sub/b.txt").read_text() == "B"
    assert sorted(hub.downloads) == ["a.txt", "sub/b.txt", "x[1].txt"]


def test_download_repository_fetches_chosen_files_only(tmp_path: Path, set_hub):
    with serve_hub(make_repository(tmp_path / "repo")) as hub:
        set_hub(hub.url)
        download_repository(SOURCE, tmp_path / "out", "model", choose=lambda names: ["x[1].txt"])

    assert hub.downloads == ["x[1].txt"]


def test_download_repository_tries_no_patterns_where_all_is_wanted(
    tmp_path: Path, set_hub, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    download = huggingface_hub.snapshot_download

    def watch(*args, **kwargs):
        asked.append(kwargs["allow_patterns"])
        return download(*args, **kwargs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", watch)
    some = ["sub/b.txt", "x[1].txt"]
    with serve_hub(make_repository(tmp_path / "repo"), "dataset") as hub:
        set_hub(hub.url)
        download_repository(SOURCE, tmp_path / "some", "dataset", choose=lambda names: some)
        fetched = sorted(hub.downloads)
        download_repository(SOURCE, tmp_path / "all", "dataset", choose=list)

    assert asked == [["sub/b.txt", "x[[]1].txt"], None]
    assert fetched == some
    assert sorted(hub.downloads[len(some) :]) == ["a.txt", *some]


def test_download_repository_goes_on_after_a_failure(tmp_path: Path, set_hub):
    with serve_hub(make_repository(tmp_path / "repo")) as hub:
        set_hub(hub.url)
        hub.failing.add("sub/b.txt")
        with pytest.raises(DataError, match=r"owner/name@main: the server answers 403: .*HF_TOKEN"):
            download_repository(SOURCE, tmp_path / "out", "model", choose=list)
        first, hub.failing = list(hub.downloads), set()
        folder = download_repository(SOURCE, tmp_path / "out", "model", choose=list)

    assert (folder / "sub/b.txt").read_text() == "B"
    assert sorted(hub.downloads) == ["a.txt", "sub/b.txt", "x[1].txt"], first


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (HuggingFaceSource(repo="owner/gone"), "owner/gone@main: Repo.*check repo, revision and"),
        (
            HuggingFaceSource(repo="owner/name", revision="v9"),
            "owner/name@v9: Revision.*check repo",
        ),
        (HuggingFaceSource(repo="a/b/c"), "a/b/c@main: HFValidationError.*repo is owner/name"),
    ],
)
def test_download_repository_reports_what_does_not_exist(tmp_path: Path, set_hub, source, message):
    with serve_hub(make_repository(tmp_path / "repo")) as hub:
        set_hub(hub.url)
        with pytest.raises(DataError, match=message):
            download_repository(source, tmp_path / "out", "model", choose=list)


def test_download_repository_asks_to_retry_without_a_network(tmp_path: Path, set_hub):
    with serve_hub(tmp_path) as hub:
        set_hub(hub.url)

    with pytest.raises(RetryableError, match="check the network and run again"):
        download_repository(SOURCE, tmp_path / "out", "model", choose=list)


def test_download_repository_reads_the_cache_offline(tmp_path: Path, set_hub):
    with serve_hub(make_repository(tmp_path / "repo"), "dataset") as hub:
        set_hub(hub.url)
        cached = huggingface_hub.snapshot_download("owner/name", repo_type="dataset")
    set_hub(hub.url, offline=True)

    folder = download_repository(SOURCE, tmp_path / "out", "dataset", choose=list)

    assert folder == Path(cached)
    assert (folder / "sub/b.txt").read_text() == "B"


def test_download_repository_explains_offline_without_a_copy(tmp_path: Path, set_hub):
    set_hub("http://127.0.0.1:1", offline=True)

    with pytest.raises(DataError, match=r"HF_HUB_OFFLINE is set and the cache .* no complete copy"):
        download_repository(SOURCE, tmp_path / "out", "model", choose=list)
