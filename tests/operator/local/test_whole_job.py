"""All stages of a small job, traced: nothing is written outside of its folders, and no planted secret is shown."""

from __future__ import annotations

import functools
import http.server
import json
import os
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from support.forked_processes import run_traced
from support.jobs import make_job
from support.write_tracer import read_trace

from cosmos_operator.local.process import StageProcess, build_processes
from cosmos_operator.plan.pod import CONFIG_FILE
from cosmos_operator.plan.render import build_manifests, to_yaml
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.errors import EXIT_OK, EXIT_USER_ERROR

EXAMPLE = Path(__file__).parents[3] / "examples" / "pushing"
NUM_CLIPS = 3
ENVIRONMENT_SECRETS = {
    "HF_TOKEN": "hf_plantedHubToken0001",
    "AWS_ACCESS_KEY_ID": "AKIAPLANTED0002",
    "AWS_SECRET_ACCESS_KEY": "plantedS3Secret0003",
    "AWS_SESSION_TOKEN": "plantedSession0004",
    "WANDB_API_KEY": "plantedWandbKey0005",
    "MLFLOW_TRACKING_URI": "http://planter:plantedMlflow0006@127.0.0.1:9",
}
ADDRESS_SECRETS = ("plantedUrlPassword0007", "plantedSignature0008")
SHOWN_IDENTIFIER = "AWS_ACCESS_KEY_ID"
"""An identifier, which is no secret by itself; it stands in signatures of requests."""
SECRETS = (
    *(value for name, value in ENVIRONMENT_SECRETS.items() if "://" not in value and name != SHOWN_IDENTIFIER),
    "plantedMlflow0006",
    *ADDRESS_SECRETS,
)  # fmt: skip
DEVICES = (Path("/dev"),)


@dataclass(frozen=True)
class Ended:
    """A finished job.

    Attributes:
        root: holds everything that the stages may write to.
        codes: stage → exit code.
        logs: stage → what it wrote to its outputs.
        manifests: what a cluster would be given.
    """

    root: Path
    codes: dict[str, int]
    logs: dict[str, str]
    manifests: str


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """A server of the files of a folder; its port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def pack_clips(archive: Path) -> str:
    """An archive of some clips of the example; the path of one of them in it."""
    dataset, name = EXAMPLE / "dataset", ""
    with tarfile.open(archive, "w") as tar:
        for path in sorted((dataset / "annotation" / "train").glob("*.json"))[:NUM_CLIPS]:
            name = json.loads(path.read_text())["videos"][0]["video_path"]
            tar.add(path, f"annotation/train/{path.name}")
            tar.add(dataset / name, name)
    return name


def plan(port: int, archive: str, clip: str) -> str:
    """The manifests of the job."""
    models = EXAMPLE / "checkpoints"
    address = f"http://planter:{ADDRESS_SECRETS[0]}@127.0.0.1:{port}/{archive}"
    sampling = {
        "numPixelFrames": 17,
        "height": 128,
        "width": 160,
        "fps": 10,
        "steps": 2,
        "guidance": 1,
    }
    changes = {
        "model": {"name": "Tiny", "source": {"path": str(models / "Cosmos-Tiny-Video2World")}},
        "tokenizer": {
            "name": "Tiny-Tokenizer",
            "source": {"path": str(models / "Cosmos-Tiny-Tokenizer-CV8x8x8")},
            "runtime": "TorchScript",
        },
        "embeddings": {"encoder": "T5", "source": {"path": str(models / "Cosmos-Tiny-T5")}},
        "dataset.source": {"url": {"url": f"{address}?X-Amz-Signature={ADDRESS_SECRETS[1]}"}},
        "training.steps": 2,
        "training.overrides": ["trainer.global_batch_size=2", "trainer.micro_batch_size=1"],
        "checkpoints": {"everySteps": 1},
        "compute.processesPerNode": 1,
        "storage": {"verify": "Full"},
        "inference": [
            {
                "name": "after",
                "inputs": [{"prompt": "push the cube", "conditioning": f"dataset://{clip}"}],
                "parameters": {**sampling, "numInputFrames": 1, "negativePrompt": ""},
            }
        ],
    }
    job = make_job(changes)
    return to_yaml(build_manifests(job, plan_stages(job)))


def environment_of(process: StageProcess, root: Path) -> dict[str, str]:
    """The variables of a stage: its own, planted secrets, and folders of its own for what libraries leave."""
    for name in ("home", "temp"):
        (root / name).mkdir(exist_ok=True)
    return {
        **{k: v for k, v in process.environment.items() if not k.startswith("COV_")},
        **ENVIRONMENT_SECRETS,
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "temp"),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "2",
    }


def run_stage(process: StageProcess, root: Path, *overrides: str) -> tuple[int, str]:
    """Exit code and log of a stage; a training runs in this one process, without the launcher."""
    command = list(process.command[process.command.index(process.kind) :])
    if "--nproc-per-node" in command:
        del command[command.index("--nproc-per-node") :][:2]
    command = command[: command.index("--config") + 2] + list(overrides)
    folder = root / "traces" / (process.stage + ("-refused" if overrides else ""))
    folder.mkdir(parents=True)
    ended = run_traced(command, environment_of(process, root), folder)
    return ended.codes[0], ended.log


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The job, with a training whose tracker does not answer and a dataset that is not there before it."""
    root = tmp_path_factory.mktemp("whole")
    files = root / "served"
    files.mkdir()
    clip = pack_clips(files / "clips.tar")
    codes: dict[str, int] = {}
    logs: dict[str, str] = {}
    with served(files) as port:
        manifests = plan(port, "clips.tar", clip)
        documents = list(yaml.safe_load_all(manifests))
        absent = list(yaml.safe_load_all(plan(port, "absent.tar", clip)))
        lost = build_processes(absent, root / "lost")
        prepare = next(one for one in lost if one.kind == "prepare-dataset")
        codes["absent"], logs["absent"] = run_stage(prepare, root)
        (root / "traces" / "prepare-dataset").rename(root / "traces" / "absent")
        for process in build_processes(documents, root / "workspace"):
            if process.kind == "train":
                codes["tracker"], logs["tracker"] = run_stage(
                    process, root, "experiment.trainer.trackers=[mlflow]"
                )
            codes[process.stage], logs[process.stage] = run_stage(process, root)
            assert codes[process.stage] == EXIT_OK, logs[process.stage]
    return Ended(root, codes, logs, manifests)


def test_all_stages_end_and_what_cannot_be_used_is_refused(ended: Ended) -> None:
    refused = {name: code for name, code in ended.codes.items() if code != EXIT_OK}

    assert {"fetch-model", "prepare-dataset", "embed-text", "cache-latents", "check-inputs", "train", "publish",
            "generate-after", "report"} <= ended.codes.keys() - refused.keys()  # fmt: skip
    assert refused.keys() == {"absent", "tracker"}
    assert refused["absent"] == EXIT_USER_ERROR


def test_nothing_is_written_outside_of_the_given_folders(ended: Ended) -> None:
    allowed = [ended.root / name for name in ("workspace", "lost", "temp", "home", "traces")]
    for stage in (ended.root / "traces").iterdir():
        written = read_trace(stage / "trace.txt")
        is_refused = stage.name in ("absent", "train-refused")
        in_workspace = [path for path in written if path.is_relative_to(ended.root / "workspace")]
        assert in_workspace or is_refused, stage.name
        strange = [
            path
            for path in written
            if not any(path.is_relative_to(one) for one in (*allowed, *DEVICES))
        ]
        assert strange == [], stage.name
        assert list((stage / "here").iterdir()) == [], "the current folder is not written to"


def test_tracer_sees_a_write_outside(tmp_path: Path) -> None:
    """The test above can fail: reading a document writes nothing, a stage of a folder outside is seen."""
    document = tmp_path / "stage.yaml"
    outside = tmp_path / "outside"
    config = {"key": "k", "target_uri": str(outside), "artifacts": []}
    document.write_text(yaml.safe_dump(config))
    (tmp_path / "trace").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}

    ended = run_traced(["fetch-model", "--config", str(document)], environment, tmp_path / "trace")

    assert ended.codes == (EXIT_OK,), ended.log
    assert outside in read_trace(tmp_path / "trace" / "trace.txt")


def test_no_log_shows_a_planted_secret(ended: Ended) -> None:
    for stage, log in ended.logs.items():
        assert log, stage
        assert [secret for secret in SECRETS if secret in log] == [], stage


def test_no_file_has_a_planted_secret_but_the_document_with_the_address(ended: Ended) -> None:
    """The worker needs the address of its dataset whole: it stands in the ConfigMap of that stage alone."""
    found = set()
    for folder in ("workspace", "lost", "temp", "home"):
        for path in (ended.root / folder).rglob("*"):
            if path.is_file() and not path.is_symlink():
                content = path.read_bytes()
                found |= {
                    (path.parent.name, path.name, secret)
                    for secret in SECRETS
                    if secret.encode() in content
                }
    in_document = {("prepare-dataset", CONFIG_FILE, secret) for secret in ADDRESS_SECRETS}

    assert found == in_document


def test_termination_messages_of_failures_name_the_address_without_its_secrets(
    ended: Ended,
) -> None:
    message = ended.root / "lost" / "stages" / "prepare-dataset" / "termination.json"
    said = json.loads(message.read_text())["message"]

    assert "http://...@127.0.0.1:" in said
    assert "absent.tar" in said


def test_manifests_have_no_secret_but_the_address_in_one_config_map(ended: Ended) -> None:
    for document in yaml.safe_load_all(ended.manifests):
        text = json.dumps(document)
        present = {secret for secret in SECRETS if secret in text}
        labels = document["metadata"].get("labels", {})
        holds_address = (
            document["kind"] == "ConfigMap" and labels["cosmos.dev/stage"] == "prepare-dataset"
        )
        assert present == (set(ADDRESS_SECRETS) if holds_address else set())


def test_digests_of_what_was_fetched_are_told(ended: Ended) -> None:
    message = ended.root / "workspace" / "stages" / "fetch-model" / "termination.json"
    record = json.loads(message.read_text())

    for one in record["result"]["artifacts"]:
        assert f"{one['kind']} {one['sha256']}" in record["message"]
