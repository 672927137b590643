"""examples/bridge-7b.yaml at a tiny size, from the download of its repositories to the generated videos.

The three repositories are on a local mirror of the Hub, which requires a token and breaks connections.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from support.clips import add_bridge_clip
from support.fake_hub import COMMIT, FakeHub, serve_hub
from support.reference_keys import LOGVAR_ENTRIES, reference_entries
from support.released_repositories import ENCODER, MODEL, NEEDED, TOKENIZER, write_repositories

from cosmos_worker.config.network import NetConfig, TokenizerConfig, VideoConfig
from cosmos_worker.config.presets import BRIDGE_57
from cosmos_worker.data.video.files import read_video
from cosmos_worker.storage.volumes import sha256_of_file

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "bridge-7b.yaml"
TOKEN = "token-of-the-test"
FRAMES = 9
NET = NetConfig(
    model_channels=256,
    num_blocks=7,  # model.pt has 13 MB: the client only goes on where it has a piece of 10
    num_heads=2,
    text_channels=16,
    adaln_lora_dim=8,
    max_latent_size=16,
    max_latent_frames=8,
)
PROGRAM = """
import sys
from cosmos_operator.api import check
from cosmos_operator.cli import main
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import EXPERIMENTS

experiment = Experiment.model_validate_json(sys.argv.pop(1))
EXPERIMENTS[experiment.name] = experiment
check.model_problems = lambda *_: []
sys.exit(main(sys.argv[1:]))
"""
"""The command ``cosmos`` with another experiment of the same name: a job cannot change what its checkpoint decides.

Its network is tiny, and so are the models that have the names of the large ones here.
"""
TINY = BRIDGE_57.model_copy(
    update={
        "net": NET,
        "video": VideoConfig(num_pixel_frames=FRAMES, height=64, width=64),
        "tokenizer": TokenizerConfig(chunk_pixel_frames=FRAMES),
    }
)
"""The experiment of the 7B, at the size of the test."""

pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Finished:
    """Two runs of the job: the first stops in the middle of a download."""

    workspace: Path
    folders: dict[str, Path]
    first: subprocess.CompletedProcess[str]
    first_downloads: list[str]
    second: subprocess.CompletedProcess[str]
    hub: FakeHub


def write_job(folder: Path) -> Path:
    """The example, with the sizes of the test, on two processes of this machine."""
    job = yaml.safe_load(EXAMPLE.read_text())
    spec = job["spec"]
    spec["training"]["steps"] = 2
    spec["training"]["overrides"] = [
        "trainer.global_batch_size=2",
        "trainer.threads_per_process=1",
    ]
    spec["checkpoints"]["everySteps"] = 2
    spec["compute"] = {"processesPerNode": 2}
    (item,) = spec["inference"]
    item["parameters"]["steps"] = 2
    spec["inference"].append({**item, "name": "base", "checkpoint": "Base"})
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


def write_dataset(root: Path) -> None:
    """Write a bridge dataset where the example expects it; inference starts from episode 0 of the test split."""
    for split, names in (("train", ("1", "2", "3")), ("val", ("4",)), ("test", ("0",))):
        for name in names:
            add_bridge_clip(root, name, split, frames=FRAMES)


def cosmos_run(job: Path, workspace: Path, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, TINY.model_dump_json(), "run", str(job)]
    environment = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_CACHE": str(workspace / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    for name in ("HF_HUB_OFFLINE", "HTTP_PROXY", "http_proxy"):
        environment.pop(name, None)
    return subprocess.run(
        [*command, "--workspace", str(workspace)],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    root = tmp_path_factory.mktemp("released")
    folders = write_repositories(root / "hub", NET)
    workspace = root / "workspace"
    write_dataset(workspace / "cosmos" / "datasets" / "bridge")
    job = write_job(root)
    with serve_hub(folders) as hub:
        hub.token = TOKEN
        hub.breaks = {f"{MODEL}/model.pt": 1, f"{ENCODER}/model.safetensors": 99}
        first = cosmos_run(job, workspace, hub.url)
        downloads = list(hub.downloads)
        hub.breaks = {}
        second = cosmos_run(job, workspace, hub.url)
        assert second.returncode == 0, second.stdout + second.stderr
        yield Finished(workspace, folders, first, downloads, second, hub)


def only(workspace: Path, pattern: str) -> Path:
    (found,) = workspace.glob(pattern)
    return found


def test_broken_connection_is_continued_at_the_byte(finished: Finished) -> None:
    asked = [wanted for name, wanted in finished.hub.ranges if name == f"{MODEL}/model.pt"]

    assert len(asked) == 2
    assert asked[0] is None
    assert asked[1] is not None
    assert int(asked[1].removeprefix("bytes=").removesuffix("-")) >= 10_000_000


def test_lost_network_asks_to_run_again_and_then_nothing_is_fetched_twice(
    finished: Finished,
) -> None:
    said = finished.first.stdout + finished.first.stderr

    assert finished.first.returncode != 0
    assert f"hugging_face {ENCODER}@main" in said
    assert "check the network and run again" in said
    later = finished.hub.downloads[len(finished.first_downloads) :]
    assert later == [f"{ENCODER}/model.safetensors"]


def test_only_what_is_needed_is_fetched(finished: Finished) -> None:
    expected = [f"{repo}/{name}" for repo, names in NEEDED.items() for name in names]

    assert sorted(finished.hub.downloads) == sorted(expected)


def test_result_names_commit_and_digests(finished: Finished) -> None:
    marker = only(finished.workspace, "**/fetched-????????????/complete-*.json")
    artifacts = json.loads(marker.read_text())["result"]["artifacts"]

    assert [artifact["commit"] for artifact in artifacts] == [COMMIT] * 3
    for artifact, repo in zip(artifacts, (MODEL, TOKENIZER, ENCODER), strict=True):
        assert set(artifact["files"]) == NEEDED[repo]
        for name, facts in artifact["files"].items():
            assert facts["sha256"] == sha256_of_file(finished.folders[repo] / name)


def test_published_model_is_what_the_reference_loads(finished: Finished) -> None:
    name = yaml.safe_load(EXAMPLE.read_text())["spec"]["outputs"]["name"]
    path = only(finished.workspace, f"**/{name}/model.pt")
    wanted = LOGVAR_ENTRIES | reference_entries(256, 7, text=16, rank=8, head=128, sizes=(8, 8, 8))

    state = torch.load(path, weights_only=True)

    assert {key: tuple(value.shape) for key, value in state.items()} == wanted
    assert all(bool(value.isfinite().all()) for value in state.values())
    released = torch.load(finished.folders[MODEL] / "model.pt", weights_only=True)
    key = "net.blocks.block0.blocks.0.block.attn.to_q.0.weight"
    assert not torch.equal(state[key], released[key].float())  # it was trained
    assert torch.allclose(state[key], released[key].float(), atol=1e-2)  # from the released one


@pytest.mark.parametrize("item", ["held-out", "base"])
def test_videos_are_generated(finished: Finished, item: str) -> None:
    video = only(finished.workspace, f"**/generated/{item}-????????????/*.mp4")

    assert read_video(video).shape == (FRAMES, 64, 64, 3)
