"""train: post-train the network on cached latents and text embeddings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.errors import ConfigError, FolderInUseError
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.lora import add_lora, init_lora
from cosmos_worker.runtime.outcome import PositionFile
from cosmos_worker.runtime.process_group import (
    Processes,
    join_processes,
)
from cosmos_worker.runtime.signals import StopSignal
from cosmos_worker.storage.earlier_runs import describe_length, folder_of
from cosmos_worker.storage.files import take_lock
from cosmos_worker.storage.volumes import (
    RESOLVED_CONFIG_FILE,
    Volumes,
    atomic_write,
)
from cosmos_worker.tokenizer.load import EMBEDDED, load_tokenizer
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer
from cosmos_worker.train.data import WindowDataset, check_same_windows
from cosmos_worker.train.export import remove_unfinished_exports
from cosmos_worker.train.noise import sample_generator
from cosmos_worker.train.parallelize import (
    Layout,
    accelerate,
    lay_out,
    spread,
)
from cosmos_worker.train.same_run import has_done_more, with_begun_warmup
from cosmos_worker.train.samples import open_samples
from cosmos_worker.train.step import use_bfloat16
from cosmos_worker.train.trackers.opening import choose_trackers
from cosmos_worker.train.trainer import (
    Trainer,
    run_training,
)
from cosmos_worker.train.validation import check_held_out
from cosmos_worker.train.words import check_enough_windows, describe_words, tell_words
from cosmos_worker.weights.load import (
    fill_model,
    open_model,
    read_weight_file,
)
from cosmos_worker.weights.weight_change import read_change

logger = logging.getLogger(__name__)

LOCK_FILE = ".lock"


def build_model(
    experiment: Experiment,
    weights: Path | None,
    layout: Layout,
    device: torch.device,
    lora_scale: float | None = None,
) -> CosmosModel:
    """The network with the model's weights, or fresh ones with trainer.init=random, spread over the processes.

    Args:
        experiment: network, adaptation, parallelism.
        weights: file or folder.
        layout: which process has what.
        device: of the result.
        lora_scale: factor of LoRA corrections in the weights, which are merged; None = as they say.

    Raises:
        ConfigError: no weights are named and init is checkpoint, or an acceleration is not to be had.
        CheckpointError: the weights do not fit.
    """
    model, state = _open(experiment, weights, lora_scale)
    bfloat16 = use_bfloat16(experiment.diffusion, device)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    if experiment.lora.rank:
        add_lora(model, experiment.lora, dtype)
    accelerate(model, experiment.acceleration, device)
    spread(model, experiment.parallel, layout, dtype)
    model = model.to_empty(device=device)
    fill_model(model, state, weights)
    seed = experiment.trainer.seed
    init_lora(model, lambda name: sample_generator(seed, "lora", name))
    return model


def _open(
    experiment: Experiment, weights: Path | None, lora_scale: float | None
) -> tuple[CosmosModel, Mapping[str, Tensor]]:
    """The network on the meta device, and its weights elsewhere."""
    rope_dtype = getattr(torch, experiment.diffusion.sigma_dtype)
    if experiment.trainer.init == "checkpoint":
        if weights is None:
            raise ConfigError(
                "model_uri: got null; name a folder or file of weights, or set trainer.init=random"
            )
        return open_model(weights, experiment.net, rope_dtype, lora_scale)
    arguments = (experiment.net, experiment.net.extra_pos_emb == "learnable", rope_dtype)
    fresh = CosmosModel(*arguments)
    with torch.no_grad():
        fresh.init_weights(torch.Generator().manual_seed(experiment.trainer.seed))
    with torch.device("meta"):
        return CosmosModel(*arguments), fresh.state_dict()


def _base_opener(
    experiment: Experiment, weights: Path | None, lora_scale: float | None
) -> Callable[[], Mapping[str, Tensor]] | None:
    """Opens the weights anew that the training began with and has checked; None if they were drawn."""
    if experiment.trainer.init != "checkpoint" or weights is None:
        return None
    return lambda: read_weight_file(weights, lora_scale, check_content=False)


def describe_run(
    experiment: Experiment, model: CosmosModel, dataset: WindowDataset, processes: Processes
) -> str:
    """One line: sizes and the batch arithmetic."""
    trainer = experiment.trainer
    epochs = trainer.max_steps * trainer.global_batch_size / max(1, len(dataset))
    shapes = [dataset.latent_shape(name) for name in dataset.sizes]
    latents = ",".join("x".join(map(str, shape)) for shape in shapes)
    patch = experiment.net.patch_size**2
    tokens = ",".join(str(T * H * W // patch) for _, T, H, W in shapes)
    return (
        f"parameters={sum(p.numel() for p in model.parameters())} "
        f"trained={sum(p.numel() for p in model.parameters() if p.requires_grad)} device={processes.device} "
        f"processes={processes.world_size} windows={len(dataset)} latent={latents} "
        f"tokens_per_sample={tokens} global_batch_size={trainer.global_batch_size} "
        f"samples_per_process={trainer.global_batch_size // processes.world_size} "
        f"steps={trainer.max_steps} epochs={epochs:.2f}"
    )


def write_resolved_config(run: Path, config: TrainConfig) -> None:
    """Save and print the resolved configuration."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    with atomic_write(run / RESOLVED_CONFIG_FILE, "w") as stream:
        stream.write(text)
    logger.info(
        "resolved configuration (saved as %s):\n%s", run / RESOLVED_CONFIG_FILE, text.rstrip()
    )


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder.

    Raises:
        FolderInUseError: another process trains in this folder.
        ConfigError: its volume has no locks.
    """
    path = folder / LOCK_FILE
    with path.open("a", encoding="utf-8") as stream:
        if not take_lock(stream.fileno(), path):
            raise FolderInUseError(
                f"{folder}: another process trains in this folder; wait for it, or stop it"
            )
        yield


def tokenizer_loader(
    config: TrainConfig, volumes: Volumes, device: torch.device
) -> Callable[[], VideoTokenizer] | None:
    """Loads the tokenizer that decodes sample videos; None if the document names none."""
    uri = config.tokenizer_uri
    if uri is None:
        return None
    folder: Path | Literal["embedded"] = EMBEDDED if uri == EMBEDDED else volumes.resolve(uri)
    return lambda: load_tokenizer(folder, config.experiment.tokenizer, device)


def run(config: TrainConfig, volumes: Volumes) -> dict[str, Any]:
    """Train; every process of torchrun calls this.

    Returns:
        run: its folder; steps, checkpoint: done, and of the last checkpoint; dropped_clips, losses, and a note if its
        number of steps differs from that of an earlier run.

    Raises:
        UserError: bad configuration, dataset or checkpoint.
        StopRequested: asked to stop; saved.
    """
    experiment = config.experiment
    folder = folder_of(config, volumes)
    trainer_options = experiment.trainer
    with (
        StopSignal().listening() as stop,
        join_processes(trainer_options.device, trainer_options.threads_per_process) as processes,
        ExitStack() as files,
    ):
        if processes.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            files.enter_context(only_writer(folder))
            remove_unfinished_exports(folder)
        found = _look_at_runs(config, volumes, folder) if processes.is_main else None
        experiment, note, is_done = processes.from_main(found) or (experiment, {}, False)
        if is_done:
            steps = trainer_options.max_steps
            change = read_change(folder, steps)
            return {
                "run": str(folder), "steps": steps, "checkpoint": steps, **note,
                **({"change": change} if change else {}),
            }  # fmt: skip
        config = config.model_copy(update={"experiment": experiment})
        if processes.is_main:
            write_resolved_config(folder, config)
        trainer = _open_trainer(config, volumes, folder, processes)
        trainer.resume()
        left_out = len(trainer.dataset.words.dropped)
        done = run_training(trainer, stop)
        return {"run": str(folder), "dropped_clips": left_out, **done, **note}


def _open_trainer(
    config: TrainConfig, volumes: Volumes, folder: Path, processes: Processes
) -> Trainer:
    """A run that has not begun: its windows, its network with the weights to begin with, and who watches it."""
    experiment = config.experiment
    dataset, held_out = _open_windows(config, volumes, folder, processes)
    trackers = choose_trackers(experiment.trainer.trackers)
    weights = volumes.resolve(config.model_uri) if config.model_uri else None
    layout = lay_out(experiment, processes)
    load = tokenizer_loader(config, volumes, processes.device)
    samples = open_samples(folder, held_out, experiment, load, processes, layout)
    model = build_model(experiment, weights, layout, processes.device, config.model_lora_scale)
    logger.info("training %s", describe_run(experiment, model, dataset, processes))
    return Trainer(
        experiment,
        folder,
        model,
        dataset,
        held_out,
        processes,
        layout,
        PositionFile.from_environment(os.environ),
        samples,
        trackers,
        config.model_uri,
        _base_opener(experiment, weights, config.model_lora_scale),
    )


def _open_windows(
    config: TrainConfig, volumes: Volumes, folder: Path, processes: Processes
) -> tuple[WindowDataset, WindowDataset]:
    """The training and the held-out windows, the same in all processes, and enough; told in the run's folder."""
    experiment = config.experiment
    index, text, latents = (
        volumes.resolve(uri)
        for uri in (config.dataset_uri, config.embeddings_uri, config.latents_uri)
    )
    dataset = WindowDataset(index, text, latents, "train", experiment)
    held_out = WindowDataset(index, text, latents, "val", experiment)
    check_same_windows({"train": dataset, "val": held_out}, processes)
    check_enough_windows(dataset, experiment.trainer.global_batch_size)
    check_held_out(experiment, held_out)
    if processes.is_main:
        tell_words(folder, describe_words(index, text, experiment.text.max_length))
    return dataset, held_out


def _look_at_runs(
    config: TrainConfig, volumes: Volumes, folder: Path
) -> tuple[Experiment, dict[str, str], bool]:
    """The experiment as its run began, a note on runs of other lengths, also in the log, and whether all is done."""
    note = describe_length(config, volumes)
    if note is not None:
        logger.warning("note: %s", note)
    experiment = with_begun_warmup(folder, config.experiment)
    is_done = has_done_more(folder, experiment)
    return experiment, {} if note is None else {"note": note}, is_done
