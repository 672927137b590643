"""Host memory of a load, in a process of its own: the network's, and no more than one file beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cosmos_worker.checkpoint.convert import convert_weights
from cosmos_worker.checkpoint.safetensors_files import Limits
from cosmos_worker.checkpoint.weights import save_weight_file
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.options import NetConfig

NET = NetConfig(
    model_channels=512,
    num_blocks=6,
    num_heads=8,
    text_channels=64,
    adaln_lora_dim=16,
    max_latent_size=16,
    max_latent_frames=8,
)
SLACK_BYTES = 16 << 20
"""Code of PyTorch that the load is the first to touch, and the allocator's rounding."""

LOAD = """
import sys
from pathlib import Path
import torch
from cosmos_worker.checkpoint import convert, weights
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.options import NetConfig

def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

net = NetConfig.model_validate_json(sys.argv[2])
torch.zeros(4, dtype=torch.bfloat16).float().sum()
before = status("VmRSS:")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
model = weights.load_model(Path(sys.argv[1]), net)
print(status("VmHWM:") - before, sum(value.nbytes for value in model.state_dict().values()))
"""


@pytest.fixture(scope="module")
def bfloat16_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model.pt half as large as the network in float32."""
    model = CosmosModel(NET, extra_pos_emb=True)
    with torch.no_grad():
        model.init_weights(torch.Generator().manual_seed(0))
    path = tmp_path_factory.mktemp("weights") / "model.pt"
    save_weight_file(path, model.state_dict(), torch.bfloat16)
    return path


def load_elsewhere(path: Path) -> tuple[int, int]:
    """Bytes by which a process grows at most while it loads, and bytes of the network."""
    result = subprocess.run(
        [sys.executable, "-c", LOAD, str(path), NET.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    peak, network = result.stdout.split()
    return int(peak), int(network)


@pytest.mark.parametrize("form", ["safetensors", "diffusers"])
def test_shards_are_in_memory_one_at_a_time(bfloat16_file: Path, tmp_path: Path, form: str) -> None:
    limits = Limits(shard_bytes=6 << 20)
    convert_weights(bfloat16_file, tmp_path / form, form, NET, limits)
    sizes = [path.stat().st_size for path in (tmp_path / form).rglob("*.safetensors")]

    peak, network = load_elsewhere(tmp_path / form)

    assert sum(sizes) > network / 2 > max(sizes) + 2 * SLACK_BYTES  # else this would show nothing
    assert peak <= network + max(sizes) + SLACK_BYTES


def test_file_is_mapped_and_never_copied(bfloat16_file: Path) -> None:
    size = bfloat16_file.stat().st_size

    peak, network = load_elsewhere(bfloat16_file)

    assert size > 2 * SLACK_BYTES
    assert peak <= network + size + SLACK_BYTES
