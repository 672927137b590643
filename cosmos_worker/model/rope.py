"""Position embeddings of the transformer: 3D rotary, and learnable absolute.

B batch, T latent frames, H W token rows and columns, L = T*H*W tokens, K head dim, D model dim.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

BASE_FPS = 24.0
BASE_THETA = 10_000.0


def ntk_factor(ratio: float, dim: int) -> float:
    """Factor on theta that stretches the longest wave by ``ratio``: ratio ** (dim / (dim - 2))."""
    return float(ratio ** (dim / (dim - 2)))


class RotaryPositions(nn.Module):
    """Angles of the 3D rotary embedding.

    The head dim is split into time, rows and columns; each part has frequencies theta ** (-2i/dim).
    Time counts in frames of 24 fps. ``seq`` is the buffer that released weight files hold.

    Args:
        head_dim: K, even.
        ratio_t, ratio_h, ratio_w: NTK extrapolation ratios.
        max_positions: largest position per axis.

    Source: cosmos-predict1 VideoRopePosition3DEmb; differs: angles are float32 unless asked otherwise.
    """

    seq: Tensor

    def __init__(
        self, head_dim: int, ratio_t: float, ratio_h: float, ratio_w: float, max_positions: int
    ) -> None:
        super().__init__()
        self.dim_hw = head_dim // 6 * 2
        self.dim_t = head_dim - 2 * self.dim_hw
        self.thetas = (
            BASE_THETA * ntk_factor(ratio_t, self.dim_t),
            BASE_THETA * ntk_factor(ratio_h, self.dim_hw),
            BASE_THETA * ntk_factor(ratio_w, self.dim_hw),
        )
        self.register_buffer("seq", torch.arange(max_positions, dtype=torch.float32))

    def init_positions(self) -> None:
        """Set ``seq`` to 0, 1, 2, ..; released weight files contain it."""
        self.seq.copy_(torch.arange(len(self.seq), dtype=torch.float32))

    def _frequencies(self, theta: float, dim: int, dtype: torch.dtype) -> Tensor:
        exponents = torch.arange(0, dim, 2, dtype=torch.float32, device=self.seq.device) / dim
        powers: Tensor = theta ** exponents.to(dtype)
        return 1.0 / powers

    def forward(
        self, size: tuple[int, int, int], fps_B: Tensor, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Angles, shape (B, L, K/2), float32: time, rows, columns; both halves of a head use the same.

        Args:
            size: (T, H, W) in tokens.
            fps_B: frames per second of each sample, shape (B,), > 0.
            dtype: arithmetic; bfloat16 emulates the reference, whose buffers were cast to it.
        """
        T, H, W = size
        seq = torch.arange(max(size), device=self.seq.device).to(dtype)
        freq_t, freq_h, freq_w = (
            self._frequencies(theta, dim, dtype)
            for theta, dim in zip(self.thetas, (self.dim_t, self.dim_hw, self.dim_hw), strict=True)
        )
        times_BT = seq[None, :T] / fps_B.to(dtype)[:, None] * BASE_FPS
        angles_t = (times_BT[..., None] * freq_t).float()[:, :, None, None, :]
        angles_h = torch.outer(seq[:H], freq_h).float()[None, None, :, None, :]
        angles_w = torch.outer(seq[:W], freq_w).float()[None, None, None, :, :]
        B = fps_B.shape[0]
        parts = [part.expand(B, T, H, W, part.shape[-1]) for part in (angles_t, angles_h, angles_w)]
        return torch.cat(parts, dim=-1).flatten(1, 3)


def rotate(x_BNLK: Tensor, cos_B1Lk: Tensor, sin_B1Lk: Tensor) -> Tensor:
    """Rotate halves: x cos + [-x2, x1] sin, in float32, result in the dtype of x.

    Args:
        x_BNLK: queries or keys.
        cos_B1Lk: of the angles, which both halves of a head share; k = K/2.
        sin_B1Lk: the same.
    """
    x = x_BNLK.float()
    if torch.compiler.is_compiling():  # the compiler fuses all of it
        rotated = torch.cat(_halves(x, cos_B1Lk, sin_B1Lk), dim=-1)
    else:
        rotated = _Rotation.apply(x, cos_B1Lk, sin_B1Lk)
    return rotated.to(x_BNLK.dtype)


def _halves(x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    first, second = x.chunk(2, dim=-1)
    return first * cos - second * sin, second * cos + first * sin


class _Rotation(torch.autograd.Function):
    """The rotation, written half by half into its result; its gradient is the rotation back. Angles have none."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: ANN401 - autograd's
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin, sign=1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401 - autograd's
        cos, sin = ctx.saved_tensors
        return _rotated(grad, cos, sin, sign=-1), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    out = torch.empty_like(x)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=out_first)
    out_first.addcmul_(second, sin, value=-sign)
    torch.mul(second, cos, out=out_second)
    out_second.addcmul_(first, sin, value=sign)
    return out


class LearnablePositions(nn.Module):
    """Absolute position embedding, a sum of three tables scaled to RMS 1 per token.

    Source: cosmos-predict1 LearnablePosEmbAxis (released 7B and 14B Video2World files have it).
    """

    def __init__(
        self, model_channels: int, max_frames: int, max_rows: int, max_columns: int
    ) -> None:
        super().__init__()
        self.pos_emb_h = nn.Parameter(torch.empty(max_rows, model_channels))
        self.pos_emb_w = nn.Parameter(torch.empty(max_columns, model_channels))
        self.pos_emb_t = nn.Parameter(torch.empty(max_frames, model_channels))

    def forward(self, size: tuple[int, int, int]) -> Tensor:
        """Embedding of the first (T, H, W) positions, shape (1, L, D)."""
        T, H, W = size
        sum_THWD = (
            self.pos_emb_t[:T, None, None, :]
            + self.pos_emb_h[None, :H, None, :]
            + self.pos_emb_w[None, None, :W, :]
        )
        norm = torch.linalg.vector_norm(sum_THWD, dim=-1, keepdim=True, dtype=torch.float32)
        norm = 1e-6 + norm / sum_THWD.shape[-1] ** 0.5
        return (sum_THWD / norm.to(sum_THWD.dtype)).flatten(0, 2)[None]
