"""The viewer in a real browser: a page that updates while a run goes on, and videos that are sought."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn
from support.chromium import Chromium, chromium
from support.view_claims import KEY, RUN, log_line, write_job, write_samples

from cosmos_worker.view.app import build_app
from cosmos_worker.view.folders import Folders
from cosmos_worker.view.pages import Viewer
from cosmos_worker.view.server import open_listener

pytestmark = pytest.mark.browser


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address at which a folder is served."""
    listener = open_listener("127.0.0.1", 0)
    config = uvicorn.Config(build_app(Viewer(Folders.of(folder))), log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with chromium(tmp_path / "profile") as found:
        yield found


def wait_for(browser: Chromium, condition: str) -> None:
    """Wait until a condition of the page is true, for 30 s at most."""
    browser.evaluate(
        "new Promise((done, failed) => { const began = Date.now(); const look = () => "
        f"({condition}) ? done(1) : Date.now() - began > 30000 ? failed(Error('never'))"
        " : setTimeout(look, 100); look(); })"
    )


def test_page_updates_while_the_run_goes_on(tmp_path: Path, browser: Chromium) -> None:
    root = write_job(tmp_path / "claim")
    with served(tmp_path / "claim") as address:
        browser.visit(f"{address}/jobs/checkpoints/push-{KEY}")
        assert browser.evaluate("document.getElementById('step').innerText.startsWith('20')")

        log_line(root / RUN, 30, loss=0.01, seconds_per_step=2.0)
        write_samples(root, 30)
        wait_for(browser, "document.getElementById('step').innerText.startsWith('30')")
        wait_for(browser, "document.querySelectorAll('video').length === 2")

        said = browser.evaluate("document.getElementById('live-status').textContent")
        assert said == "step 30, training"
        assert browser.complaints == []
        assert all(one.startswith((address, "data:")) for one in browser.requests)


def test_video_is_sought_and_played(tmp_path: Path, browser: Chromium) -> None:
    root = write_job(tmp_path / "claim", is_complete=True)
    write_samples(root, 10)
    with served(tmp_path / "claim") as address:
        browser.visit(f"{address}/jobs/checkpoints/push-{KEY}")
        found = browser.evaluate(
            "(async () => { const video = document.querySelector('video'); "
            "if (video.readyState < 1) { await new Promise((done) => { video.onloadedmetadata = done; }); } "
            "video.currentTime = 0.6; await new Promise((done) => { video.onseeked = done; }); "
            "const at = video.currentTime; await video.play(); return [at, video.videoWidth, video.error]; })()"
        )

        assert found[0] == pytest.approx(0.6, abs=0.01)
        assert found[1:] == [48, None]
        assert browser.complaints == []


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_page_fits_its_window(tmp_path: Path, browser: Chromium, width: int, dark: bool) -> None:
    root = write_job(tmp_path / "claim")
    write_samples(root, 10)
    with served(tmp_path / "claim") as address:
        browser.show(width, dark=dark)
        for page in ("/", f"/jobs/checkpoints/push-{KEY}", "/datasets"):
            browser.visit(f"{address}{page}")
            overflow = browser.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert overflow <= 0, page
