"""Kernels of attention, chosen by the GPU's capability, which these tests make up; none of them has run on a GPU."""

from __future__ import annotations

import importlib.machinery
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from support.training import small_experiment, small_model
from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import DiffusionConfig
from cosmos_worker.config.training import AccelerationConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.layers import Attention
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train import attention
from cosmos_worker.train.attention import choose_attention, use_attention
from cosmos_worker.train.gpu_choice import choose_for_gpu

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
FLASH3 = "flash_attn_interface"


def gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], *, flash3: bool) -> None:
    """Make up a GPU of a capability, and FlashAttention 3 beside it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    if flash3:
        module = SimpleNamespace(flash_attn_func=flash_attn_func)
        module.__spec__ = importlib.machinery.ModuleSpec(FLASH3, None)
        monkeypatch.setitem(sys.modules, FLASH3, module)


def flash_attn_func(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, None]:
    """In the place of FlashAttention 3's: (batch, tokens, heads, channels)."""
    out = F.scaled_dot_product_attention(*(one.transpose(1, 2) for one in (q, k, v)))
    return out.transpose(1, 2), None


def experiment(kernel: str = "auto", dtype: str = "auto") -> Experiment:
    update = {
        "acceleration": AccelerationConfig(attention=kernel),
        "diffusion": DiffusionConfig(compute_dtype=dtype),
    }
    return small_experiment().model_copy(update=update)


@pytest.mark.parametrize(
    ("capability", "flash3", "dtype", "asked", "expected"),
    [
        ((9, 0), False, "auto", "auto", "cudnn"),
        ((9, 0), True, "bfloat16", "auto", "flash_attention_3"),
        ((9, 0), True, "float32", "auto", "torch"),
        ((8, 0), True, "auto", "auto", "torch"),
        ((10, 0), True, "auto", "auto", "torch"),
        ((9, 0), True, "auto", "torch", "torch"),
        ((8, 0), False, "auto", "cudnn", "cudnn"),
    ],
)
def test_kernel_is_chosen_by_capability_unless_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    flash3: bool,
    dtype: str,
    asked: str,
    expected: str,
) -> None:
    gpu(monkeypatch, capability, flash3=flash3)

    assert choose_attention(experiment(asked, dtype), CUDA) == expected


def test_cpu_keeps_the_kernel_of_pytorch() -> None:
    found = choose_for_gpu(experiment(), ProcessGroup())

    assert found.acceleration.attention == "torch"


def test_cudnn_is_asked_for_before_flash(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, (9, 0), flash3=False)
    seen: list[tuple[list[str], bool]] = []
    original = attention.sdpa_kernel

    def noted(backends, set_priority=False):  # type: ignore[no-untyped-def]
        seen.append(([one.name for one in backends], set_priority))
        return original(backends, set_priority)

    monkeypatch.setattr(attention, "sdpa_kernel", noted)
    model = small_model()
    use_attention(model, "cudnn", CUDA)

    assert same_as_pytorch(model.net.blocks["block0"].self_attention)
    order = ["CUDNN_ATTENTION", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH"]
    assert seen == [(order, True)]


def test_flash_attention_3_gets_tokens_before_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu(monkeypatch, (9, 0), flash3=True)
    model = small_model()
    use_attention(model, "flash_attention_3", CUDA)
    modules = [one for one in model.modules() if isinstance(one, Attention)]

    assert len(modules) == 4
    assert all(same_as_pytorch(one) for one in modules)


def same_as_pytorch(module: Attention) -> bool:
    """True if the module's kernel gives what PyTorch's gives, to the last bit."""
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 2, tokens, 16, generator=generator) for tokens in (6, 5, 5))
    assert module.attend is not F.scaled_dot_product_attention
    return torch.equal(module.attend(q, k, v), F.scaled_dot_product_attention(q, k, v))


@pytest.mark.parametrize(
    ("kernel", "device", "capability", "message"),
    [
        ("cudnn", CPU, (9, 0), "attention: 'cudnn' needs CUDA, this run is on cpu; use 'auto'"),
        ("flash_attention_3", CPU, (9, 0), "needs CUDA, this run is on cpu; use 'auto'"),
        ("flash_attention_3", CUDA, (8, 0), r"needs compute capability 9\.x; a GPU has 8\.0"),
        ("flash_attention_3", CUDA, (9, 0), "flash_attn_interface.*or 'auto'"),
    ],
)
def test_kernel_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
    kernel: attention.AttentionKernel,
    device: torch.device,
    capability: tuple[int, int],
    message: str,
) -> None:
    gpu(monkeypatch, capability, flash3=False)

    with pytest.raises(ConfigError, match=message):
        use_attention(small_model(), kernel, device)
