"""Stage documents: the complete, typed input of each command of the worker. No torch here.

Defaults live in the experiments (``presets.py``) and in the PostTrainingJob models of the operator; a stage
document that the plan writes is complete. Fields that end in ``_uri`` are volume addresses
(``models://name``) or plain paths.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from cosmos_worker.config.choices import DatasetLayout, Fit, FrameRate
from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import (
    NetConfig,
    TextConfig,
    TextPadding,
    TokenizerConfig,
    TokenizerRuntime,
    VideoConfig,
)
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.config.source import Artifact, Source
from cosmos_worker.config.training import CompileChoice
from cosmos_worker.config.values import (
    Caption,
    FolderName,
    Fraction,
    Model,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveInt,
)


class StageConfig(Model):
    """The part that all stage documents have."""

    key: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9._-]*$")]
    """Content key: names the completion marker complete-<key>.json in the target folder."""
    target_uri: PathText
    """Folder that the stage writes."""
    verify: Literal["sampled", "full"] = "sampled"
    """The way in which files that other stages have made are compared with their recorded digests: sampled = sizes,
    samples of weights, and the checksum of each embedding and latent that is read; full = also all of every file, once
    before the stage begins."""


class FetchModelConfig(StageConfig):
    """fetch-model: weights, tokenizer, text encoder, guardrails and prompt upsampler into the models volume."""

    artifacts: tuple[Artifact, ...]


class PrepareDatasetConfig(StageConfig):
    """prepare-dataset: fetch, check every clip, write index.jsonl, summary.json, report.md."""

    source: Source
    data_uri: PathText
    """Folder that receives a fetched archive or repository; unused for a path source."""
    layout: DatasetLayout
    """bridge: annotation/{train,val,test}/*.json; videos: videos/*.mp4 with metas/*.txt; lerobot: meta/info.json with
    parquet files; jsonl: a list of videos and captions (*.jsonl, metadata.csv, prompts.txt with videos.txt)."""
    video: VideoConfig
    buckets: Annotated[tuple[VideoConfig, ...], Field(max_length=64)] = ()
    """Windows of several sizes; empty = those of video."""
    max_bad_fraction: Fraction = 0.05
    """Fail if a larger share of the clips is unusable."""
    min_clips: PositiveInt = 1
    """Fail if fewer training windows than this remain (one global batch)."""
    camera: NonNegativeInt = 0
    """Index into the annotation's list of videos (layout bridge)."""
    camera_name: str | None = None
    """Feature with the videos, such as observation.images.front (layout lerobot); null = the only one."""
    frame_rate: FrameRate = "constant"
    """constant: a clip whose frames are not shown at equal intervals is unusable; resample: each window takes the
    frames that are shown at equal intervals of 1 / video.fps."""
    fit: Fit = "stretch"
    """The way in which frames of another aspect ratio are brought to the window's size."""
    validation_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training episodes that becomes the split val, if the source has none."""
    validation_seed: NonNegativeInt = 0
    """Seed of the draw of these episodes."""
    num_workers: PositiveInt | None = None
    """Videos that are checked at the same time; null = as many as this container has CPUs."""

    @model_validator(mode="after")
    def _camera_is_of_the_layout(self) -> Self:
        if self.camera_name is not None and self.layout != "lerobot":
            raise ValueError(
                f"camera_name: {self.camera_name!r} chooses a camera of the layout lerobot, the layout is "
                f"{self.layout}; remove it"
            )
        if self.camera and self.layout != "bridge":
            raise ValueError(
                f"camera: {self.camera} chooses a video of an annotation (layout bridge), the layout is {self.layout}; "
                + ("use camera_name" if self.layout == "lerobot" else "remove it")
            )
        return self

    @model_validator(mode="after")
    def _rate_is_given(self) -> Self:
        if self.frame_rate == "resample":
            windows = {f"buckets.{number}": size for number, size in enumerate(self.buckets)}
            problems = [
                f"{where}.fps: is null, frame_rate 'resample' takes frames at that rate; give the frames per second"
                for where, size in (windows or {"video": self.video}).items()
                if size.fps is None
            ]
            if problems:
                raise ValueError("; ".join(problems))
        return self


class EmbedTextConfig(StageConfig):
    """embed-text: one T5 embedding per distinct caption; target_uri is shared by all jobs of one encoder."""

    dataset_uri: PathText
    """Folder with the dataset's index."""
    encoder_uri: PathText
    """Folder of a T5 encoder that transformers can load."""
    max_length: PositiveInt = 512
    batch_size: PositiveInt = 16
    """Captions per forward pass."""
    max_unknown_fraction: Fraction = 0.05
    """Fail if a larger share of the captions is more than half unknown to the encoder; clips
    with no other caption are left out of the training."""
    extra_captions: tuple[Caption, ...] = ()
    """Further texts to embed, such as prompts of the inference list."""
    import_pickles: bool = False
    """Take over the reference's .pickle files that lie beside the dataset's captions; they must be of this encoder."""
    export_pickles_uri: PathText | None = None
    """Folder that receives the embeddings as the reference's .pickle files too; null = not written."""


class CacheLatentsConfig(StageConfig):
    """cache-latents: every window of the index through the tokenizer, once."""

    dataset_uri: PathText
    tokenizer_uri: PathText
    """Folder with encoder.jit, decoder.jit, mean_std.pt; or the word 'embedded'."""
    video: VideoConfig
    buckets: Annotated[tuple[VideoConfig, ...], Field(max_length=64)] = ()
    """Those of prepare-dataset."""
    fit: Fit = "stretch"
    """That of prepare-dataset."""
    tokenizer: TokenizerConfig
    tokenizer_runtime: TokenizerRuntime = "native"
    """native = nothing in the tokenizer's files is run; torchscript = the programs in them are."""


class StartFrom(Model):
    """A checkpoint of another run, which the training takes over whole: weights, optimizer, average, step."""

    run_uri: PathText
    """Folder of the run: output root/PROJECT/GROUP/NAME."""
    step: PositiveInt | None = None
    """Step of the checkpoint; null = the latest."""


class TrainConfig(StageConfig):
    """train: target_uri is the output root; the run lies in PROJECT/GROUP/NAME below it."""

    experiment: Experiment
    run_name: FolderName
    """NAME of the run's folder."""
    model_uri: PathText | None
    """Weights to start from: a file, or a folder with any form that can be loaded; null with trainer.init=random."""
    model_lora_scale: PositiveFloat | None = None
    """Factor of LoRA corrections in these weights, which are merged; null = as they say, or there are none."""
    dataset_uri: PathText
    embeddings_uri: PathText
    latents_uri: PathText
    tokenizer_uri: PathText | None = None
    """Folder of the tokenizer, or the word 'embedded', for trainer.sample_every_steps; null = no sample videos."""
    tokenizer_runtime: TokenizerRuntime = "native"
    """That of cache-latents."""
    start_from: StartFrom | None = None
    """Checkpoint to begin with, unless the run has a later one of its own; null = begin with the weights."""
    job: str | None = None
    """Name of the job that publishes what is trained; null = nobody does."""
    job_namespace: str | None = None
    """Namespace of that job; null = it has none."""
    published_uri: PathText | None = None
    """Folder in which that job publishes, where no other one may have; null = not checked."""


class PublishConfig(StageConfig):
    """publish: target_uri is the published folder; it receives model.pt and model.json."""

    run_uri: PathText
    """Folder of the run: output root/PROJECT/GROUP/NAME."""
    job: str
    """Name of the job; a published model is replaced by the job that published it only."""
    job_namespace: str | None = None
    """Namespace of the job, which belongs to its name; null = it has none, as on one machine."""
    job_uid: str | None = None
    """Uid of the job in Kubernetes, recorded with the model; null = it has none."""
    name: FolderName
    """Name of the published model."""
    net: NetConfig
    weights: Literal["ema", "reg"] = "ema"
    step: PositiveInt | Literal["best"] | None = None
    """Step to publish; null = the latest export; best = where the held-out loss was lowest (trainer.keep_best)."""
    last_step: PositiveInt | None = None
    """With step best: later checkpoints do not count; null = all do."""
    adapter_of: str | None = None
    """Publish the run's LoRA corrections too, in adapter/, as those of the model of this name; null = merged only."""


class GenerateInput(Model):
    """One video to generate."""

    prompt: Caption
    visual_input_uri: PathText
    """Image or video whose frames are known."""
    ground_truth_uri: PathText | None = None
    """Video to compare with; null = none."""
    id: str | None = None
    """File name of the result without suffix; null = its position in the list."""


class GuardrailsConfig(Model):
    """Models that judge prompts and videos; all of them are used."""

    folder_uri: PathText
    """Folder with the word lists, blocklist/, and with video_content_safety_filter/safety_filter.pt."""
    text_classifier_uri: PathText
    """Folder of a chat model of the Llama Guard kind."""
    image_encoder_uri: PathText
    """Folder of the SigLIP model whose features the video filter takes."""
    face_blur: bool = False
    """Blur faces, which face_blur_filter/Resnet50_Final.pth in the same folder finds."""


class ItemConfig(Model):
    """An inference item without the network: all that can be checked before it is trained."""

    name: str
    """Name of the inference item."""
    inputs: tuple[GenerateInput, ...] = ()
    """Inputs given in the job."""
    inputs_file_uri: PathText | None = None
    """JSONL of {visual_input, prompt[, ground_truth, id]}; paths are relative to the file."""
    sampling: SamplingConfig
    fit: Fit = "stretch"
    """The way in which conditioning images and videos of another aspect ratio are brought to the size of the result."""
    fps_of_inputs: bool = False
    """Each conditioning video goes on at its own frames per second; those of sampling count for images, unless all
    videos of the item have one rate."""
    metrics: tuple[Literal["psnr", "push"], ...] = ()
    """psnr: against ground truth and copied first frame; push: instruction following of the push example."""
    prompt_upsampler_uri: PathText | None = None
    """Folder of a vision-language model that writes longer prompts; null = prompts as they are."""
    guardrails: GuardrailsConfig | None = None
    """Models that judge prompts and videos; null = none does."""


class CheckInputsConfig(StageConfig):
    """check-inputs: everything that the inference items read, before the training; writes no more than its marker."""

    net: NetConfig
    tokenizer: TokenizerConfig
    encoder_uri: PathText | None = None
    """Folder of the text encoder, whose tokenizer finds words of prompts that it does not know; null = not checked."""
    items: tuple[ItemConfig, ...]
    """In the order of the job."""
    job: str | None = None
    """Name of the job that publishes what is trained; null = nobody does."""
    job_namespace: str | None = None
    """Namespace of that job; null = it has none."""
    published_uri: PathText | None = None
    """Folder in which that job publishes, where no other one may have; null = not checked."""


class GenerateConfig(ItemConfig, StageConfig):
    """generate: Video2World samples as <id>.mp4 and <id>.json, and generated.jsonl."""

    checkpoint_uri: PathText
    """Weights of the network: a file, or a folder with any form that can be loaded."""
    checkpoint_lora_scale: PositiveFloat | None = None
    """Factor of LoRA corrections in these weights, which are merged; null = as they say, or there are none."""
    net: NetConfig
    text: TextConfig
    text_padding: TextPadding = "pad"
    """The form of the text context: pad or trim, as in the training of these weights."""
    sigma_data: PositiveFloat = 0.5
    tokenizer_uri: PathText
    tokenizer: TokenizerConfig
    tokenizer_runtime: TokenizerRuntime = "native"
    """native = nothing in the tokenizer's files is run; torchscript = the programs in them are."""
    encoder_uri: PathText
    embeddings_uri: PathText | None = None
    """Folder in which embed-text stores embeddings of this encoder; only texts that are not there are computed. null =
    all are."""
    context_parallel: PositiveInt = 1
    """Neighbouring processes that share the latent frames of a video; must divide the frames and the processes."""
    offload: tuple[Literal["tokenizer", "network"], ...] = ()
    """Models that wait in host memory while another computes; the text encoder is always freed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """The device; auto = CUDA if there is one."""
    compute_dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the network's matrix products; auto = bfloat16 on CUDA, float32 on CPU."""
    compile: CompileChoice = "auto"
    """torch.compile of each block of the network; auto = on CUDA, where it can be done."""


class ReportConfig(StageConfig):
    """report: report.html from generated videos, and from the run that trained their model."""

    job_name: str
    run_uri: PathText | None
    """Folder of the run; null = the model was not trained by a run that is known."""
    steps: PositiveInt | None = None
    """Steps of the run that the report is about; null = all that it has done."""
    dataset_uri: PathText | None
    """Folder with the index of the run's dataset; null without a run."""
    generated: tuple[tuple[str, PathText], ...]
    """(inference item name, folder) in the order of the job."""
    max_videos: PositiveInt = 12
    """Generated videos that are shown per inference item."""


STAGE_CONFIGS: dict[str, type[StageConfig]] = {
    "fetch-model": FetchModelConfig,
    "prepare-dataset": PrepareDatasetConfig,
    "embed-text": EmbedTextConfig,
    "cache-latents": CacheLatentsConfig,
    "check-inputs": CheckInputsConfig,
    "train": TrainConfig,
    "publish": PublishConfig,
    "generate": GenerateConfig,
    "report": ReportConfig,
}
"""Stage name (= command of the worker) → its document."""


# --- reading documents -----------------------------------------------------------------------
