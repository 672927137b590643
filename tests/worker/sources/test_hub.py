"""Downloads from a Hub on the loopback interface, through the real client library."""

import json
from pathlib import Path

import huggingface_hub
import pytest
from support.fake_hub import COMMIT, point_client, serve_hub

from cosmos_worker.config.source import HuggingFaceSource
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.sources.hub import download_repository

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
        with pytest.raises(
            DataError, match=r"owner/name@main at http.*: the server answers 403: .*HF_TOKEN"
        ):
            download_repository(SOURCE, tmp_path / "out", "model", choose=list)
        first, hub.failing = list(hub.downloads), set()
        folder = download_repository(SOURCE, tmp_path / "out", "model", choose=list)

    assert (folder / "sub/b.txt").read_text() == "B"
    assert sorted(hub.downloads) == ["a.txt", "sub/b.txt", "x[1].txt"], first


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            HuggingFaceSource(repo="owner/gone"),
            r"owner/gone@main at http\S+: the server answers 404: Repo.*check repo \(http\S+/owner/gone\);",
        ),
        (
            HuggingFaceSource(repo="owner/name", revision="v9"),
            r"owner/name@v9 at http\S+: the server answers 404: Revision.*; check revision; http\S+/owner/name shows",
        ),
        (
            HuggingFaceSource(repo="a/b/c"),
            "a/b/c@main at .*: HFValidationError.*repo is owner/name",
        ),
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


# --- refusals ----------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json"}
PAGE = b"<!doctype html><html><head><title>Sign in</title></head></html>"
RESTRICTED = (
    "Access to model owner/name is restricted. Visit https://huggingface.co/owner/name to ask."
)


def said(status: int, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    """An answer as the Hub gives it."""
    headers = {"X-Error-Code": code, "X-Error-Message": message, **JSON}
    return status, headers, json.dumps({"error": message}).encode()


def refusal(tmp_path: Path, set_hub, refusals: dict, repo_type: str = "model") -> str:
    with serve_hub(make_repository(tmp_path / "repo"), repo_type) as hub:
        set_hub(hub.url)
        hub.refusals = refusals
        with pytest.raises(DataError) as caught:
            download_repository(SOURCE, tmp_path / "out", repo_type, choose=list)
    message = str(caught.value)
    assert "\n" not in message
    assert "hf_secret" not in message
    assert message.startswith(f"hugging_face owner/name@main at {hub.url}: ")
    return message.replace(hub.url, "HUB")


@pytest.mark.parametrize("what", ["api", "a.txt"])
@pytest.mark.parametrize(
    ("token", "status", "advice"),
    [
        (
            "",
            401,
            "(asked without a token for HUB/ADDRESS); open HUB/owner/name in a browser and accept its conditions, then "
            "give that account's token: HF_TOKEN, on a cluster the Secret of spec.credentials.huggingFace",
        ),
        (
            "hf_secret",
            403,
            "(asked with a token for HUB/ADDRESS); open HUB/owner/name in a browser and accept its conditions with the "
            "account of the token, or give the token of one that has access: HF_TOKEN, on a cluster",
        ),
    ],
)
def test_gated_repository_tells_the_server_s_words_and_the_page_to_open(
    tmp_path: Path, set_hub, monkeypatch: pytest.MonkeyPatch, what, token, status, advice
):
    monkeypatch.setenv("HF_TOKEN", token)
    address = "api/models/owner/name/revision/main"
    if what != "api":
        address = f"owner/name/resolve/{COMMIT}/a.txt"

    message = refusal(tmp_path, set_hub, {what: said(status, "GatedRepo", RESTRICTED)})

    assert f"the server answers {status}: {RESTRICTED} " in message
    assert advice.replace("ADDRESS", address) in message


@pytest.mark.parametrize(
    ("answer", "token", "words"),
    [
        (
            said(401, "RepoNotFound", "Repository not found"),
            "",
            "answers 401: Repository not found (asked without a token for HUB/api/datasets/owner/name/revision/main); "
            "check repo (HUB/datasets/owner/name); a private one needs a token that may read it: HF_TOKEN",
        ),
        (
            said(401, "", "Invalid credentials in Authorization header"),
            "hf_secret",
            "Invalid credentials in Authorization header (asked with a token for HUB/api/datasets/owner/name/revision/"
            "main); renew the token: HF_TOKEN",
        ),
        (
            said(404, "RevisionNotFound", "Invalid rev id: main"),
            "",
            "Invalid rev id: main (asked without",
        ),
        (
            said(403, "", "Access to this resource is disabled."),
            "",
            "is disabled. (asked without a token for HUB",
        ),
        (
            (403, {"Content-Type": "text/html"}, PAGE),
            "",
            "the server answers 403: an HTML page titled 'Sign in' (as",
        ),
        ((451, {}, b""), "", "the server answers 451: HfHubHTTPError: "),
        (
            (200, {"Content-Type": "text/html"}, PAGE),
            "",
            "what answers is no Hugging Face Hub: got an HTML page titled 'Sign in' from HUB/api; check HF_ENDPOINT",
        ),
        ((200, JSON, b""), "", "no Hugging Face Hub: got an empty answer from"),
        ((200, JSON, b"ok"), "", "no Hugging Face Hub: got an answer that is not JSON from"),
        ((200, JSON, b"[]"), "", "no Hugging Face Hub: got JSON of something else"),
        (
            (200, JSON, b'{"status": "ok"}'),
            "",
            "no Hugging Face Hub: got JSON of something else ('id') from",
        ),
        (
            (302, {"Location": "/api/datasets/owner/name/revision/main"}, b""),
            "",
            "got a loop of redirects from HUB/api",
        ),
    ],
)
def test_answers_of_the_api_are_explained(
    tmp_path: Path, set_hub, monkeypatch: pytest.MonkeyPatch, answer, token: str, words: str
):
    monkeypatch.setenv("HF_TOKEN", token)

    assert words in refusal(tmp_path, set_hub, {"api": answer}, "dataset")


def test_file_that_is_gone_is_named(tmp_path: Path, set_hub, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_TOKEN", "")

    message = refusal(tmp_path, set_hub, {"a.txt": said(404, "EntryNotFound", "Entry not found")})

    assert (
        f"404: Entry not found (asked without a token for HUB/owner/name/resolve/{COMMIT}/a.txt)"
        in message
    )


@pytest.mark.parametrize("token", ["hf_secret\thf_other", "hf_secret two", "hf_\u00fcber"])
def test_token_that_cannot_be_one_is_refused_and_not_shown(
    tmp_path: Path, set_hub, monkeypatch: pytest.MonkeyPatch, token: str
):
    monkeypatch.setenv("HF_TOKEN", token)

    message = refusal(tmp_path, set_hub, {})

    assert (
        "the token has spaces, line breaks or letters that no token has; correct HF_TOKEN"
        in message
    )


def test_page_in_place_of_a_file_is_refused_and_fetched_again(tmp_path: Path, set_hub):
    repository = make_repository(tmp_path / "repo", **{"model.pt": PAGE.decode()})
    with serve_hub(repository) as hub:
        set_hub(hub.url)
        message = rf"{hub.url}/owner/name/resolve/{COMMIT}/model\.pt: got an HTML page titled 'Sign in' in"
        with pytest.raises(DataError, match=message):
            download_repository(SOURCE, tmp_path / "out", "model", choose=list)
        (repository / "model.pt").write_text("weights")
        folder = download_repository(SOURCE, tmp_path / "out", "model", choose=list)

    assert (folder / "model.pt").read_text() == "weights"


@pytest.mark.parametrize("content", [b"", b"A" * 50])
def test_file_of_another_size_than_the_listed_one_is_not_taken(
    tmp_path: Path, set_hub, content: bytes
):
    repository = make_repository(tmp_path / "repo", **{"model.pt": "A" * 100})
    with serve_hub(repository) as hub:
        set_hub(hub.url)
        hub.refusals = {"model.pt": (200, {"ETag": '"x"', "X-Repo-Commit": COMMIT}, content)}
        message = rf"model\.pt: {len(content)} bytes arrived, the repository lists 100; run again"
        with pytest.raises(RetryableError, match=message):
            download_repository(SOURCE, tmp_path / "out", "model", choose=list)
        hub.refusals = {}
        folder = download_repository(SOURCE, tmp_path / "out", "model", choose=list)

    assert (folder / "model.pt").read_text() == "A" * 100
