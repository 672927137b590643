"""A tokenizer folder as NVIDIA releases them, small enough for tests: TorchScript and mean_std.pt."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

CELL = 8
CHANNELS = 16
TIME_SLOTS = 16


def cosine_basis() -> Tensor:
    """16 orthonormal patterns of an 8x8x8 cell of three colours, (16, 3, 8, 8, 8)."""
    steps = (torch.arange(CELL) + 0.5) * math.pi / CELL
    waves = [torch.ones(CELL) / CELL**0.5, torch.cos(steps) * (2 / CELL) ** 0.5]
    orders = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]
    cells = [torch.einsum("t,h,w->thw", *(waves[i] for i in order)) for order in orders]
    cells.append(torch.einsum("t,h,w->thw", waves[0], waves[1], waves[1]))
    patterns = [
        torch.eye(3)[colour][:, None, None, None] * cell for cell in cells for colour in range(3)
    ]
    patterns.append(torch.full((3, 1, 1, 1), 3**-0.5) * torch.einsum("t,h,w->thw", *[waves[1]] * 3))
    return torch.stack(patterns)


class Encoder(nn.Module):
    """Projection of cells onto the patterns; the first frame fills a cell of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(cosine_basis() / CELL**1.5)

    def forward(self, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        front = video[:, :, :1].expand(-1, -1, 7, -1, -1)
        latent = nn.functional.conv3d(torch.cat([front, video], 2), self.weight, stride=8)
        return latent, torch.zeros(1), torch.zeros(1)


class Decoder(nn.Module):
    """The patterns' sum; exact on videos that are constant in each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(cosine_basis() * CELL**1.5)

    def forward(self, latent: Tensor) -> Tensor:
        return nn.functional.conv_transpose3d(latent, self.weight, stride=8)[:, :, 7:]


def tiny_mean_std() -> tuple[Tensor, Tensor]:
    """Statistics that differ in every channel and latent frame, 256 values each."""
    values = torch.arange(CHANNELS * TIME_SLOTS, dtype=torch.float32)
    return 0.1 * torch.sin(values), 0.6 + 0.3 * torch.cos(values)


@contextmanager
def torchscript_allowed() -> Iterator[None]:
    """Silence PyTorch's deprecation warning of TorchScript, the form that NVIDIA releases."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.\w+` is (deprecated|not supported)")
        yield


def write_script(module: nn.Module, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a module as TorchScript."""
    with torchscript_allowed():
        torch.jit.save(torch.jit.script(module.to(dtype).eval()), path)


def write_tiny_tokenizer(folder: Path, dtype: torch.dtype = torch.float32) -> Path:
    """Write encoder.jit, decoder.jit and mean_std.pt: causal, 8x8x8, 16 channels; the type is that of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    write_script(Encoder(), folder / "encoder.jit", dtype)
    write_script(Decoder(), folder / "decoder.jit", dtype)
    mean, std = tiny_mean_std()
    torch.save((mean.to(dtype), std.to(dtype)), folder / "mean_std.pt")
    return folder
