"""The numbers of a run, typed: network, video, text, noise; and an experiment of these and the training's.

Defaults of the values live here and in the experiments. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from cosmos_worker.config.network import (
    LATENT_SCALE,
    ConditioningConfig,
    DiffusionConfig,
    NetConfig,
    TextConfig,
    TextPadding,
    TokenizerConfig,
    VideoConfig,
)
from cosmos_worker.config.training import (
    AccelerationConfig,
    EmaConfig,
    LoraConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainerConfig,
)
from cosmos_worker.config.values import (
    FolderName,
    Model,
    unfit_sizes,
)
from cosmos_worker.errors import ConfigError


class CompatConfig(Model):
    """Behaviours of the reference's training that ours corrects, each off unless it is asked for."""

    trimmed_text: bool = False
    """Captions end with their last token, where ours are padded with zeros to text.max_length as in the pre-training
    and in sampling; needs trainer.micro_batch_size=1."""
    known_frames_in_loss: bool = False
    """Known frames count in the mean of the loss, where ours has the generated frames only."""
    strong_known_frame_noise: bool = False
    """Noise on known frames as in the reference's bridge configuration: ln sigma of mean 0 and deviation 1, sigma times
    4, where ours has mean -3 and deviation 2, as in the pre-training and near the noise of sampling."""
    bfloat16_sigma: bool = False
    """Sigma is rounded to bfloat16 and rotary angles are computed in it, where ours are float32."""
    bfloat16_ema: bool = False
    """Weights are rounded to bfloat16 before they are averaged, where ours are averaged as the optimizer has them."""
    zeroed_gradients: bool = False
    """NaN and infinite gradients are replaced by zeros, where ours end the training with the parameters' names."""


class Experiment(Model):
    """A named, complete description of the numbers of a post-training run."""

    name: FolderName
    """Name, as in the reference's experiment=NAME."""
    project: FolderName = "posttraining"
    """First folder under the output root."""
    group: FolderName = "diffusion_video2world_instruction"
    """Second folder under the output root."""
    net: NetConfig
    video: VideoConfig
    buckets: Annotated[tuple[VideoConfig, ...], Field(max_length=64)] = ()
    """Windows of several sizes and lengths in one run, in place of video: each clip goes to the bucket that fits it."""
    tokenizer: TokenizerConfig
    text: TextConfig = TextConfig()
    conditioning: ConditioningConfig = ConditioningConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    ema: EmaConfig = EmaConfig()
    lora: LoraConfig = LoraConfig()
    trainer: TrainerConfig = TrainerConfig()
    parallel: ParallelConfig = ParallelConfig()
    acceleration: AccelerationConfig = AccelerationConfig()
    compat: CompatConfig = CompatConfig()

    @property
    def text_padding(self) -> TextPadding:
        """The form of the text context, in training and in sampling: pad or trim."""
        return "trim" if self.compat.trimmed_text else "pad"

    @property
    def windows(self) -> tuple[VideoConfig, ...]:
        """The kinds of windows that are trained on: the buckets, or the one video."""
        return self.buckets or (self.video,)

    @property
    def num_latent_frames(self) -> int:
        """Latent frames of one window of video."""
        return self.latent_frames(self.video)

    def latent_frames(self, video: VideoConfig) -> int:
        """Latent frames of a window: one chunk, or several that are encoded each for itself."""
        chunk = min(self.tokenizer.chunk_pixel_frames, video.num_pixel_frames)
        return video.num_pixel_frames // chunk * (1 + (chunk - 1) // LATENT_SCALE)

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        if self.video.num_pixel_frames % self.tokenizer.chunk_pixel_frames:
            raise ValueError(
                f"video.num_pixel_frames: {self.video.num_pixel_frames} is not a multiple of "
                f"tokenizer.chunk_pixel_frames {self.tokenizer.chunk_pixel_frames}"
            )
        problems = [*_repeated(self.buckets)]
        for where, video in _named_windows(self):
            problems += _window_problems(self, video, where)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        if self.compat.trimmed_text and self.trainer.least_micro_batch > 1:
            raise ValueError(
                "compat.trimmed_text: each caption has a context of its own length, so samples cannot share a "
                f"micro-batch; use false, or trainer.micro_batch_size=1 (got {self.trainer.micro_batch_size})"
            )
        if self.trainer.sample_every_steps and 1 in map(self.latent_frames, self.windows):
            raise ValueError(
                "trainer.sample_every_steps: a window of one latent frame leaves none to sample after the known one; "
                "use null, or longer windows (video.num_pixel_frames)"
            )
        if self.trainer.global_batch_size % self.trainer.least_micro_batch:
            raise ValueError(
                f"trainer.global_batch_size: {self.trainer.global_batch_size} is not a multiple of "
                f"trainer.micro_batch_size {self.trainer.micro_batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _acceleration_agrees(self) -> Self:
        acceleration = self.acceleration
        if acceleration.linear != "plain" and self.lora.rank:
            raise ValueError(
                f"acceleration.linear: {acceleration.linear!r} is not for LoRA (lora.rank {self.lora.rank}); "
                "use 'plain', or lora.rank=0"
            )
        if (
            acceleration.attention not in ("auto", "torch")
            and self.diffusion.compute_dtype == "float32"
        ):
            raise ValueError(
                f"acceleration.attention: {acceleration.attention!r} computes in bfloat16, not in "
                "diffusion.compute_dtype 'float32'; use 'auto', or compute_dtype=bfloat16"
            )
        if acceleration.linear == "float8" and acceleration.compile == "disabled":
            raise ValueError(
                "acceleration.linear: 'float8' without compiled blocks is slower than bfloat16 "
                "(acceleration.compile 'disabled'); use compile=auto, or linear=plain"
            )
        if self.optimizer.implementation == "apex" and self.parallel.sharding != "none":
            raise ValueError(
                "optimizer.implementation: 'apex' updates whole weights, which parallel.sharding "
                f"{self.parallel.sharding!r} spreads over processes; use 'torch', or parallel.sharding=none"
            )
        obstacles = obstacles_to_compiling(self)
        if acceleration.compile == "enabled" and obstacles:
            raise ValueError(
                f"acceleration.compile: 'enabled' does not admit {', '.join(obstacles)}; use 'auto'"
            )
        problems = [*_engine_float8_problems(self)]
        if problems:
            raise ValueError(
                f"acceleration.linear: {acceleration.linear!r} does not admit this: {'; '.join(problems)}; "
                "change that, or use 'float8' or 'plain'"
            )
        return self


def obstacles_to_compiling(experiment: Experiment) -> list[str]:
    """Options, written as overrides, with which the blocks of a training are not compiled."""
    share, kernels = experiment.parallel.context_parallel, experiment.acceleration
    found = {
        f"parallel.context_parallel={share}": share > 1,
        f"acceleration.attention={kernels.attention}": kernels.attention == "transformer_engine",
        f"acceleration.linear={kernels.linear}": kernels.linear == "transformer_engine_float8",
    }
    return [option for option, is_one in found.items() if is_one]


def check_changes(before: Experiment, after: Experiment) -> None:
    """Refuse changes of what the checkpoint decides: the network, and the scale of the latents that it was trained on.

    Args:
        before: without the changes.
        after: with them; everything may be changed where it starts from random weights.

    Raises:
        ConfigError: one line for each option.
    """
    if after.trainer.init != "checkpoint":
        return
    values = {
        f"net.{name}": (getattr(before.net, name), getattr(after.net, name))
        for name in NetConfig.model_fields
    }
    values["diffusion.sigma_data"] = before.diffusion.sigma_data, after.diffusion.sigma_data
    problems = [
        f"{path}: got {new!r}, but the checkpoints of {before.name} were trained with {old!r}; leave it out, take the "
        "experiment of your checkpoint, or train fresh weights with trainer.init=random"
        for path, (old, new) in values.items()
        if old != new
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _named_windows(experiment: Experiment) -> Iterator[tuple[str, VideoConfig]]:
    """Each kind of window and the path of its option."""
    if not experiment.buckets:
        yield "video", experiment.video
    yield from ((f"buckets.{i}", bucket) for i, bucket in enumerate(experiment.buckets))


def _repeated(buckets: tuple[VideoConfig, ...]) -> Iterator[str]:
    first: dict[str, int] = {}
    for i, bucket in enumerate(buckets):
        other = first.setdefault(bucket.size_name, i)
        if other != i:
            yield f"buckets.{i}: {bucket.size_name} is also the size of buckets.{other}; remove one of them"


def _window_problems(experiment: Experiment, video: VideoConfig, where: str) -> Iterator[str]:
    """Problems of one kind of window with tokenizer, conditioning or network, one line each."""
    frames, chunk = video.num_pixel_frames, experiment.tokenizer.chunk_pixel_frames
    if frames > chunk and frames % chunk:
        yield (
            f"{where}.num_pixel_frames: {frames} is more than tokenizer.chunk_pixel_frames {chunk} and no multiple "
            "of it; use shorter windows, or a larger chunk"
        )
        return
    known, total = experiment.conditioning.max_cond_latent_frames, experiment.latent_frames(video)
    if known >= total and total > 1:
        of = f" of {where}" if experiment.buckets else ""
        yield (
            f"conditioning.max_cond_latent_frames: {known} leaves no frame to generate of {total} latent frames{of}"
        )
    share = experiment.parallel.context_parallel
    if total % share:
        yield (
            f"parallel.context_parallel: {share} does not divide the {total} latent frames of {where}; use a number "
            "that does"
        )
    net = experiment.net
    if total > net.max_latent_frames:
        yield (
            f"{where}.num_pixel_frames: {frames} are {total} latent frames, the network admits at most "
            f"{net.max_latent_frames} (net.max_latent_frames)"
        )
    for name, size in (("height", video.height), ("width", video.width)):
        if size > LATENT_SCALE * net.max_latent_size:
            yield (
                f"{where}.{name}: {size} is more than the network admits; use at most "
                f"{LATENT_SCALE * net.max_latent_size} (net.max_latent_size {net.max_latent_size})"
            )


def _engine_float8_problems(experiment: Experiment) -> Iterator[str]:
    """Problems of an experiment that asks for Transformer Engine's float8 layers, one line each."""
    if experiment.acceleration.linear != "transformer_engine_float8":
        return
    if experiment.trainer.device == "cpu":
        yield "trainer.device: 'cpu' has no such layers"
    if experiment.diffusion.compute_dtype == "float32":
        yield "diffusion.compute_dtype: 'float32', where results are bfloat16"
    if experiment.parallel.activation_checkpointing == "selective":
        yield (
            "parallel.activation_checkpointing: 'selective' cannot keep the results of these products ('block' and "
            "'none' can be used)"
        )
    if experiment.compat.trimmed_text:
        yield "compat.trimmed_text: true leaves captions of any length"
    net, share = experiment.net, experiment.parallel.context_parallel
    scale = LATENT_SCALE * net.patch_size
    sizes = {
        "net.model_channels": net.model_channels,
        "net.text_channels": net.text_channels,
        "net.mlp_ratio times net.model_channels": int(net.model_channels * net.mlp_ratio),
        "text.max_length": experiment.text.max_length,
    }
    for where, video in _named_windows(experiment):
        frames = experiment.latent_frames(video) // share
        tokens = frames * (video.height // scale) * (video.width // scale)
        sizes[f"{where}, tokens of a sample in each process"] = tokens
    yield from unfit_sizes(sizes)
