"""The inference list of a PostTrainingJob: the videos to generate, and the parameters of sampling."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from cosmos_operator.api.base import Address, ApiModel, CountOrZero, ItemName, rules
from cosmos_operator.api.pod_template import StagePodTemplate
from cosmos_worker.config.captions import normalise_caption
from cosmos_worker.config.sampling import SamplingConfig

_SAMPLING = SamplingConfig()


def _visible(prompt: str) -> str:
    if not prompt:
        raise ValueError("is blank; write what the video shows")
    return prompt


Prompt = Annotated[
    str,
    Field(min_length=1, max_length=1000),
    AfterValidator(normalise_caption),
    AfterValidator(_visible),
]
NegativePrompt = Annotated[str, Field(max_length=1000), AfterValidator(normalise_caption)]


class InferenceInput(ApiModel):
    """One video to generate."""

    prompt: Prompt
    """Prompt: a description of what happens in the video."""
    conditioning: Address
    """Image or video that the generated video continues: dataset://FILE for a file of the dataset, a volume address
    such as datasets://FOLDER/FILE, or a path."""
    ground_truth: Address | None = None
    """Real continuation to compare the generated video with, an address like that of conditioning. Omitted: there
    is none."""


class SamplingParameters(ApiModel):
    """Parameters of the diffusion sampling."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.numPixelFrames) || (self.numPixelFrames - 1) % 8 == 0",
                "numPixelFrames must be 8n+1, such as 57 or 121",
            )
        )
    )

    steps: Annotated[int, Field(ge=1, le=1000)] = _SAMPLING.num_steps
    """Number of steps of the sampler."""
    guidance: Annotated[float, Field(ge=0, le=100)] = _SAMPLING.guidance
    """Classifier-free guidance g in cond + g (cond - uncond), as NVIDIA counts it: the usual scale is g + 1. With 0
    there is no guidance, and the network is evaluated once a step instead of twice."""
    seed: CountOrZero = _SAMPLING.seed
    """Seed of the initial noise; each input draws from a stream of its own."""
    num_pixel_frames: Annotated[int, Field(ge=1, le=1025)] | None = None
    """Number of frames of each video, or with several passes of each pass; a number of the form 8n+1. Omitted: that
    of the training."""
    height: Annotated[int, Field(ge=16, le=4096, multiple_of=16)] | None = None
    """Height of the videos in pixels, a multiple of 16. Omitted: that of the training."""
    width: Annotated[int, Field(ge=16, le=4096, multiple_of=16)] | None = None
    """Width of the videos in pixels, a multiple of 16. Omitted: that of the training."""
    fps: Annotated[float, Field(gt=0, le=240)] | None = None
    """Frames per second. Omitted: those of the experiment; if it has none, those of each conditioning video, and 24
    for images."""
    num_input_frames: Literal[1, 9] = _SAMPLING.num_input_frames
    """Number of frames of the conditioning input that each video begins with: 1 (one latent frame) or 9 (two)."""
    passes: Annotated[int, Field(ge=1, le=64)] = _SAMPLING.num_passes
    """Number of passes, for longer videos: each pass after the first continues the video from its last
    numInputFrames frames."""
    input_frames: Literal["First", "Last"] = "Last"
    """Frames of a conditioning video that are used: the First or the Last numInputFrames."""
    negative_prompt: NegativePrompt | None = None
    """Prompt whose content the video is guided away from. Omitted: a default text that describes bad recordings, which
    is not the default of NVIDIA's script: for its videos, give its text."""
    sampler: Literal["EdmEuler", "Res2Ab", "Res2Mid", "Res1Euler"] = "EdmEuler"
    """Solver of the diffusion. EdmEuler: that of NVIDIA's inference. Res1Euler, Res2Ab, Res2Mid: the RES solvers of its
    training code, of first order, of second order by the step before, and of second order by a step between."""
    sigma_max: Annotated[float, Field(gt=0, le=1000)] = _SAMPLING.sigma_max
    """Noise level (sigma) of the first step."""
    sigma_min: Annotated[float, Field(gt=0, le=1)] = _SAMPLING.sigma_min
    """Lowest noise level (sigma), from which the last step goes to 0."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = _SAMPLING.batch_size
    """Number of videos that a process samples at the same time."""

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        frames = self.num_pixel_frames
        if frames is not None and (frames - 1) % 8:
            low = frames - (frames - 1) % 8
            raise ValueError(f"numPixelFrames: {frames} is not 8n+1; use {low} or {low + 8}")
        return self


class InferenceItem(ApiModel):
    """A set of videos to generate with one model and one set of parameters."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.inputs) != has(self.inputsFile)",
                "give exactly one of inputs and inputsFile",
            ),
            (
                "!has(self.gpus) || self.gpus == 0 || !has(self.processes)"
                " || self.processes == self.gpus",
                "processes must equal gpus; omit it where there are GPUs",
            ),
            ("self == oldSelf", "inference items cannot be changed; append one with another name"),
        )
    )

    name: ItemName
    """Name of the item, unique in the job, a DNS label; folders and pods bear it."""
    checkpoint: Literal["Published", "Base"] = "Published"
    """Model to generate with. Published: the post-trained one. Base: the one that the training started from."""
    inputs: Annotated[tuple[InferenceInput, ...], Field(min_length=1, max_length=64)] | None = None
    """Videos to generate. Give this or inputsFile."""
    inputs_file: Address | None = None
    """File with the videos to generate, one JSON object {visual_input, prompt, ground_truth, id} a line:
    dataset://FILE for a file of the dataset, a volume address, or a path. Give this or inputs."""
    metrics: Annotated[
        tuple[Literal["Psnr", "Push"], ...],
        Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """Metrics to compute. Psnr: peak signal-to-noise ratio against the ground truth, beside that of a repeated
    first frame. Push: rate at which instructions are followed, for the videos of the example pushing."""
    parameters: SamplingParameters = SamplingParameters()
    """Parameters of the diffusion sampling."""
    prompt_upsampler: bool = False
    """True lets the model of spec.promptUpsampler rewrite the prompts into longer ones."""
    guardrails: bool = False
    """True lets spec.guardrails check prompts and videos; inputs that they block get no video."""
    gpus: Annotated[int, Field(ge=0, le=8)] | None = None
    """Number of GPUs of the item's pod, with one process on each. Omitted: 1 if the training has GPUs, otherwise
    0."""
    processes: Annotated[int, Field(ge=1, le=8)] | None = None
    """Number of processes of the item's pod, among which its videos are divided. Omitted: one for each GPU, or 1 on
    the CPU."""
    context_parallel: Annotated[int, Field(ge=1, le=8)] = 1
    """Number of processes among which the latent frames of each video are divided, for long videos; it must divide
    the number of processes and that of the latent frames of a pass. With 1, each process generates videos of its
    own."""
    offload: Annotated[
        tuple[Literal["Tokenizer", "Network"], ...],
        Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """Models that are kept in host memory while another one computes: Tokenizer, Network. The text encoder is
    always unloaded after use."""
    pod_template: StagePodTemplate | None = None
    """Changes of the item's pod, merged after those of spec.stages.generate.podTemplate."""

    @model_validator(mode="after")
    def _one_kind_of_inputs(self) -> Self:
        if (self.inputs is None) == (self.inputs_file is None):
            got = "nothing" if self.inputs is None else "inputs and inputsFile"
            raise ValueError(f"got {got}; give exactly one of inputs and inputsFile")
        for name in ("metrics", "offload"):
            values = getattr(self, name)
            if len(set(values)) != len(values):
                raise ValueError(f"{name}: {list(values)} repeats a value; name each once")
        return self

    @model_validator(mode="after")
    def _one_process_for_each_gpu(self) -> Self:
        if self.gpus and self.processes not in (None, self.gpus):
            raise ValueError(
                f"processes: {self.processes} is not gpus {self.gpus}; omit it where there are GPUs"
            )
        return self

    def num_gpus(self, gpus_per_node: int) -> int:
        """GPUs of the item's pod.

        Args:
            gpus_per_node: GPUs of each node of the job's training.
        """
        return min(1, gpus_per_node) if self.gpus is None else self.gpus

    def num_processes(self, gpus_per_node: int) -> int:
        """Processes of the item's pod, see :meth:`num_gpus`."""
        return self.num_gpus(gpus_per_node) or self.processes or 1
