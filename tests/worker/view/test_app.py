"""The viewer answers as a web application: pages, parts of files, and nothing from outside of its folder."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient
from support.view_claims import (
    HOSTILE,
    KEY,
    RUN,
    log_line,
    write_clip,
    write_generated,
    write_job,
    write_samples,
)

from cosmos_worker.view.app import build_app, host_name
from cosmos_worker.view.folders import Folders
from cosmos_worker.view.pages import Viewer

JOB = f"checkpoints/push-{KEY}"


class PageParts(HTMLParser):
    """Tags with their attributes, and the text of a page."""

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


def browse(folder: Path, *further: Path, hosts: tuple[str, ...] = ()) -> TestClient:
    app = build_app(Viewer(Folders.of(folder, further)), hosts)
    return TestClient(app, base_url="http://localhost:8080")


@pytest.fixture(scope="module")
def claim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("claim")
    root = write_job(folder)
    for step in (0, 10, 20):
        write_samples(root, step, HOSTILE)
    write_generated(root, "after", HOSTILE)
    (root / "report-1").mkdir()
    (root / "report-1" / "report.html").write_text("<script>document.title = 'ran'</script>")
    (folder / "models").mkdir()
    (folder / "models" / "model.pt").write_bytes(os.urandom(300_000))
    return folder


@pytest.fixture(scope="module")
def client(claim: Path) -> TestClient:
    return browse(claim)


def test_list_names_the_job_with_its_state_and_figures(client: TestClient) -> None:
    answer = client.get("/")
    page = PageParts(answer.text)

    assert answer.status_code == 200
    assert f"/jobs/{JOB}" in [one["href"] for one in page.attributes("a")]
    assert "training" in page.text
    assert "20/100" in page.text
    assert "0.0500" in page.text
    assert "2 min 40 s" in page.text


def test_page_of_a_job_has_curves_samples_and_generated_videos(client: TestClient) -> None:
    page = PageParts(client.get(f"/jobs/{JOB}").text)
    labels = [one["aria-label"] for one in page.attributes("video")]

    assert len(page.attributes("svg")) == 1
    assert [label.partition(":")[0] for label in labels if label] == [
        "Ground truth", "Step 0", "Step 10", "Step 20", "after",
    ]  # fmt: skip
    for video in page.attributes("video"):
        assert client.get(str(video["src"])).headers["content-type"] == "video/mp4"


def test_hostile_captions_are_text(client: TestClient) -> None:
    page = PageParts(client.get(f"/jobs/{JOB}").text)

    assert HOSTILE in page.text
    assert all("alert" not in str(one) for one in page.attributes("script"))
    assert len(page.attributes("script")) == 1
    assert not [tag for tag, attributes in page.tags if "onerror" in attributes]


def test_hostile_name_of_a_folder_is_text_and_its_link_works(tmp_path: Path) -> None:
    name = '"><img src=x onerror=a()>#?&'
    write_job(tmp_path, name)
    client = browse(tmp_path)

    page = PageParts(client.get("/").text)
    (link,) = [one["href"] for one in page.attributes("a") if str(one["href"]).startswith("/jobs/")]
    assert page.attributes("img") == []
    assert name in PageParts(client.get(str(link)).text).text


def test_a_name_that_is_no_text_does_not_end_the_list(tmp_path: Path) -> None:
    write_job(tmp_path)
    odd = tmp_path / "checkpoints" / os.fsdecode(b"\xff-0123456789ab")
    shutil.copytree(tmp_path / JOB, odd)

    assert "2 jobs" in browse(tmp_path).get("/").text


def test_page_loads_nothing_from_elsewhere_and_runs_one_script(client: TestClient) -> None:
    answer = client.get(f"/jobs/{JOB}")
    policy = dict(
        one.split(" ", 1) for one in answer.headers["content-security-policy"].split("; ")
    )
    (script,) = PageParts(answer.text).attributes("script")

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'nonce-{script['nonce']}'"
    assert not re.search(r"https?://", answer.text.replace("http://www.w3.org", ""))
    assert (
        client.get("/").headers["content-security-policy"]
        != answer.headers["content-security-policy"]
    )
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_live_part_has_a_new_digest_only_where_something_changed(tmp_path: Path) -> None:
    root = write_job(tmp_path)
    write_samples(root, 0)
    client, address = browse(tmp_path), f"/jobs/{JOB}?part=live"
    before = client.get(address).json()

    log_line(root / RUN, 30, loss=0.01, seconds_per_step=2.0)
    after = client.get(address).json()

    assert before["isLive"] is after["isLive"] is True
    assert after["said"] == "step 30, training"
    changed = {
        name for name, one in after["sections"].items() if one != before["sections"][name]
    }  # fmt: skip
    assert changed == {"state", "curves"}


# --- files -----------------------------------------------------------------------------------


def test_download_goes_on_where_it_was_cut_off(claim: Path, client: TestClient) -> None:
    content = (claim / "models" / "model.pt").read_bytes()
    whole = client.get("/files/models/model.pt")
    begin = {"Range": "bytes=0-99999"}
    rest = {"Range": "bytes=100000-", "If-Range": whole.headers["etag"]}

    first, second = (client.get("/files/models/model.pt", headers=one) for one in (begin, rest))

    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert (first.status_code, second.status_code) == (206, 206)
    assert second.headers["content-range"] == "bytes 100000-299999/300000"
    assert (
        hashlib.sha256(first.content + second.content).digest() == hashlib.sha256(content).digest()
    )


def test_changed_file_is_sent_whole_instead_of_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"a" * 100)
    client = browse(tmp_path)
    etag = client.get("/files/model.pt").headers["etag"]
    path.write_bytes(b"b" * 120)

    answer = client.get("/files/model.pt", headers={"Range": "bytes=50-", "If-Range": etag})

    assert (answer.status_code, answer.content) == (200, b"b" * 120)


def test_range_beyond_the_end_is_refused(client: TestClient) -> None:
    answer = client.get("/files/models/model.pt", headers={"Range": "bytes=300000-"})

    assert answer.status_code == 416


@pytest.mark.parametrize(
    "address",
    [
        "../secret.txt", "..%2Fsecret.txt", "%2e%2e/secret.txt", "models/../../secret.txt", "/etc/passwd",
        "%2Fetc%2Fpasswd", "models/%00", "link.txt", "folder/secret.txt", "loop", ".hidden", "models/.hidden",
        "@1/secret.txt", "@0/x", "models", "a" * 5000,
    ],
)  # fmt: skip
def test_nothing_outside_of_the_folder_is_served(tmp_path: Path, address: str) -> None:
    inside = tmp_path / "shown"
    (inside / "models").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (inside / "link.txt").symlink_to(tmp_path / "secret.txt")
    (inside / "folder").symlink_to(tmp_path)
    (inside / "loop").symlink_to(inside / "loop")
    for name in (".hidden", "models/.hidden"):
        (inside / name).write_text("secret")

    answer = browse(inside).get(f"/files/{address}")

    assert answer.status_code == 404
    assert "secret" not in answer.text


def test_link_within_the_folder_is_served(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("here")
    (tmp_path / "b.txt").symlink_to("a.txt")

    assert browse(tmp_path).get("/files/b.txt").text == "here"


def test_file_of_a_further_folder_is_served_by_its_number(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write_clip(tmp_path / "b" / "clip.mp4")
    root = write_job(tmp_path / "a")
    write_generated(root, "after", truth=str(tmp_path / "b" / "clip.mp4"))

    alone = PageParts(browse(tmp_path / "a").get(f"/jobs/{JOB}").text)
    client = browse(tmp_path / "a", tmp_path / "b")
    both = PageParts(client.get(f"/jobs/{JOB}").text)

    assert "lies outside of the folder" in alone.text
    assert "/files/@1/clip.mp4" in [one["src"] for one in both.attributes("video")]
    assert client.get("/files/@1/clip.mp4").status_code == 200


def test_truth_of_a_pod_is_found_on_its_claim(tmp_path: Path) -> None:
    root = write_job(tmp_path)
    write_clip(tmp_path / "datasets" / "cubes" / "clip.mp4")
    write_generated(root, "after", truth="/mnt/cosmos/datasets/cubes/clip.mp4")

    page = PageParts(browse(tmp_path).get(f"/jobs/{JOB}").text)

    assert "/files/datasets/cubes/clip.mp4" in [one["src"] for one in page.attributes("video")]


@pytest.mark.parametrize("name", ["page.html", "image.svg", "script.js", "page.xhtml", "x.xml"])
def test_what_a_browser_would_run_is_a_download(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("<script>x()</script>")

    answer = browse(tmp_path).get(f"/files/{name}")

    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-security-policy"].startswith("sandbox;")


def test_report_runs_in_an_origin_of_its_own_without_a_network(client: TestClient) -> None:
    answer = client.get(f"/files/{JOB}/report-1/report.html")
    policy = answer.headers["content-security-policy"]

    assert answer.headers["content-type"].startswith("text/html")
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy
    assert "connect-src" not in policy


# --- methods and hosts -----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("address", ["/", f"/jobs/{JOB}", "/files/models/model.pt"])
def test_only_get_and_head_are_answered(client: TestClient, method: str, address: str) -> None:
    answer = client.request(method, address)

    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_head_tells_the_size_without_content(client: TestClient) -> None:
    answer = client.head("/files/models/model.pt")

    assert (answer.content, answer.headers["content-length"]) == (b"", "300000")


@pytest.mark.parametrize(
    ("host", "status"),
    [("localhost:8080", 200), ("127.0.0.1", 200), ("[::1]:8080", 200), ("cosmos.example.com", 200),
     ("evil.example.com", 421), ("", 421), ("localhost.evil.com:8080", 421)],
)  # fmt: skip
def test_other_names_of_this_machine_are_refused(tmp_path: Path, host: str, status: int) -> None:
    client = browse(tmp_path, hosts=("cosmos.example.com",))

    assert client.get("/", headers={"Host": host}).status_code == status


def test_host_name_of_a_header() -> None:
    assert [host_name(one) for one in ("a.b:80", "a.b", "[::1]:80", "[::1]")] == [
        "a.b",
        "a.b",
        "::1",
        "::1",
    ]


def test_nothing_is_written_into_the_folder(tmp_path: Path) -> None:
    root = write_job(tmp_path)
    write_samples(root, 0)

    def content() -> dict[str, tuple[int, int]]:
        found = (path.lstat() for path in sorted(tmp_path.rglob("*")))
        names = map(str, sorted(tmp_path.rglob("*")))
        return {n: (s.st_mtime_ns, s.st_size) for n, s in zip(names, found, strict=True)}

    before = content()
    client = browse(tmp_path)
    for address in (
        "/",
        f"/jobs/{JOB}",
        f"/jobs/{JOB}?part=live",
        f"/files/{quote(JOB)}/{RUN}/config.yaml",
    ):
        assert client.get(address).status_code == 200

    assert content() == before


def test_viewer_starts_without_torch_and_without_what_the_operator_image_lacks() -> None:
    script = (
        "import sys\nimport cosmos_worker.cli, cosmos_worker.view.server, cosmos_worker.view.app\n"
        "heavy = {'torch', 'numpy', 'av', 'PIL', 'transformers', 'safetensors', 'pyarrow', 'boto3', 'tqdm'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or None)"
    )

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
