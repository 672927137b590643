"""The network of an experiment on the device with random weights, with the options of one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.training import AccelerationConfig, CompileChoice, ParallelConfig
from cosmos_worker.diffusion.edm import Noise
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.lora import add_lora, init_lora
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train.data import Batch
from cosmos_worker.train.noise import draw_noise, sample_generator
from cosmos_worker.train.parallelize import accelerate, parallelize, run_blocks
from cosmos_worker.train.step import use_bfloat16

SEED = 0
FPS = 5.0
TEXT_TOKENS = 20
"""Length of a caption, as those of robot datasets have; the context is padded to its whole length."""


@dataclass(frozen=True)
class Variant:
    """Options of one row: what speed depends on and results, but for rounding, do not.

    Attributes:
        compiled: each block is compiled.
        attention: kernel, see ``kernels.py``.
        checkpointing: activations that are computed again.
        samples: of the micro-batch.
        linear: plain or float8.
    """

    compiled: bool = True
    attention: str = "default"
    checkpointing: Literal["none", "block", "selective"] = "none"
    samples: int = 1
    linear: Literal["plain", "float8"] = "plain"

    def apply(self, experiment: Experiment) -> Experiment:
        """The experiment with these options."""
        trainer = experiment.trainer.model_copy(
            update={"global_batch_size": self.samples, "micro_batch_size": self.samples}
        )
        return experiment.model_copy(
            update={
                "trainer": trainer,
                "parallel": ParallelConfig(activation_checkpointing=self.checkpointing),
                "acceleration": AccelerationConfig(
                    linear=self.linear, compile=compile_choice(self.compiled)
                ),
            }
        )


def compile_choice(compiled: bool) -> CompileChoice:
    """The option with which blocks are compiled, or it is an error; or are not."""
    return "enabled" if compiled else "disabled"


def build(experiment: Experiment, device: torch.device) -> CosmosModel:
    """The network as the train stage builds it, but its random weights are drawn on the device."""
    dtype = torch.bfloat16 if use_bfloat16(experiment.diffusion, device) else torch.float32
    with torch.device("meta"):
        model = CosmosModel(experiment.net, extra_pos_emb=True)
    if experiment.lora.rank:
        add_lora(model, experiment.lora, dtype)
    accelerate(model, experiment.acceleration, device)
    run_blocks(model, experiment, device)
    processes = ProcessGroup(device_type="cuda" if device.type == "cuda" else "cpu")
    parallelize(model, experiment.parallel, processes, None, dtype)
    model = model.to_empty(device=device)
    fill(model, device)
    return model


def fill(
    model: CosmosModel, device: torch.device, seed: int = SEED, lora_seed: int | None = None
) -> None:
    """Draw all weights on the device; LoRA corrections from a seed of their own, if one is given."""
    with torch.device(device), torch.no_grad():
        generator = torch.Generator(device).manual_seed(seed)
        model.init_weights(generator)
    own = seed if lora_seed is None else lora_seed
    init_lora(model, lambda name: sample_generator(own, "lora", name))


def random_batch(experiment: Experiment, samples: int) -> tuple[Batch, Noise]:
    """A micro-batch of random latents and texts, on the CPU, and the noise that the trainer draws for it."""
    video, net = experiment.video, experiment.net
    shape = (
        net.latent_channels,
        experiment.latent_frames(video),
        video.height // 8,
        video.width // 8,
    )
    generator = torch.Generator().manual_seed(SEED)
    latents = torch.randn(samples, *shape, generator=generator) * experiment.diffusion.sigma_data
    text = torch.zeros(samples, experiment.text.max_length, net.text_channels)
    text[:, :TEXT_TOKENS].normal_(generator=generator)
    batch = Batch(latents, text, torch.full((samples,), FPS))
    return batch, draw_noise(shape, experiment, "train", 0, range(samples))
