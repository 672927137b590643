"""Host memory of a load that is spread over processes: each holds its share, and no more than one file beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from support.programs import run_program
from support.training import SMALL_NET, small_experiment

from cosmos_worker.config.network import NetConfig
from cosmos_worker.config.training import ParallelConfig
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.load import save_weight_file
from cosmos_worker.weights.safetensors import Limits

PROCESSES = 2
FORMS = ("pt", "diffusers")
"""One file, and safetensors in shards; all forms are measured with one process."""
LARGE = SMALL_NET.model_copy(update={"model_channels": 512, "num_blocks": 6})
SLACK_BYTES = 8 << 20
"""Bytes for rounding of the allocator, buffers of collectives, and code that the load is the first to touch."""
pytestmark = [pytest.mark.multiproc, pytest.mark.timeout(300)]

LOADS = """
import ctypes, gc, json, os, sys
from pathlib import Path
import torch
from cosmos_worker.model.dtensor import local_part
from cosmos_worker.config.experiment import (Experiment)
from cosmos_worker.stages.train import build_model
from cosmos_worker.runtime.process_group import join_processes
from cosmos_worker.train.parallelize import share_frames

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

with join_processes("cpu", 1) as processes:
    for path, document in json.loads(sys.argv[1]):
        experiment = Experiment.model_validate(document)
        share_frames(experiment, processes)
        processes.barrier()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # so that memory freed by the previous load is not reused unmeasured
        before = status("VmRSS:")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        model = build_model(experiment, Path(path), processes)
        tensors = model.state_dict().values()
        print(json.dumps({
            "peak": status("VmHWM:") - before,
            "share": sum(local_part(tensor).nbytes for tensor in tensors),
            "network": sum(tensor.nbytes for tensor in tensors),
        }))
        processes.barrier()
        del model, tensors
sys.stdout.flush()
os._exit(0)  # all is measured; unloading PyTorch's threads now and then aborts
"""


@dataclass(frozen=True)
class Load:
    """Memory of one process after a load, and its peak, in bytes."""

    peak: int
    share: int
    network: int


def write_forms(folder: Path, net: NetConfig) -> None:
    """The same bfloat16 weights in each form; those of safetensors in shards of 6 MiB."""
    model = CosmosModel(net, extra_pos_emb=True)
    with torch.no_grad():
        model.init_weights(torch.Generator().manual_seed(0))
    save_weight_file(folder / "model.pt", model.state_dict(), torch.bfloat16)
    for form in FORMS:
        convert_weights(folder / "model.pt", folder / form, form, net, Limits(shard_bytes=6 << 20))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a small and a large network."""
    folders = tmp_path_factory.mktemp("small"), tmp_path_factory.mktemp("large")
    write_forms(folders[0], SMALL_NET)
    write_forms(folders[1], LARGE)
    return folders


def load(weights: tuple[Path, Path], form: str, sharding: str) -> list[Load]:
    """The load of the large network after that of the small one, which brings code into memory."""
    plain = small_experiment(parallel=ParallelConfig(sharding=sharding))
    todo = [
        (str(folder / form), plain.model_copy(update={"net": net}).model_dump(mode="json"))
        for folder, net in zip(weights, (SMALL_NET, LARGE), strict=True)
    ]
    results = run_program(LOADS, PROCESSES, json.dumps(todo))
    for ended in results:
        assert ended.code == 0, ended.errors
    return [Load(**json.loads(ended.output.splitlines()[-1])) for ended in results]


def limit(weights: tuple[Path, Path], form: str, share: int) -> int:
    """A process's share, one file, and the slack."""
    files = [path for path in (weights[1] / form).rglob("*") if path.suffix != ".json"]
    return share + max(path.stat().st_size for path in files) + SLACK_BYTES


@pytest.mark.parametrize("form", FORMS)
def test_each_process_holds_its_share_and_one_file(weights: tuple[Path, Path], form: str) -> None:
    for one in load(weights, form, "full"):
        assert one.share < 0.55 * one.network
        assert one.peak >= one.share - SLACK_BYTES  # else nothing was measured
        assert one.peak <= limit(weights, form, one.share)


def test_a_process_with_the_whole_network_would_exceed_the_limit(
    weights: tuple[Path, Path],
) -> None:
    for one in load(weights, "pt", "none"):
        assert one.peak > limit(weights, "pt", one.share // PROCESSES)
