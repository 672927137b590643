"""The numbers of a run, typed: network, video, noise, optimizer, trainer; and an experiment of all of them.

Defaults of the values live here and in the experiments. No torch here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from typing_extensions import Self

from cosmos_worker.float8_sizes import unfit_sizes

LATENT_SCALE = 8
"""Pixels per latent row and column, and pixel frames per latent frame after the first."""


class Model(BaseModel):
    """Base of all documents: unknown keys are errors, values cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


# --- experiments: everything that decides the numbers ----------------------------------------


class NetConfig(Model):
    """Shape of the Cosmos-Predict1 diffusion transformer (GeneralDIT)."""

    model_channels: PositiveInt
    """Width D of the hidden state."""
    num_blocks: PositiveInt
    """Number of blocks, each self-attention, cross-attention, MLP."""
    num_heads: PositiveInt
    """Attention heads; must divide model_channels into an even head size."""
    latent_channels: PositiveInt = 16
    """Channels of the tokenizer's latent, in and out."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP in units of model_channels."""
    text_channels: PositiveInt = 1024
    """Width of the text embeddings (T5-11B: 1024)."""
    adaln_lora_dim: PositiveInt = 256
    """Rank of the adaLN-LoRA modulation."""
    patch_size: PositiveInt = 2
    """Latent rows and columns per token."""
    max_latent_size: PositiveInt = 240
    """Largest latent height and width that the position tables admit."""
    max_latent_frames: PositiveInt = 128
    """Largest number of latent frames that the position tables admit."""
    rope_ratio_t: float = 2.0
    """NTK extrapolation ratio of the rotary embedding over time."""
    rope_ratio_h: float = 1.0
    """NTK extrapolation ratio of the rotary embedding over rows."""
    rope_ratio_w: float = 1.0
    """NTK extrapolation ratio of the rotary embedding over columns."""
    extra_pos_emb: Literal["auto", "learnable", "none"] = "auto"
    """Learnable absolute position embedding added in every block; auto = as the checkpoint has it."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.model_channels % self.num_heads or (self.model_channels // self.num_heads) % 2:
            raise ValueError(
                f"num_heads: {self.num_heads} does not divide model_channels {self.model_channels} "
                "into heads of an even size"
            )
        return self

    @property
    def head_dim(self) -> int:
        """Channels per attention head."""
        return self.model_channels // self.num_heads


class VideoConfig(Model):
    """The window of pixels that one sample shows."""

    num_pixel_frames: PositiveInt
    """Frames per window, 8n+1."""
    height: PositiveInt
    """Rows in pixels, a multiple of 16."""
    width: PositiveInt
    """Columns in pixels, a multiple of 16."""
    fps: Annotated[float, Field(gt=0)] | None = None
    """Frames per second given to the network; null = as the video says."""
    window_stride: PositiveInt = 1
    """Pixel frames between the starts of neighbouring windows."""

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        check_video_size(self.num_pixel_frames, self.height, self.width)
        return self

    @property
    def size_name(self) -> str:
        """Frames x height x width, such as 57x256x320: the name of a bucket."""
        return f"{self.num_pixel_frames}x{self.height}x{self.width}"


def check_video_size(num_pixel_frames: int, height: int, width: int) -> None:
    """Raise ValueError unless frames are 8n+1 and sizes are multiples of 16."""
    problems = []
    if (num_pixel_frames - 1) % LATENT_SCALE:
        low = num_pixel_frames - (num_pixel_frames - 1) % LATENT_SCALE
        problems.append(
            f"num_pixel_frames: {num_pixel_frames} is not 8n+1; use {low} or {low + LATENT_SCALE}"
        )
    for name, value in (("height", height), ("width", width)):
        if value % 16:
            low = max(16, value - value % 16)
            problems.append(f"{name}: {value} is not a multiple of 16; use {low} or {low + 16}")
    if problems:
        raise ValueError("; ".join(problems))


class TextConfig(Model):
    """How captions become the cross-attention context."""

    max_length: PositiveInt = 512
    """Longest caption in tokens, end token included."""
    padding: Literal["pad", "trim"] = "pad"
    """pad: zeros up to max_length, as pre-training and inference; trim: the reference's training."""
    dropout: Fraction = 0.2
    """Share of samples whose text is replaced by zeros."""


class ConditioningConfig(Model):
    """Which latent frames the network is shown, and how noisy."""

    min_cond_latent_frames: Annotated[int, Field(ge=0)] = 0
    """Fewest known latent frames, drawn uniformly."""
    max_cond_latent_frames: Annotated[int, Field(ge=0)] = 1
    """Most known latent frames."""
    flag_dropout: Fraction = 0.2
    """Share of samples whose known frames and mask are blanked."""
    augment_sigma_p_mean: float = -3.0
    """Mean of ln sigma of the noise on known frames (reference bridge config: 0)."""
    augment_sigma_p_std: float = 2.0
    """Standard deviation of ln sigma of the noise on known frames (reference bridge config: 1)."""
    augment_sigma_multiplier: float = 1.0
    """Factor on sigma of the noise on known frames (reference bridge config: 4)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_cond_latent_frames > self.max_cond_latent_frames:
            raise ValueError(
                f"min_cond_latent_frames: {self.min_cond_latent_frames} is more than "
                f"max_cond_latent_frames {self.max_cond_latent_frames}"
            )
        return self


class DiffusionConfig(Model):
    """EDM noise and loss."""

    sigma_data: Annotated[float, Field(gt=0)] = 0.5
    """Standard deviation of the latents given to the network."""
    p_mean: float = 0.0
    """Mean of ln sigma."""
    p_std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation of ln sigma."""
    sigma_multiplier: Annotated[float, Field(gt=0)] = 1.0
    """Factor on sigma; the reference's adjust_video_noise is the square root of the latent frames."""
    use_logvar: bool = True
    """Weigh the loss by the learned uncertainty (Kendall)."""
    loss_frames: Literal["generated", "all"] = "generated"
    """Frames in the mean of the loss; all = the reference, which counts known frames too."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the network's matrix products; auto = bfloat16 on CUDA, float32 on CPU."""
    sigma_dtype: Literal["float32", "bfloat16"] = "float32"
    """What sigma is rounded to and rotary angles are computed in; bfloat16 emulates the reference."""


class OptimizerConfig(Model):
    """AdamW, its schedule and clipping."""

    learning_rate: Annotated[float, Field(gt=0)] = 2**-14.3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Decoupled weight decay, on all parameters as in the reference."""
    beta1: Fraction = 0.9
    """Decay of the first moment."""
    beta2: Fraction = 0.99
    """Decay of the second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-10
    """Added to the root of the second moment."""
    implementation: Literal["torch", "apex"] = "torch"
    """Who computes the update: torch's fused AdamW, or apex's FusedAdam, which must be installed and needs CUDA."""
    state_bits: Literal[32, 8] = 32
    """Bits of each moment. 8 takes a quarter of the memory, rounds by blocks of 256 values, and needs torchao; weights
    whose rows are not whole blocks keep float32."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Largest global gradient norm."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps of linear warm-up; null = min(2500, 5 % of max_steps). The reference has 2500."""
    start_factor: Fraction = 1e-6
    """Learning rate factor at step 0."""
    final_factor: Fraction = 1.0
    """Learning rate factor at max_steps, reached linearly from decay_start; 1 = constant."""
    decay_start: Fraction = 0.0
    """Share of max_steps after which the linear decay begins (never before the warm-up ends)."""
    on_bad_gradient: Literal["fail", "zero"] = "fail"
    """A NaN or infinite gradient: stop with its parameter's name, or zero it as the reference."""

    @model_validator(mode="after")
    def _has_states(self) -> Self:
        if self.implementation == "apex" and self.state_bits != 32:
            raise ValueError(
                f"state_bits: {self.state_bits} is not in apex; use implementation=torch, or state_bits=32"
            )
        return self


class EmaConfig(Model):
    """Power-function exponential moving average (EDM2)."""

    enabled: bool = True
    """Keep an average of the weights."""
    rate: Annotated[float, Field(gt=0, lt=0.28)] = 0.1
    """Relative width s of the averaging profile; the exponent follows from it."""
    source_dtype: Literal["float32", "bfloat16"] = "float32"
    """Weights that are averaged: as the optimizer has them, or rounded as the reference."""


class LoraConfig(Model):
    """Low-rank adaptation: the network is frozen, and some of its layers learn a small correction.

    Exported weights contain it, and it lies beside them alone.
    """

    rank: Annotated[int, Field(ge=0)] = 0
    """Rank of the corrections; 0 = no adaptation, all weights are trained."""
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """Corrections are scaled by alpha / rank."""
    targets: Annotated[tuple[Literal["q", "k", "v", "out", "mlp"], ...], Field(min_length=1)] = (
        "q",
        "v",
    )
    """Layers that learn: queries, keys, values and output of both attentions of a block, and its MLP."""


TrackerName = Literal["tensorboard", "wandb", "mlflow"]


class TrainerConfig(Model):
    """Length of a run and what happens at its steps."""

    max_steps: PositiveInt = 2000
    """Optimizer steps."""
    global_batch_size: PositiveInt = 8
    """Samples per optimizer step over all processes."""
    micro_batch_size: PositiveInt = 1
    """Samples per forward pass of one process."""
    save_every_steps: PositiveInt = 500
    """Steps between checkpoints."""
    keep_last: PositiveInt = 2
    """Checkpoints to resume from that are kept; exported weights are kept by keep_exports."""
    keep_exports: PositiveInt = 4
    """Exported iter_*_model.pt sets that are kept."""
    log_every_steps: PositiveInt = 10
    """Steps between log lines."""
    validate_every_steps: PositiveInt | None = None
    """Steps between held-out losses; null = before the first step and after the last."""
    validation_draws: PositiveInt = 4
    """Fixed noise draws per held-out window."""
    validation_sigmas: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Noise levels at which each held-out loss is told by itself too; noise, known frames and text are the same in
    every run, so that runs and experiments can be compared."""
    keep_best: bool = False
    """Take the held-out loss at every checkpoint, and keep the checkpoint and exports where it was lowest."""
    sample_every_steps: PositiveInt | None = None
    """Steps between sample videos of held-out windows, the first before training; null = none."""
    sample_count: PositiveInt = 2
    """Held-out windows that are sampled, the first ones."""
    sample_steps: PositiveInt = 10
    """Sampler steps of a sample video."""
    trackers: tuple[TrackerName, ...] | None = None
    """Where figures and sample videos go beside metrics.jsonl; null = tensorboard, where it is installed."""
    seed: int = 0
    """Seed of the data order, the noise and fresh weights."""
    init: Literal["checkpoint", "random"] = "checkpoint"
    """Start from the model's weights or from random ones."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; auto = CUDA if there is one."""
    threads_per_process: Annotated[int, Field(ge=1)] | None = None
    """CPU threads of each process; null = leave to PyTorch."""

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        for name in ("validation_sigmas", "trackers"):
            values = getattr(self, name) or ()
            if len(set(values)) < len(values):
                raise ValueError(f"{name}: {list(values)} names one twice; name each once")
        return self


class ParallelConfig(Model):
    """How a run is spread over its processes; what it computes stays the same but for rounding."""

    sharding: Literal["none", "full", "hybrid"] = "none"
    """none: every process has all weights (DDP); full: weights, gradients, optimizer and average are spread over all
    processes (FSDP2); hybrid: over groups of shard_group_size, each with a copy."""
    shard_group_size: PositiveInt | None = None
    """Processes per copy with hybrid sharding; null = those of one node."""
    context_parallel: PositiveInt = 1
    """Neighbouring processes that share the latent frames of a sample, for long videos; must divide the frames."""
    activation_checkpointing: Literal["none", "block", "selective"] = "none"
    """What is computed again in the backward pass: nothing, every block, or all but matrix products and attention."""


class AccelerationConfig(Model):
    """Faster kernels of libraries that need not be installed; asked for and absent is an error."""

    attention: Literal["torch", "transformer_engine"] = "torch"
    """Who computes attention. Transformer Engine needs CUDA and bfloat16; results differ by rounding."""
    linear: Literal["plain", "float8", "transformer_engine_float8"] = "plain"
    """float8: products of the blocks' attention and MLP layers in float8 with one scale per tensor, forward and
    backward, by torchao; needs a GPU of compute capability 8.9, and is emulated on a CPU. transformer_engine_float8:
    the same by Transformer Engine 2.16 or later; needs such a GPU, sides and tokens of each sample that are multiples
    of 16, and no selective activation checkpointing. Neither with LoRA."""


class TokenizerConfig(Model):
    """How videos become latents."""

    chunk_pixel_frames: PositiveInt
    """Frames that are encoded together, 8n+1; longer videos are multiples of it."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the cached latents and, on CUDA, of the encoder."""
    batch_size: PositiveInt = 8
    """Windows per encoder call."""


class Experiment(Model):
    """A named, complete description of the numbers of a post-training run."""

    name: str
    """Name, as in the reference's experiment=NAME."""
    project: str = "posttraining"
    """First folder under the output root."""
    group: str = "diffusion_video2world_instruction"
    """Second folder under the output root."""
    net: NetConfig
    video: VideoConfig
    buckets: tuple[VideoConfig, ...] = ()
    """Windows of several sizes and lengths in one run, instead of video: each clip goes to the bucket that fits it."""
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
        if self.text.padding == "trim" and self.trainer.micro_batch_size > 1:
            raise ValueError(
                "text.padding: 'trim' gives each caption a context of its own length, so samples cannot share a "
                f"micro-batch; use 'pad', or trainer.micro_batch_size=1 (got {self.trainer.micro_batch_size})"
            )
        if self.trainer.sample_every_steps and 1 in map(self.latent_frames, self.windows):
            raise ValueError(
                "trainer.sample_every_steps: a window of one latent frame leaves none to sample after the known one; "
                "use null, or longer windows (video.num_pixel_frames)"
            )
        if self.trainer.global_batch_size % self.trainer.micro_batch_size:
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
        if acceleration.attention != "torch" and self.diffusion.compute_dtype == "float32":
            raise ValueError(
                f"acceleration.attention: {acceleration.attention!r} computes in bfloat16, not in "
                "diffusion.compute_dtype 'float32'; use 'torch', or compute_dtype=bfloat16"
            )
        problems = [*_engine_float8_problems(self)]
        if problems:
            raise ValueError(
                f"acceleration.linear: {acceleration.linear!r} does not admit this: {'; '.join(problems)}; "
                "change that, or use 'float8' or 'plain'"
            )
        return self


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
    """Why tokenizer, conditioning or network do not admit a window."""
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
    if experiment.buckets and total % share:
        yield f"parallel.context_parallel: {share} does not divide the {total} latent frames of {where}"
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
    """What of an experiment Transformer Engine's float8 layers do not admit."""
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
    if experiment.text.padding == "trim":
        yield "text.padding: 'trim' gives captions of any length"
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
