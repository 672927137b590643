"""Host memory of a load, in a process of its own: the network's, and no more than one file beside it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from cosmos_worker.config.network import NetConfig
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.load import save_weight_file
from cosmos_worker.weights.safetensors import Limits

FORMS = ("pt", "safetensors", "diffusers")
SMALL = NetConfig(
    model_channels=32,
    num_blocks=1,
    num_heads=2,
    text_channels=16,
    adaln_lora_dim=8,
    max_latent_size=16,
    max_latent_frames=8,
)
LARGE = SMALL.model_copy(update={"model_channels": 512, "num_blocks": 6})
SLACK_BYTES = 8 << 20
"""Bytes for rounding of the allocator, and for code that the load is the first to touch."""

LOADS = """
import ctypes, gc, json, sys
from pathlib import Path
from cosmos_worker.weights.load import load_model
from cosmos_worker.config.network import (NetConfig)

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

for path, document in json.loads(sys.argv[1]):
    net = NetConfig.model_validate(document)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # so that memory freed by the previous load is not reused unmeasured
    before = status("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    model = load_model(Path(path), net)
    print(status("VmHWM:") - before, sum(value.nbytes for value in model.state_dict().values()))
    del model
"""


@dataclass(frozen=True)
class Load:
    """Memory of a load, in bytes."""

    peak: int
    """Growth of the process at most."""
    network: int
    files: list[int]


def write_forms(folder: Path, net: NetConfig) -> list[Path]:
    """The same bfloat16 weights in each form; those of safetensors in shards of 6 MiB."""
    model = CosmosModel(net, extra_pos_emb=True)
    with torch.no_grad():
        model.init_weights(torch.Generator().manual_seed(0))
    source = folder / "model.pt"
    save_weight_file(source, model.state_dict(), torch.bfloat16)
    for form in FORMS:
        convert_weights(source, folder / form, form, net, Limits(shard_bytes=6 << 20))
    return [folder / form for form in FORMS]


@pytest.fixture(scope="module")
def loads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Load]:
    """A load of each form in a process of its own, which would otherwise reuse what the one before gave back."""
    small, large = (
        write_forms(tmp_path_factory.mktemp(name), net)
        for name, net in (("small", SMALL), ("large", LARGE))
    )
    return {path.name: measure(first, path) for first, path in zip(small, large, strict=True)}


def measure(small: Path, large: Path) -> Load:
    """The load of a network, after that of a small one, which brings PyTorch's code into memory."""
    todo = [
        (str(path), net.model_dump(mode="json")) for path, net in ((small, SMALL), (large, LARGE))
    ]
    command = [sys.executable, "-c", LOADS, json.dumps(todo)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    peak, network = (int(word) for word in result.stdout.splitlines()[-1].split())
    weights = [path for path in large.rglob("*") if path.suffix in (".pt", ".safetensors")]
    return Load(peak, network, [path.stat().st_size for path in weights])


@pytest.mark.parametrize("form", FORMS)
def test_load_holds_the_network_and_one_file(loads: dict[str, Load], form: str) -> None:
    load = loads[form]

    assert load.peak >= load.network - SLACK_BYTES  # else nothing was measured
    assert load.peak <= load.network + max(load.files) + SLACK_BYTES


@pytest.mark.parametrize("form", ["safetensors", "diffusers"])
def test_load_would_exceed_its_limit_with_all_shards_in_memory(
    loads: dict[str, Load], form: str
) -> None:
    files = loads[form].files

    assert sum(files) > max(files) + 3 * SLACK_BYTES
