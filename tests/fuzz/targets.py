"""What is fuzzed: for each, valid examples, a way to change them, and the code that reads them."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from support.jobs import INFERENCE_DOCUMENT, make_document

from cosmos_worker.errors import WorkerError
from fuzz.mutate import mutate_bytes, mutate_text, mutate_value

CORPUS = Path(__file__).parent / "corpus"
ACCEPTED = "accepted"


ACCEPTED_BEFORE = {
    "type": "Accepted", "status": "True", "reason": "Valid", "lastTransitionTime": "2026-01-31T12:00:00Z",
}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader and its examples."""

    name: str
    examples: Callable[[Path], list[Any]]
    """Valid inputs; the folder is for making them."""
    mutate: Callable[[Any, random.Random], Any]
    attempt: Callable[[Any, Path], str]
    """Tries an input, see ``limits.Try``."""
    weight: int = 1  # share of the time

    def inputs(self, folder: Path, seed: int, number: int) -> list[Any]:
        """Examples, kept cases of the corpus, and mutations of both; the same for the same seed."""
        rng = random.Random(f"{self.name} {seed}")
        found = self.examples(folder)
        if found and isinstance(found[0], bytes):
            found += [path.read_bytes() for path in sorted((CORPUS / self.name).glob("*"))]
        made = [self.mutate(rng.choice(found), rng) for _ in range(max(0, number - len(found)))]
        return [*found, *made][:number] if number >= len(found) else [*made, *found[:number]]


def reading(read: Callable[[Path], Any], name: str) -> Callable[[bytes, Path], str]:
    """An attempt that reads a file of this content and name."""

    def attempt(content: bytes, folder: Path) -> str:
        path = emptied(folder) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return answer(lambda: read(path))

    return attempt


def emptied(folder: Path) -> Path:
    """A new, empty folder."""
    target = folder / "input"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    return target


def answer(action: Callable[[], Any]) -> str:
    """``accepted``, or the message of an expected error."""
    from cosmos_operator.errors import OperatorError

    try:
        action()
    except WorkerError as error:
        return str(error).replace("\n", " ")
    except OperatorError as error:
        return "; ".join(str(error).splitlines())[:4000] or "no words"
    return ACCEPTED


# --- jobs ------------------------------------------------------------------------------------


def _jobs(_: Path) -> list[Any]:
    hub = make_document({"model": {"name": "Cosmos-Predict1-7B-Video2World"}, "compute.nodes": 2})
    pods = make_document(
        {
            "podTemplate": {
                "spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "worker"}]}
            },
            "training.overrides": ["trainer.global_batch_size=8", "trainer.micro_batch_size=4"],
            "storage": {"models": {"claimName": "a", "create": {"size": "10Gi"}}},
        }
    )
    return [make_document(), hub, pods]


def plan(document: Any, folder: Path) -> str:
    """Plan a PostTrainingJob, as the operator's planning process does."""
    from cosmos_operator.plan.inference_plan import ModelSource, plan_inference_job
    from cosmos_operator.plan.job_plan import plan_job

    if not isinstance(document, dict):
        return "not an object, so that no API server has it"
    status = {"conditions": [ACCEPTED_BEFORE]} if len(json.dumps(document)) % 2 else {}
    metadata = {"name": "fuzzed", "namespace": "lab", "uid": "1"}
    document = {**document, "metadata": metadata, "status": status}
    is_sampling = document.get("kind") == "InferenceJob"
    found = plan_inference_job(document, ModelSource()) if is_sampling else plan_job(document)
    if found.problems:
        for line in found.problems:
            assert line.strip(), "a problem without words"
            assert "\n" not in line, f"a problem of several lines: {line!r}"
        return "; ".join(found.problems)[:4000]
    assert found.stages or found.obstacle, "neither stages nor a reason"
    if found.job is not None and found.stages:
        from cosmos_operator.plan.render import build_manifests, to_yaml

        to_yaml(build_manifests(found.job, found.stages))
    return ACCEPTED


def load_file(path: Path) -> None:
    """Read a job file, as cosmos validate does."""
    from cosmos_operator.api.parse import load_file as load

    load(path)


def override(text: str, folder: Path) -> str:
    """Apply one override to an experiment."""
    from cosmos_worker.config.overrides import apply_overrides
    from cosmos_worker.config.presets import get_experiment

    experiment = get_experiment("video2world_instruction_push_tiny")
    return answer(lambda: apply_overrides(experiment, [text]))


OVERRIDES = [
    "trainer.global_batch_size=8", "optimizer.lr=1e-4", "video.fps=null", "net.model_channels=128", "lora.enabled=true",
    "buckets=[{height: 128, width: 160, num_pixel_frames: 17}]", "trainer.precision='bfloat16'", "parallel={}",
]  # fmt: skip


# --- texts of datasets -------------------------------------------------------------------------


def _annotations(_: Path) -> list[Any]:
    from support.clips import annotation

    return [json.dumps(annotation("one")).encode()]


def json_bytes(content: bytes, rng: random.Random) -> bytes:
    """Changes of a JSON value, or of its bytes."""
    if rng.random() < 0.5:
        return mutate_bytes(content, rng)
    try:
        value = json.loads(content)
    except ValueError:
        return mutate_bytes(content, rng)
    changed = mutate_value(value, rng) if isinstance(value, dict | list) else value
    return json.dumps(changed).encode()


def read_annotation(path: Path) -> None:
    """Read a Bridge annotation."""
    from cosmos_worker.data.layouts.bridge import read_annotation as read

    read(path.parent, path, "train", 0)


def read_jsonl(path: Path) -> None:
    """Read a list of clips."""
    from cosmos_worker.data.layouts.jsonl import list_jsonl

    list_jsonl(path.parent)


def read_caption(path: Path) -> None:
    """Read the caption of a clip."""
    from cosmos_worker.data.layouts.videos import read_folder_caption

    read_folder_caption(path.parent, path.name)


def read_inputs(path: Path) -> None:
    """Read the inputs of an inference item."""
    from cosmos_worker.sample.inputs import read_inputs_file

    read_inputs_file(path, 0, path.parent)


def termination(content: bytes, folder: Path) -> str:
    """Read a termination message in the operator; anything may stand there, and nothing may raise."""
    from cosmos_operator.kube.termination import read_message, shown

    text = content.decode(errors="replace")
    said = read_message(text)
    shown(text)
    return ACCEPTED if said is not None else "not a message of a worker"


# --- binary files ------------------------------------------------------------------------------


def _archives(_: Path) -> list[Any]:
    found = []
    for mode in ("w", "w:gz", "w:bz2", "w:xz"):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as archive:
            for name, content in (("a/clip.txt", b"push"), ("a/b.json", b"{}" * 400)):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        found.append(buffer.getvalue())
    return found


def extract(path: Path) -> None:
    """Extract an archive, and see that nothing is written beside the folder."""
    from cosmos_worker.sources.archive import extract_file

    target = path.parent / "out"
    target.mkdir()
    try:
        extract_file(path, target, "archive")
    finally:
        beside = {one.name for one in path.parent.iterdir()} - {"out", path.name}
        assert not beside, f"written outside of the folder: {beside}"
        links = [one for one in target.rglob("*") if one.is_symlink()]
        assert not links, f"links were made: {links}"


def _videos(folder: Path) -> list[Any]:
    from support.clips import write_clip

    path = folder / "example.mp4"
    write_clip(path)
    return [path.read_bytes()]


def check_video(path: Path) -> None:
    """Check a video by decoding it."""
    from cosmos_worker.data.check import check_video as check
    from cosmos_worker.data.journal import Journal

    with Journal(path.parent / "journal") as journal:
        check(path.parent, path.name, journal)


def _images(_: Path) -> list[Any]:
    import numpy as np
    from PIL import Image

    picture = Image.fromarray(np.arange(48 * 32 * 3, dtype=np.uint8).reshape(32, 48, 3))
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"):
        buffer = io.BytesIO()
        picture.save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def read_image(path: Path) -> None:
    """Read a conditioning image."""
    from cosmos_worker.sample.images import read_image as read

    read(path)


def _weights(folder: Path) -> list[Any]:
    import torch
    from safetensors.torch import save_file

    state = {"net.a.weight": torch.ones(4, 3), "net.b.bias": torch.zeros(3, dtype=torch.bfloat16)}
    save_file(state, folder / "example.safetensors")
    found = [(folder / "example.safetensors").read_bytes()]
    for content in (state, {"model": state, "ema": state, "step": 3}):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        found.append(buffer.getvalue())
    return found


def read_weights(path: Path) -> None:
    """Read every tensor of a weight file."""
    from cosmos_worker.weights.tensor_files import open_tensors

    tensors = open_tensors(path)
    for name in tensors:
        assert tensors[name] is not None


def _pickles(folder: Path) -> list[Any]:
    import numpy as np

    from cosmos_worker.text.reference_pickles import write_pickle

    path = folder / "example.pickle"
    write_pickle(path, np.zeros((4, 8), np.float16))
    hostile = [pickle.dumps([{"a": 1}] * 20), b"cos\nsystem\n(S'touch ran'\ntR."]
    return [path.read_bytes(), *hostile]


def read_pickle(path: Path) -> None:
    """Read an embedding in the reference's form; no code of it may run."""
    from cosmos_worker.text.reference_pickles import read_pickle as read

    try:
        read(path)
    finally:
        assert not Path("ran").exists(), "code of the pickle ran"


def texts(*found: bytes) -> Callable[[Path], list[Any]]:
    """Examples that need no folder."""
    return lambda _: list(found)


LIST = b'{"video": "a.mp4", "caption": "push"}\n{"video": "b.mp4", "caption": ["x", "y"], "split": "val"}\n'
INPUTS = b'{"visual_input": "a.png", "prompt": "push"}\n{"visual_input": "b.mp4", "prompt": "x", "id": "i"}\n'
SAID = b'{"reason": "Succeeded", "message": "done", "step": 20, "result": {"loss": 0.5}, "lines": ["a"]}'

TARGETS = {
    target.name: target
    for target in (
        Target("jobs", _jobs, mutate_value, plan, 4),
        Target("inference-jobs", lambda _: [INFERENCE_DOCUMENT], mutate_value, plan, 2),
        Target("job-files", lambda _: [yaml.safe_dump(one).encode() for one in _jobs(_)], mutate_bytes,
               reading(load_file, "job.yaml"), 2),
        Target("overrides", lambda _: list(OVERRIDES), mutate_text, override),
        Target("annotations", _annotations, json_bytes, reading(read_annotation, "annotation.json")),
        Target("jsonl", texts(LIST), mutate_bytes, reading(read_jsonl, "train.jsonl")),
        Target("captions", texts(b"push the red cube left", "größer".encode("utf-16")), mutate_bytes,
               reading(read_caption, "clip.txt")),
        Target("inputs", texts(INPUTS), mutate_bytes, reading(read_inputs, "inputs.jsonl")),
        Target("termination", texts(SAID), json_bytes, termination),
        Target("archives", _archives, mutate_bytes, reading(extract, "archive.tar")),
        Target("videos", _videos, mutate_bytes, reading(check_video, "clip.mp4"), 2),
        Target("images", _images, mutate_bytes, reading(read_image, "start.png")),
        Target("weights", _weights, mutate_bytes, reading(read_weights, "model.pt")),
        Target("pickles", _pickles, mutate_bytes, reading(read_pickle, "t5.pickle")),
    )
}  # fmt: skip
