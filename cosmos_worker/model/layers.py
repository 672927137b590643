"""Layers of the transformer. Attribute names are those of NVIDIA's weight files, so state dicts need no renaming.

B batch, L tokens, S text tokens, D model dim, N heads, K head dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist

from cosmos_worker.model.context_parallel import gather
from cosmos_worker.model.rope import rotate

NORM_EPS = 1e-6
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def rms_norm(norm: nn.RMSNorm, x: Tensor) -> Tensor:
    """RMS norm computed in float32; any dtype of input and weight."""
    return F.rms_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.eps)


class Attention(nn.Module):
    """Multi-head attention with RMS-normalised queries and keys, without biases, mask or dropout.

    Args:
        model_channels: D.
        context_channels: width of keys and values before projection (D for self-attention).
        num_heads: N.

    With a ``context_group``, keys and values are gathered from all its processes. ``attend`` is the kernel:
    q (B, N, L, K), k and v (B, N, S, K) → (B, N, L, K).
    """

    def __init__(self, model_channels: int, context_channels: int, num_heads: int) -> None:
        super().__init__()
        head_dim = model_channels // num_heads
        self.num_heads = num_heads
        self.context_group: dist.ProcessGroup | None = None
        self.attend: Attend = F.scaled_dot_product_attention
        self.to_q = nn.Sequential(
            nn.Linear(model_channels, model_channels, bias=False),
            nn.RMSNorm(head_dim, eps=NORM_EPS),
        )
        self.to_k = nn.Sequential(
            nn.Linear(context_channels, model_channels, bias=False),
            nn.RMSNorm(head_dim, eps=NORM_EPS),
        )
        self.to_v = nn.Sequential(nn.Linear(context_channels, model_channels, bias=False))
        self.to_out = nn.Sequential(nn.Linear(model_channels, model_channels, bias=False))

    def forward(
        self, x_BLD: Tensor, context_BSD: Tensor, rotation: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Attend from x to context; ``rotation`` = (cos, sin), each (B, 1, L, K/2), turns q and k."""

        def heads(projection: nn.Sequential, source: Tensor) -> Tensor:
            split = projection[0](source).unflatten(-1, (self.num_heads, -1))
            for norm in projection[1:]:
                assert isinstance(norm, nn.RMSNorm)
                split = rms_norm(norm, split)
            return split.transpose(1, 2)

        q_BNLK, k_BNSK = heads(self.to_q, x_BLD), heads(self.to_k, context_BSD)
        v_BNSK = heads(self.to_v, context_BSD)
        if rotation is not None:
            q_BNLK, k_BNSK = rotate(q_BNLK, *rotation), rotate(k_BNSK, *rotation)
        k_BNSK = k_BNSK.to(v_BNSK.dtype)
        if self.context_group is not None:
            k_BNSK, v_BNSK = (gather(one, 2, self.context_group) for one in (k_BNSK, v_BNSK))
        out_BNLK = self.attend(q_BNLK.to(v_BNSK.dtype), k_BNSK, v_BNSK)
        out: Tensor = self.to_out(out_BNLK.transpose(1, 2).flatten(2))
        return out


class AttentionBlock(nn.Module):
    """Container that gives attention its name in weight files, ``block.attn``."""

    def __init__(self, model_channels: int, context_channels: int, num_heads: int) -> None:
        super().__init__()
        self.attn = Attention(model_channels, context_channels, num_heads)


class FeedForward(nn.Module):
    """Linear, exact GELU, Linear, without biases."""

    def __init__(self, model_channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.layer1 = nn.Linear(model_channels, hidden_channels, bias=False)
        self.layer2 = nn.Linear(hidden_channels, model_channels, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) → (B, L, D)."""
        out: Tensor = self.layer2(F.gelu(self.layer1(x_BLD)))
        return out


def adaln_modulation(model_channels: int, lora_dim: int, num_outputs: int) -> nn.Sequential:
    """SiLU and two linear layers of low rank; weights are entries 1 and 2."""
    return nn.Sequential(
        nn.SiLU(),
        nn.Linear(model_channels, lora_dim, bias=False),
        nn.Linear(lora_dim, num_outputs * model_channels, bias=False),
    )


def modulate(x_BLD: Tensor, shift_BD: Tensor, scale_BD: Tensor) -> Tensor:
    """LayerNorm without weights, then x (1 + scale) + shift."""
    normed = F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=NORM_EPS)
    return torch.addcmul(shift_BD[:, None], normed, 1 + scale_BD[:, None])


class SubLayer(nn.Module):
    """Base of the three layers of a block: a modulation of their input, and a gate on their output."""

    def __init__(self, model_channels: int, lora_dim: int) -> None:
        super().__init__()
        self.adaLN_modulation = adaln_modulation(model_channels, lora_dim, 3)

    def enter(self, z_BLD: Tensor, emb_BD: Tensor, lora_B3D: Tensor) -> tuple[Tensor, Tensor]:
        """Modulated input (B, L, D) and gate (B, 1, D)."""
        shift, scale, gate = (self.adaLN_modulation(emb_BD) + lora_B3D).chunk(3, dim=-1)
        return modulate(z_BLD, shift, scale), gate[:, None]


class AttentionLayer(SubLayer):
    """z += gate * attention(modulate(z)); keys and values from the text, or from z itself."""

    def __init__(
        self, model_channels: int, context_channels: int, num_heads: int, lora_dim: int
    ) -> None:
        super().__init__(model_channels, lora_dim)
        self.block = AttentionBlock(model_channels, context_channels, num_heads)

    def forward(
        self,
        z_BLD: Tensor,
        emb_BD: Tensor,
        lora_B3D: Tensor,
        text_BSD: Tensor | None = None,
        rotation: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """(B, L, D) → (B, L, D); self-attention if text is None."""
        u_BLD, gate = self.enter(z_BLD, emb_BD, lora_B3D)
        return z_BLD + gate * self.block.attn(
            u_BLD, u_BLD if text_BSD is None else text_BSD, rotation
        )


class MlpLayer(SubLayer):
    """z += gate * MLP(modulate(z))."""

    def __init__(self, model_channels: int, mlp_ratio: float, lora_dim: int) -> None:
        super().__init__(model_channels, lora_dim)
        self.block = FeedForward(model_channels, int(model_channels * mlp_ratio))

    def forward(self, z_BLD: Tensor, emb_BD: Tensor, lora_B3D: Tensor) -> Tensor:
        """(B, L, D) → (B, L, D)."""
        u_BLD, gate = self.enter(z_BLD, emb_BD, lora_B3D)
        return z_BLD + gate * self.block(u_BLD)


class DiTBlock(nn.Module):
    """Self-attention, cross-attention, MLP (``FA-CA-MLP``)."""

    def __init__(
        self,
        model_channels: int,
        text_channels: int,
        num_heads: int,
        mlp_ratio: float,
        lora_dim: int,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            (
                AttentionLayer(model_channels, model_channels, num_heads, lora_dim),
                AttentionLayer(model_channels, text_channels, num_heads, lora_dim),
                MlpLayer(model_channels, mlp_ratio, lora_dim),
            )
        )

    @property
    def self_attention(self) -> Attention:
        """The attention among tokens."""
        layer = self.blocks[0]
        assert isinstance(layer, AttentionLayer)
        return layer.block.attn

    def forward(
        self,
        z_BLD: Tensor,
        emb_BD: Tensor,
        lora_B3D: Tensor,
        text_BSD: Tensor,
        rotation: tuple[Tensor, Tensor],
    ) -> Tensor:
        """(B, L, D) → (B, L, D)."""
        self_attention, cross_attention, mlp = self.blocks
        z_BLD = self_attention(z_BLD, emb_BD, lora_B3D, rotation=rotation)
        z_BLD = cross_attention(z_BLD, emb_BD, lora_B3D, text_BSD)
        out: Tensor = mlp(z_BLD, emb_BD, lora_B3D)
        return out


class TimestepEmbedding(nn.Module):
    """The MLP on the sinusoid; its output is the part of every modulation that all layers share."""

    def __init__(self, model_channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(model_channels, model_channels, bias=False)
        self.linear_2 = nn.Linear(model_channels, 3 * model_channels, bias=False)

    def forward(self, e_BD: Tensor) -> Tensor:
        """(B, D) → (B, 3D)."""
        out: Tensor = self.linear_2(F.silu(self.linear_1(e_BD)))
        return out


def timestep_sinusoid(t_B: Tensor, dim: int) -> Tensor:
    """[cos(t f), sin(t f)] with f_i = exp(-ln(1e4) i / (dim/2)), in float32, dtype of t; shape (B, dim)."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=t_B.device)
    angles = t_B.float()[:, None] * torch.exp(-math.log(10_000.0) * index / half)
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(t_B.dtype)


class FourierFeatures(nn.Module):
    """sqrt(2) cos(x f + p) with fixed f and p, which are buffers of the weight file."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(num_channels))
        self.register_buffer("phases", torch.zeros(num_channels))

    def forward(self, x_B: Tensor) -> Tensor:
        """(B,) → (B, channels), float32."""
        angles = torch.outer(x_B.float(), self.freqs.float()) + self.phases.float()
        return angles.cos() * math.sqrt(2.0)
