"""Sample videos while training: held-out windows continued from their first latent frame, always from the same noise.

Known frames, text and ground truth are the cached ones, so neither video nor text encoder is needed; only the
tokenizer's decoder, on the main process. No random number of the training is touched.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.network import VideoConfig
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.data.video.files import write_video
from cosmos_worker.errors import ConfigError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.dtensor import reshard
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.runtime.stall import beat
from cosmos_worker.sample.checks import check_admitted
from cosmos_worker.sample.sampler import (
    Settings,
    decode_latents,
    sample_latents,
)
from cosmos_worker.storage.volumes import (
    SAMPLED_WINDOWS_FILE,
    SAMPLES_FOLDER,
    TRUTH_FOLDER,
    samples_name,
    write_json,
)
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer
from cosmos_worker.train.data import WindowDataset
from cosmos_worker.train.ema import PowerEma
from cosmos_worker.train.step import use_bfloat16

logger = logging.getLogger(__name__)

DEFAULT_FPS = 24.0


def sampling_of(
    experiment: Experiment, video: VideoConfig, fps: float = DEFAULT_FPS
) -> SamplingConfig:
    """Sampling options of a window: one pass without guidance, RES solver, size and length as in training.

    Raises:
        ConfigError: the network or the tokenizer admits no such video.
    """
    sampling = SamplingConfig(
        num_steps=experiment.trainer.sample_steps,
        guidance=0.0,
        num_pixel_frames=video.num_pixel_frames,
        height=video.height,
        width=video.width,
        fps=fps,
        sampler="res_2ab",
        sigma_min=0.002,
    )
    check_admitted(experiment.net, experiment.tokenizer, sampling)
    return sampling


MAX_NAME = 150
"""Characters of a window's id in a file name, which may have 255 bytes: the last ones, which name the episode."""


def file_name(position: int, window_id: str) -> str:
    """File name of a window's video without suffix: its position and the end of its id."""
    return f"{position}-" + re.sub(r"[^A-Za-z0-9@._-]", "_", window_id)[-MAX_NAME:]


@dataclass(frozen=True)
class SampleVideos:
    """Samples the first held-out windows; all processes call :meth:`write` at the same step.

    Attributes:
        run: folder of the run.
        held_out: windows; at least one.
        experiment: of the run.
        tokenizer: decodes on the main process; None elsewhere.
        processes: of the run; each context group samples other windows.
    """

    run: Path
    held_out: WindowDataset
    experiment: Experiment
    tokenizer: VideoTokenizer | None
    processes: ProcessGroup

    def __post_init__(self) -> None:
        for video in self.experiment.windows:
            sampling_of(self.experiment, video)
        if self.processes.is_main and self.tokenizer is None:
            raise ConfigError("trainer.sample_every_steps: no tokenizer to decode the samples with")

    @property
    def _count(self) -> int:
        return min(self.experiment.trainer.sample_count, len(self.held_out))

    def write(self, model: CosmosModel, ema: PowerEma | None, step: int) -> dict[str, Path]:
        """Sample with the averaged weights, or with the trained ones if there is no average; both stay as they are.

        Returns:
            MP4 files by name, on the main process only; a video that could not be decoded or written is left out with a
            warning.
        """
        averaged: AbstractContextManager[None] = ema.in_use(model) if ema else nullcontext()
        was_training = model.training
        model.eval()
        with averaged:
            own = self._sample_own(model)
        reshard(model)
        model.train(was_training)
        latents: dict[int, Tensor] = {}
        for some in self.processes.gather(own):
            latents.update(some)
        if not self.processes.is_main:
            return {}
        folder = self.run / SAMPLES_FOLDER / samples_name(step)
        written = {}
        self._write_windows()
        for position in range(self._count):
            self._write_truth(position)
            beat()
            path = self._write_video(folder, position, latents[position])
            if path is not None:
                written[path.stem] = path
        return written

    def _sample_own(self, model: CosmosModel) -> dict[int, Tensor]:
        """Latents by position, on the CPU; processes without work repeat some, as the network may be sharded."""
        found = {}
        for i in range(-(-self._count // self.processes.data_size)):
            item = i * self.processes.data_size + self.processes.data_rank
            latent = self._sample(model, item % self._count)
            if item < self._count:
                found[item] = latent
        return found

    def _sample(self, model: CosmosModel, position: int) -> Tensor:
        experiment, device = self.experiment, self.processes.device
        batch = self.held_out.batch([position])
        window = self.held_out.windows[position]
        video = self.held_out.sizes[window.bucket]
        dtype = torch.bfloat16 if use_bfloat16(experiment.diffusion, device) else torch.float32
        settings = Settings(
            sampling_of(experiment, video, float(batch.fps_B[0])),
            experiment.latent_frames(video),
            experiment.text,
            experiment.diffusion.sigma_data,
            None,
            dtype,
            text_padding=experiment.text_padding,
        )

        def network(*inputs: Tensor) -> Tensor:
            beat()
            return model(*inputs)[0]  # through the module, whose hooks gather sharded weights

        names = [window.window_id]
        known, text = batch.x0_BCTHW.to(device), batch.text_BSD.to(device)
        return sample_latents(network, names, known, text, None, settings).cpu()

    def _write_windows(self) -> None:
        """Write window and caption of each video; the dataset's index also has windows that the training leaves out."""
        captions = self.held_out.captions(range(self._count))
        windows = self.held_out.windows[: self._count]
        names = {
            file_name(position, window.window_id): {"window": window.window_id, "caption": caption}
            for position, (window, caption) in enumerate(zip(windows, captions, strict=True))
        }
        try:
            write_json(self.run / SAMPLES_FOLDER / SAMPLED_WINDOWS_FILE, names)
        except OSError as error:  # a full disk: the training goes on
            logger.warning("the list of sampled windows is left out (%s)", error.strerror)

    def _write_truth(self, position: int) -> None:
        folder = self.run / SAMPLES_FOLDER / TRUTH_FOLDER
        name = file_name(position, self.held_out.windows[position].window_id)
        if not (folder / f"{name}.mp4").is_file():
            self._write_video(folder, position, self.held_out.batch([position]).x0_BCTHW)

    def _write_video(self, folder: Path, position: int, latent_BCTHW: Tensor) -> Path | None:
        name = file_name(position, self.held_out.windows[position].window_id)
        if not bool(latent_BCTHW.isfinite().all()):
            logger.warning("samples window=%s is left out: its latents are not finite", name)
            return None
        path = folder / f"{name}.mp4"
        assert self.tokenizer is not None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            latent = latent_BCTHW.to(self.processes.device)
            sigma_data = self.experiment.diffusion.sigma_data
            frames = decode_latents(self.tokenizer, latent, sigma_data)[0]
            write_video(path, frames, float(self.held_out.batch([position]).fps_B[0]))
        except (OSError, RuntimeError) as error:  # disk or memory: the training goes on
            reason = " ".join(str(error).split())[:200]
            logger.warning("samples window=%s is left out (%s)", name, reason)
            return None
        return path


def open_samples(
    run: Path,
    held_out: WindowDataset,
    experiment: Experiment,
    load_tokenizer: Callable[[], VideoTokenizer] | None,
    processes: ProcessGroup,
) -> SampleVideos | None:
    """The maker of sample videos of a run; None if it was not asked for.

    Args:
        run: folder of the run.
        held_out: windows.
        experiment: of the run.
        load_tokenizer: called on the main process; None = the document names no tokenizer.
        processes: of the run.

    Raises:
        ConfigError: asked for without a tokenizer, or sizes that cannot be sampled.
        CheckpointError: the tokenizer's files are damaged or of another network.
    """
    if experiment.trainer.sample_every_steps is None:
        return None
    if load_tokenizer is None:
        raise ConfigError(
            "tokenizer_uri: got null, but trainer.sample_every_steps asks for sample videos, which it decodes; name a "
            "tokenizer's folder, or set trainer.sample_every_steps=null"
        )
    tokenizer = load_tokenizer() if processes.is_main else None
    return SampleVideos(run, held_out, experiment, tokenizer, processes)
