"""The inference list of a PostTrainingJob: what to generate once the model is published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from typing_extensions import Self

from cosmos_operator.api.base import Address, ApiModel, CountOrZero, ItemName, rules
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
    """What should happen."""
    conditioning: Address
    """Image or video that it starts from: dataset://FILE, a volume address or a path."""
    ground_truth: Address | None = None
    """Video to compare with; omitted = none."""


class SamplingParameters(ApiModel):
    """How the videos are sampled."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.numPixelFrames) || (self.numPixelFrames - 1) % 8 == 0",
                "numPixelFrames must be 8n+1, such as 57 or 121",
            )
        )
    )

    steps: Annotated[int, Field(ge=1, le=1000)] = _SAMPLING.num_steps
    """Sampler steps."""
    guidance: Annotated[float, Field(ge=0, le=100)] = _SAMPLING.guidance
    """Strength of the prompt against the negative prompt; 0 = no second pass."""
    seed: CountOrZero = _SAMPLING.seed
    """Seed of the initial noise; each input uses a stream of its own."""
    num_pixel_frames: Annotated[int, Field(ge=1, le=1025)] | None = None
    """Frames of each video, or of each pass, 8n+1; omitted = as trained."""
    height: Annotated[int, Field(ge=16, le=4096, multiple_of=16)] | None = None
    """Rows in pixels; omitted = as trained."""
    width: Annotated[int, Field(ge=16, le=4096, multiple_of=16)] | None = None
    """Columns in pixels; omitted = as trained."""
    fps: Annotated[float, Field(gt=0, le=240)] | None = None
    """Frames per second; omitted = the experiment's, or each conditioning video's own, 24 for images."""
    num_input_frames: Literal[1, 9] = _SAMPLING.num_input_frames
    """Known frames at the start: 1 (one latent frame) or 9 (two)."""
    passes: Annotated[int, Field(ge=1, le=64)] = _SAMPLING.num_passes
    """Passes over each video; each after the first continues it from its last numInputFrames frames."""
    input_frames: Literal["First", "Last"] = "Last"
    """Which frames of a conditioning video are known."""
    negative_prompt: NegativePrompt | None = None
    """Text to stay away from; omitted = a default text against bad recordings."""
    sampler: Literal["EdmEuler", "Res2Ab", "Res2Mid", "Res1Euler"] = "EdmEuler"
    """EdmEuler: the reference's inference; Res*: its multistep solvers."""
    sigma_max: Annotated[float, Field(gt=0, le=1000)] = _SAMPLING.sigma_max
    """Noise level at the first step."""
    sigma_min: Annotated[float, Field(gt=0, le=1)] = _SAMPLING.sigma_min
    """Noise level at the last step."""
    batch_size: Annotated[int, Field(ge=1, le=1024)] = _SAMPLING.batch_size
    """Videos that are sampled together."""

    @model_validator(mode="after")
    def _frames_fit(self) -> Self:
        frames = self.num_pixel_frames
        if frames is not None and (frames - 1) % 8:
            low = frames - (frames - 1) % 8
            raise ValueError(f"numPixelFrames: {frames} is not 8n+1; use {low} or {low + 8}")
        return self


class InferenceItem(ApiModel):
    """A set of videos to generate with one checkpoint and one set of parameters."""

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
    """Name of the item, unique in the job."""
    checkpoint: Literal["Published", "Base"] = "Published"
    """The post-trained model, or the one that it started from."""
    inputs: Annotated[tuple[InferenceInput, ...], Field(min_length=1, max_length=64)] | None = None
    """Videos to generate."""
    inputs_file: Address | None = None
    """JSON lines of {visual_input, prompt, ground_truth, id}: dataset://FILE, a volume address or a path."""
    metrics: Annotated[
        tuple[Literal["Psnr", "Push"], ...],
        Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """Psnr: against the ground truth and the copied first frame; Push: instruction following of the push example."""
    parameters: SamplingParameters = SamplingParameters()
    """How the videos are sampled."""
    prompt_upsampler: bool = False
    """Let the model of spec.promptUpsampler write longer prompts."""
    guardrails: bool = False
    """Let spec.guardrails judge prompts and videos; what they block gets no video."""
    gpus: Annotated[int, Field(ge=0, le=8)] | None = None
    """GPUs of the item's pod, a process on each; omitted = 1 if the training has GPUs, otherwise 0."""
    processes: Annotated[int, Field(ge=1, le=8)] | None = None
    """Processes of the item's pod, which share its videos; omitted = one for each GPU, or 1 on the CPU."""
    context_parallel: Annotated[int, Field(ge=1, le=8)] = 1
    """Processes that share the latent frames of each video, for long videos; must divide the processes and the frames
    of a pass. 1 = each process has videos of its own."""
    offload: Annotated[
        tuple[Literal["Tokenizer", "Network"], ...],
        Field(max_length=2, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """Models that wait in host memory while another computes; the text encoder is always freed."""

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
        """GPUs of the item's pod, in a job whose training has so many on each node."""
        return min(1, gpus_per_node) if self.gpus is None else self.gpus

    def num_processes(self, gpus_per_node: int) -> int:
        """Processes of the item's pod."""
        return self.num_gpus(gpus_per_node) or self.processes or 1
