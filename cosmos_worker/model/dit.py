"""The Cosmos-Predict1 Video2World transformer (GeneralDIT, video-extend form) and its uncertainty head.

B batch, C latent channels, T latent frames, H W latent rows and columns (h w in tokens), L tokens, D model dim,
S text tokens, K head dim. Source: cosmos-predict1 GeneralDIT / VideoExtendGeneralDIT, Apache-2.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist

from cosmos_worker.config.flops import NUM_MASK_CHANNELS
from cosmos_worker.config.network import NetConfig
from cosmos_worker.model.context_parallel import gather_result, own_frames
from cosmos_worker.model.layers import (
    NORM_EPS,
    DiTBlock,
    FourierFeatures,
    TimestepEmbedding,
    adaln_modulation,
    modulate,
    timestep_sinusoid,
)
from cosmos_worker.model.rope import LearnablePositions, RotaryPositions

NUM_LOGVAR_CHANNELS = 128


RunBlock = Callable[..., Tensor]
"""Runs a block on its inputs and returns its output; activation checkpointing is one."""


def call(block: Callable[..., Tensor], *inputs: object) -> Tensor:
    """Run a block so that autograd keeps all activations that its backward pass needs."""
    return block(*inputs)


class PatchEmbed(nn.Module):
    """Projects patches of 1 x p x p latent pixels to D channels."""

    def __init__(self, in_channels: int, patch_size: int, model_channels: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        patch_channels = in_channels * patch_size**2
        self.proj = nn.Sequential(
            nn.Identity(), nn.Linear(patch_channels, model_channels, bias=False)
        )

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """(B, C, T, H, W) → (B, L, D); feature order (channel, row, column)."""
        p = self.patch_size
        x = x_BCTHW.unflatten(4, (-1, p)).unflatten(3, (-1, p))  # B C T h p w p
        x = x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)
        out: Tensor = self.proj(x)
        return out


class FinalLayer(nn.Module):
    """Modulated norm and projection back to latent patches; feature order (row, column, channel)."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        out_channels = config.patch_size**2 * config.latent_channels
        self.linear = nn.Linear(config.model_channels, out_channels, bias=False)
        self.adaLN_modulation = adaln_modulation(config.model_channels, config.adaln_lora_dim, 2)

    def forward(self, z_BLD: Tensor, emb_BD: Tensor, lora_B3D: Tensor) -> Tensor:
        """(B, L, D) → (B, L, p*p*C)."""
        lora_B2D = lora_B3D[:, : 2 * z_BLD.shape[-1]]
        shift, scale = (self.adaLN_modulation(emb_BD) + lora_B2D).chunk(2, dim=-1)
        out: Tensor = self.linear(modulate(z_BLD, shift, scale))
        return out


class CosmosDiT(nn.Module):
    """The network F of the EDM denoiser.

    Args:
        config: shape of the network.
        extra_pos_emb: the learnable absolute position embedding exists, as in released Video2World files.
        rope_dtype: arithmetic of the rotary angles; bfloat16 emulates the reference.
    """

    def __init__(
        self, config: NetConfig, extra_pos_emb: bool, rope_dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        D = config.model_channels
        self.config = config
        self.rope_dtype = rope_dtype
        self.run_block: RunBlock = call
        self._context_group: dist.ProcessGroup | None = None
        max_tokens = config.max_latent_size // config.patch_size
        self.x_embedder = PatchEmbed(
            config.latent_channels + NUM_MASK_CHANNELS, config.patch_size, D
        )
        self.pos_embedder = RotaryPositions(
            config.head_dim,
            config.rope_ratio_t,
            config.rope_ratio_h,
            config.rope_ratio_w,
            max(max_tokens, config.max_latent_frames),
        )
        self.extra_pos_embedder = (
            LearnablePositions(D, config.max_latent_frames, max_tokens, max_tokens)
            if extra_pos_emb
            else None
        )
        self.t_embedder = nn.Sequential(nn.Identity(), TimestepEmbedding(D))
        self.affline_norm = nn.RMSNorm(D, eps=NORM_EPS)
        self.blocks = nn.ModuleDict(
            {
                f"block{i}": DiTBlock(
                    D,
                    config.text_channels,
                    config.num_heads,
                    config.mlp_ratio,
                    config.adaln_lora_dim,
                )
                for i in range(config.num_blocks)
            }
        )
        self.final_layer = FinalLayer(config)

    def check_size(self, x_BCTHW: Tensor) -> tuple[int, int, int]:
        """Size in tokens (T, h, w).

        Raises:
            ValueError: the latent is too large for the position tables, or not a multiple of the patches.
        """
        _, C, T, H, W = x_BCTHW.shape
        config, p = self.config, self.config.patch_size
        if C != config.latent_channels:
            raise ValueError(
                f"latent: got {C} channels; this network takes {config.latent_channels}"
            )
        if H % p or W % p:
            raise ValueError(f"latent: got {H}x{W}; rows and columns must be multiples of {p}")
        if max(H, W) > config.max_latent_size or config.max_latent_frames < T:
            raise ValueError(
                f"latent: got {T} frames of {H}x{W}; this network admits at most {config.max_latent_frames} "
                f"frames of {config.max_latent_size}x{config.max_latent_size}"
            )
        return T, H // p, W // p

    def embed_timestep(self, c_noise_B: Tensor) -> tuple[Tensor, Tensor]:
        """Normalised sinusoid (B, D), and the part of the modulation that all layers share (B, 3D)."""
        e_BD = timestep_sinusoid(c_noise_B, self.config.model_channels)
        return self.affline_norm(e_BD), self.t_embedder(e_BD)

    def forward(
        self,
        x_BCTHW: Tensor,
        c_noise_B: Tensor,
        text_BSD: Tensor,
        cond_mask_B1THW: Tensor,
        fps_B: Tensor,
        padding_mask_B1HW: Tensor | None = None,
    ) -> Tensor:
        """Network output F, shape (B, C, T, H, W).

        Args:
            x_BCTHW: scaled input c_in * x.
            c_noise_B: 0.25 ln sigma.
            text_BSD: text embeddings, zeros where padded or dropped; there is no mask.
            cond_mask_B1THW: 1 on known frames.
            fps_B: frames per second.
            padding_mask_B1HW: 1 on padded pixels, any size (nearest-resized); None = zeros.
        """
        size = self.check_size(x_BCTHW)
        own = self._own_frames
        z_BLD = self.x_embedder(
            own(self._with_masks(x_BCTHW, cond_mask_B1THW, padding_mask_B1HW), 2)
        )
        emb_BD, lora_B3D = self.embed_timestep(c_noise_B)
        angles = own(self.pos_embedder(size, fps_B, self.rope_dtype), 1)
        angles_B1Lk = angles[:, None]
        rotation = (angles_B1Lk.cos(), angles_B1Lk.sin())
        extra_1LD = None
        if self.extra_pos_embedder is not None:
            extra_1LD = own(self.extra_pos_embedder(size), 1)
        for block in self.blocks.values():
            if extra_1LD is not None:
                z_BLD = z_BLD + extra_1LD
            z_BLD = self.run_block(block, z_BLD, emb_BD, lora_B3D, text_BSD, rotation)
        y_BLP = self.final_layer(z_BLD, emb_BD, lora_B3D)
        if self._context_group is not None:
            y_BLP = gather_result(y_BLP, 1, self._context_group)
        return self._unpatch(y_BLP, size)

    def share_frames(self, group: dist.ProcessGroup) -> None:
        """Let each process of the group compute some of the frames; all of them get the whole output.

        The gradient of a parameter is then the mean of the processes' gradients.

        Args:
            group: whose size divides the number of latent frames.
        """
        self._context_group = group
        for block in self.blocks.values():
            assert isinstance(block, DiTBlock)
            block.self_attention.context_group = group

    def _own_frames(self, x: Tensor, dim: int) -> Tensor:
        return x if self._context_group is None else own_frames(x, dim, self._context_group)

    def _with_masks(
        self, x_BCTHW: Tensor, cond_mask_B1THW: Tensor, padding: Tensor | None
    ) -> Tensor:
        B, _, T, H, W = x_BCTHW.shape
        if padding is None:
            padding_B1THW = x_BCTHW.new_zeros(B, 1, T, H, W)
        else:
            resized = F.interpolate(padding.to(x_BCTHW.dtype), size=(H, W), mode="nearest")
            padding_B1THW = resized[:, :, None].expand(B, 1, T, H, W)
        return torch.cat([x_BCTHW, cond_mask_B1THW.to(x_BCTHW.dtype), padding_B1THW], dim=1)

    def _unpatch(self, y_BLP: Tensor, size: tuple[int, int, int]) -> Tensor:
        p, (T, h, w) = self.config.patch_size, size
        y = y_BLP.unflatten(1, (T, h, w)).unflatten(-1, (p, p, -1))  # B T h w p1 p2 C
        return y.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def init_weights(self, generator: torch.Generator) -> None:
        """Fresh weights: Xavier-uniform linears, zero last modulation, tables of standard deviation 0.02."""
        self.pos_embedder.init_positions()
        linears = {n: m for n, m in self.named_modules() if isinstance(m, nn.Linear)}
        for linear in linears.values():
            nn.init.xavier_uniform_(linear.weight, generator=generator)
        for name, linear in linears.items():
            if name.startswith("t_embedder."):
                nn.init.normal_(linear.weight, std=0.02, generator=generator)
            if name.startswith("blocks.") and name.endswith("adaLN_modulation.2"):
                nn.init.zeros_(linear.weight)
        for module in self.modules():
            if isinstance(module, nn.RMSNorm):
                nn.init.ones_(module.weight)
        if self.extra_pos_embedder is not None:
            for table in self.extra_pos_embedder.parameters():
                nn.init.trunc_normal_(table, std=0.02, generator=generator)


class CosmosModel(nn.Module):
    """Network and uncertainty head under the names of weight files: ``net.*`` and ``logvar.*``."""

    def __init__(
        self, config: NetConfig, extra_pos_emb: bool, rope_dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        self.net = CosmosDiT(config, extra_pos_emb, rope_dtype)
        self.logvar = nn.Sequential(
            FourierFeatures(NUM_LOGVAR_CHANNELS), nn.Linear(NUM_LOGVAR_CHANNELS, 1, bias=False)
        )

    def init_logvar(self, generator: torch.Generator) -> None:
        """Fresh uncertainty head: random features, and a zero readout, with which it does not change the loss."""
        for name, draw in (("freqs", torch.randn), ("phases", torch.rand)):
            values = 2 * math.pi * draw(NUM_LOGVAR_CHANNELS, generator=generator)
            self.get_buffer(f"logvar.0.{name}").copy_(values)
        nn.init.zeros_(self.get_parameter("logvar.1.weight"))

    def init_weights(self, generator: torch.Generator) -> None:
        """Fresh weights of the network and of the uncertainty head."""
        self.net.init_weights(generator)
        self.init_logvar(generator)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """F of :meth:`CosmosDiT.forward` and the log variance (B,) of each sample's noise level."""
        c_noise_B = inputs[1]
        with torch.autocast(c_noise_B.device.type, enabled=False):  # the loss stays float32
            logvar_B = self.logvar(c_noise_B.float())[:, 0]
        return self.net(*inputs), logvar_B
