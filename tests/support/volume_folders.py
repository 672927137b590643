"""Folders of the volumes as jobs leave them: what a living job uses, what no job uses, and results."""

import os
import time
from pathlib import Path

from cosmos_operator.api.parse import parse_job
from cosmos_operator.plan.stages import plan_stages
from cosmos_worker.storage.volumes import VOLUMES, Volumes

OLD = time.time() - 30 * 86400
KEY = "0123456789ab"
UNUSED = (
    f"datasets/old-{KEY}",
    f"embeddings/latents-{KEY}",
    f"embeddings/text-t5-{KEY}",
    f"models/old-{KEY}",
)
RESULTS = (f"checkpoints/gone-{KEY}", "checkpoints/model-of-gone", "models/by-hand")


def make_volumes(folder):
    """Empty volumes in a folder."""
    roots = {name: folder / name for name in VOLUMES}
    for root in roots.values():
        root.mkdir(parents=True)
    return Volumes(roots)


def write(volumes, address, text="x" * 5000):
    volume, _, name = address.partition("/")
    path = volumes.roots[volume] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def make_old(volumes):
    for root in volumes.roots.values():
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                os.utime(Path(folder, name), (OLD, OLD), follow_symlinks=False)


def fill(volumes, documents=()):
    """What the stages of jobs leave, and what those of a deleted job have left; all of it is old."""
    for document in documents:
        for stage in plan_stages(parse_job(document)):
            address = stage.document.target_uri.replace("://", "/")
            write(volumes, f"{address}/complete-{stage.key}.json")
            for one in getattr(stage.document, "artifacts", ()):
                write(volumes, f"{one.target_uri.replace('://', '/')}/fetched-{one.kind}.json")
            if stage.kind == "prepare-dataset":
                write(volumes, f"{stage.document.data_uri.replace('://', '/')}/a.mp4")
    write(volumes, f"datasets/old-{KEY}/data/a.mp4")
    write(volumes, f"datasets/old-{KEY}/index-{KEY}/index.jsonl")
    write(volumes, f"embeddings/latents-{KEY}/shard.safetensors")
    write(volumes, f"embeddings/text-t5-{KEY}/shard.safetensors")
    write(volumes, f"models/old-{KEY}/fetched-model.json")
    write(volumes, f"checkpoints/gone-{KEY}/p/g/n/config.yaml")
    write(volumes, "checkpoints/model-of-gone/model.json")
    write(volumes, "models/by-hand/model.pt")
    make_old(volumes)


def files(volumes):
    return {
        path.relative_to(root.parent).as_posix()
        for root in volumes.roots.values()
        for path in root.rglob("*")
        if path.is_file()
    }


def unused(lines):
    return tuple(line.split()[3] for line in lines if line.startswith("unused"))
