"""cosmos-worker without the work: reads its document, says what the worker says, ends as it ends.

What a stage needs must be on the (virtual) disks, and what it makes is there afterwards, so that an operator that
starts stages too early, twice or in parallel is found out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import yaml

from cosmos_worker.config.document_version import HINTS_FILE, with_hints, without_version
from support.fakekube.process import Process, Stop
from support.fakekube.resources import Object
from support.fakekube.simulated_training import train

STAGE_UNITS = 4
FILES = {
    "model": ("model.pt",),
    "tokenizer": ("encoder.jit", "decoder.jit", "mean_std.pt"),
    "text_encoder": ("config.json", "model.safetensors"),
    "guardrails": ("video_content_safety_filter/safety_filter.pt",),
    "guardrails_with_face_blur": (
        "video_content_safety_filter/safety_filter.pt",
        "face_blur_filter/Resnet50_Final.pth",
    ),
    "text_classifier": ("config.json", "model.safetensors"),
    "image_encoder": ("config.json", "model.safetensors"),
    "prompt_upsampler": ("config.json", "model.safetensors"),
}
UNITS = {"fetch-model": "files", "prepare-dataset": "clips", "embed-text": "captions",
         "cache-latents": "windows", "generate": "steps"}  # fmt: skip


async def run_container(process: Process) -> None:
    """Run what a container's command says; one of Python's waits for its end, others succeed at once."""
    if process.command[:1] == ["cosmos-worker"]:
        files, kind = process.files.config_files(), process.command[1]
        document = without_version(yaml.safe_load(files["stage.yaml"]), "/etc/cosmos/stage.yaml")
        hints = yaml.safe_load(files.get(HINTS_FILE, "{}"))
        await _run_stage(process, kind, with_hints(kind, document, hints))
    elif process.command[:1] == ["python3"]:  # waits for commands, as the pod that gives files away
        await process.stop.wait()


async def _run_stage(process: Process, kind: str, document: Object) -> None:
    """Run one stage; it always ends by Stop."""
    files, target = process.files, document["target_uri"]
    marker = f"{target}/complete-{document['key']}.json"
    done = files.read(marker)
    if done is not None:
        process.say(
            "stages.run_stage",
            f"{kind} already done key={document['key']} folder={files.path(target)}",
        )
        raise Stop(0, "Succeeded", f"{kind} was already done", result=done["result"])
    started = time.monotonic()
    if document.get("published_uri") is not None:
        _check_name(process, document["published_uri"], document["job"])
    if kind == "train":
        result = await train(process, document)
    else:
        result = await _other(process, kind, document)
    if process.rank == 0:
        files.write(marker, {"stage": kind, "result": result})
    seconds = time.monotonic() - started
    process.say(
        "stages.run_stage", f"{kind} done seconds={seconds:.1f} result={json.dumps(result)}"
    )
    raise Stop(0, "Succeeded", f"{kind} done in {seconds:.1f} s", result=result)


async def _other(process: Process, kind: str, document: Object) -> Object:
    stage = kind.replace("-", "_")
    STAGES[kind][0](process, document)
    for unit in range(1, STAGE_UNITS + 1):
        await process.check_fault(unit - 1)
        waiting = asyncio.ensure_future(process.stop.wait())
        finished, _ = await asyncio.wait(
            {waiting}, timeout=process.world.timing.stage_s / STAGE_UNITS
        )
        waiting.cancel()
        if finished:
            text = f"{kind} was stopped by SIGTERM; the same command continues with what is there"
            raise Stop(75, "Stopped", text)
        name = UNITS.get(kind, "files")
        process.say(f"stages.{stage}", f"{kind} {name}={unit}/{STAGE_UNITS} per_s=9.0 eta_s=0")
    await process.check_fault(STAGE_UNITS)
    return STAGES[kind][1](process, document)


def _need(**needs: str) -> Callable[[Process, Object], None]:
    """A check that what these fields of the document name is there; the value is the reason otherwise."""

    def check(process: Process, document: Object) -> None:
        for name, reason in needs.items():
            if document[name] is not None:
                process.files.need(document[name], reason)

    return check


def _fetched(process: Process, document: Object) -> Object:
    for artifact in document["artifacts"]:
        for name in FILES[artifact["kind"]]:
            process.files.write(f"{artifact['target_uri']}/{name}", artifact["name"])
    return {"artifacts": [{"name": a["name"], "kind": a["kind"]} for a in document["artifacts"]]}


def _prepared(process: Process, document: Object) -> Object:
    process.files.write(f"{document['target_uri']}/index.jsonl", "index")
    return {"clips": 8, "windows": 32, "captions": 4}


def _embedded(process: Process, document: Object) -> Object:
    store = f"{document['target_uri']}/captions.json"
    known = process.files.read(store) or []
    wanted = sorted({document["dataset_uri"], *document["extra_captions"]})
    missing = [text for text in wanted if text not in known]
    process.files.write(store, sorted([*known, *missing]))
    return {"captions": len(wanted), "computed": len(missing), "reused": len(wanted) - len(missing)}


def _cached(process: Process, document: Object) -> Object:
    process.files.write(f"{document['target_uri']}/latents.safetensors", "latents")
    return {"windows": 32, "encoded": 32, "reused": 0}


def _checked(process: Process, document: Object) -> Object:
    counts = {item["name"]: len(item["inputs"]) or 2 for item in document["items"]}
    return {"inputs": counts, "notes": {}}


def _check_name(process: Process, target: str, job: str) -> None:
    """Check that no other job has published in a folder."""
    description = process.files.read(f"{target}/model.json")
    if description is not None and description["job"] != job:
        path = process.files.path(f"{target}/model.pt")
        text = f"{path}: belongs to {description['job']}, not to {job}; choose another outputs.name"
        raise Stop(2, "CheckpointError", text)


def _published(process: Process, document: Object) -> Object:
    files, target = process.files, document["target_uri"]
    _check_name(process, target, document["job"])
    step = files.read(f"{document['run_uri']}/latest")
    files.write(f"{target}/model.pt", document["run_uri"])
    files.write(f"{target}/model.json", {"job": document["job"], "step": step})
    return {"model": files.path(f"{target}/model.pt"), "step": step, "weights": document["weights"]}


def _generated(process: Process, document: Object) -> Object:
    count = len(document["inputs"]) or 2
    for number in range(count):
        process.files.write(
            f"{document['target_uri']}/{number:03d}.mp4", document["checkpoint_uri"]
        )
    return {"item": document["name"], "kept": 0, "videos": count, "seconds": 1.0}


def _reported(process: Process, document: Object) -> Object:
    process.files.write(f"{document['target_uri']}/report.html", document["job_name"])
    return {"report": process.files.path(f"{document['target_uri']}/report.html")}


STAGES: dict[str, tuple[Callable[[Process, Object], None], Callable[[Process, Object], Object]]] = {
    "fetch-model": (_need(), _fetched),
    "prepare-dataset": (_need(), _prepared),
    "embed-text": (_need(dataset_uri="DataError", encoder_uri="CheckpointError"), _embedded),
    "cache-latents": (_need(dataset_uri="DataError", tokenizer_uri="CheckpointError"), _cached),
    "check-inputs": (_need(), _checked),
    "publish": (_need(run_uri="CheckpointError"), _published),
    "generate": (
        _need(
            checkpoint_uri="CheckpointError",
            tokenizer_uri="CheckpointError",
            encoder_uri="CheckpointError",
        ),
        _generated,
    ),
    "report": (_need(run_uri="CheckpointError", dataset_uri="DataError"), _reported),
}
"""Stage → what it needs, and what it makes."""
