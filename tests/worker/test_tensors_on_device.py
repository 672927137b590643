"""Checks, without a GPU, that training and sampling move all their tensors to the device."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from support.fake_cuda import CUDA, fake_cuda
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cosmos_worker.config.presets import PUSH_TINY
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.training import (
    AccelerationConfig,
    LoraConfig,
    ParallelConfig,
)
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.lora import add_lora
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.sample.sampler import (
    Sample,
    Settings,
    generate_latents,
)
from cosmos_worker.tokenizer.network import AutoencoderConfig, CausalVideoAutoencoder
from cosmos_worker.train.data import Batch
from cosmos_worker.train.ema import PowerEma
from cosmos_worker.train.noise import (
    draw_noise,
    draw_noise_of_level,
)
from cosmos_worker.train.optimizer import build_optimizer
from cosmos_worker.train.parallelize import (
    parallelize,
    run_blocks,
)
from cosmos_worker.train.step import batch_loss, train_step

NET = PUSH_TINY.net.model_copy(update={"num_blocks": 1})
LATENT = (NET.latent_channels, 3, 16, 20)
WIDTH = NET.text_channels
SAMPLERS = SamplingConfig.model_fields["sampler"].annotation.__args__  # type: ignore[union-attr]


def model_on_cuda(has_positions: bool = True, lora: bool = False) -> CosmosModel:
    with CUDA:
        model = CosmosModel(NET, has_positions)
        if lora:
            add_lora(
                model,
                LoraConfig(rank=4, alpha=4.0, targets=("q", "k", "v", "out", "mlp")),
                torch.float32,
            )
    return model


def batch() -> Batch:
    """A batch as the dataset makes it, on the CPU."""
    return Batch(torch.zeros(2, *LATENT), torch.zeros(2, 32, WIDTH), torch.full((2,), 10.0))


def devices(tensors: object) -> set[torch.device]:
    return {tensor.device for tensor in tensors}  # type: ignore[attr-defined]


def test_what_is_on_two_devices_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda(monkeypatch), pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device=CUDA) + torch.ones(2)


@pytest.mark.parametrize(
    ("lora", "checkpointing"), [(False, "none"), (False, "selective"), (True, "block")]
)
def test_training_step_is_all_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch, lora: bool, checkpointing: str
) -> None:
    parallel = ParallelConfig(activation_checkpointing=checkpointing)
    kernels = AccelerationConfig(
        compile="disabled"
    )  # no code can be made for a device that is not there
    experiment = PUSH_TINY.model_copy(update={"parallel": parallel, "acceleration": kernels})
    with fake_cuda(monkeypatch):
        model = model_on_cuda(lora=lora)
        run_blocks(model, experiment, CUDA)
        parallelize(model, parallel, ProcessGroup(), None, torch.bfloat16)
        optimizer = build_optimizer(model, PUSH_TINY.optimizer)
        average = PowerEma(model, PUSH_TINY.ema.rate, torch.float32)
        work = [(batch(), draw_noise(LATENT, PUSH_TINY, "train", 0, [0, 1]))] * 2
        result = train_step(model, optimizer, work, PUSH_TINY, CUDA, lambda: "step 1")
        average.update(0)

        assert result.losses.device == CUDA
        assert devices(average.average.values()) == {CUDA}
        assert devices(v for state in optimizer.state.values() for v in state.values()) == {CUDA}
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert len(optimizer.state) == len(trained)


def test_training_step_waits_for_no_copy_to_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def pin(tensor: Tensor) -> Tensor:
        done.append("pinned")
        return tensor

    class Notes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            kwargs = kwargs or {}
            if func is torch.ops.aten._to_copy.default and kwargs.get("device") == CUDA:
                done.append("moved" if kwargs.get("non_blocking") else "waited")
            return func(*args, **kwargs)

    with fake_cuda(monkeypatch):
        model = model_on_cuda()
        optimizer = build_optimizer(model, PUSH_TINY.optimizer)
        work = [(batch(), draw_noise(LATENT, PUSH_TINY, "train", 0, [0, 1]))] * 2
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(Tensor, "pin_memory", pin)
        with Notes():
            train_step(model, optimizer, work, PUSH_TINY, CUDA, lambda: "step 1")

    tensors = 2 * (len(fields(Batch)) + len(fields(Noise)))
    assert done == ["pinned"] * tensors + ["moved"] * tensors


def test_validation_is_all_on_the_gpu_and_its_products_in_bfloat16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dtypes: set[torch.dtype] = set()

    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        dtypes.add(output.dtype)

    with fake_cuda(monkeypatch):
        model = model_on_cuda(has_positions=False)
        for module in model.net.blocks.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(note)
        average = PowerEma(model, PUSH_TINY.ema.rate, torch.bfloat16)
        noise = draw_noise_of_level(LATENT, 1.0, 1, ["a", "b"])
        with average.in_use(model):
            loss = batch_loss(model, batch(), noise, PUSH_TINY.diffusion, CUDA)

        assert (loss.total.device, loss.total.dtype) == (CUDA, torch.float32)
        assert dtypes == {torch.bfloat16}


@pytest.mark.parametrize(
    ("sampler", "known_frames"), [*((one, "correct") for one in SAMPLERS), ("edm_euler", "legacy")]
)
def test_sampling_is_all_on_the_gpu(
    monkeypatch: pytest.MonkeyPatch, sampler: str, known_frames: str
) -> None:
    sampling = SamplingConfig(
        num_pixel_frames=17, height=128, width=160, num_steps=2, sampler=sampler,
        known_frames=known_frames, guidance=3.0,
    )  # fmt: skip
    prompt = np.zeros((5, WIDTH), np.float16)
    settings = Settings(sampling, LATENT[1], PUSH_TINY.text, 0.5, prompt, torch.bfloat16)
    with fake_cuda(monkeypatch):
        samples = [Sample(name, prompt, torch.zeros(3, 1, 128, 160)) for name in "ab"]
        known = torch.zeros(2, *LATENT, device=CUDA)
        result = generate_latents(model_on_cuda().net.eval(), known, samples, settings)

        assert (result.device, result.dtype) == (CUDA, torch.float32)


def test_tokenizer_is_all_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_cuda(monkeypatch):
        with CUDA:
            tokenizer = CausalVideoAutoencoder(AutoencoderConfig())
        video = torch.zeros(1, 3, 17, 64, 64, device=CUDA)
        result = tokenizer.decode(tokenizer.encode(video))

        assert (result.device, result.shape) == (CUDA, video.shape)
