"""train: post-train the network on cached latents and text embeddings."""

from __future__ import annotations

import logging
import os
import time
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
from cosmos_worker.model.compiled_blocks import keep_compiled_code
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.model.lora import add_lora, init_lora
from cosmos_worker.runtime.outcome import NODE_VARIABLE, PositionFile
from cosmos_worker.runtime.process_group import (
    ProcessGroup,
    join_processes,
)
from cosmos_worker.runtime.signals import StopSignal
from cosmos_worker.runtime.stall import collective_timeout
from cosmos_worker.storage.attempts import Attempt, recorded_attempt
from cosmos_worker.storage.earlier_runs import describe_length, folder_of
from cosmos_worker.storage.files import take_lock
from cosmos_worker.storage.published import check_name_is_free
from cosmos_worker.storage.volumes import (
    RESOLVED_CONFIG_FILE,
    Volumes,
    atomic_write,
)
from cosmos_worker.tokenizer.load import EMBEDDED, load_tokenizer
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer
from cosmos_worker.train.checkpoint import finish_interrupted_save, set_unreadable_aside
from cosmos_worker.train.data import (
    WindowDataset,
    check_enough_windows,
    check_same_windows,
    describe_caption_losses,
    report_caption_losses,
)
from cosmos_worker.train.export import remove_unfinished_exports
from cosmos_worker.train.gpu_choice import choose_for_gpu
from cosmos_worker.train.noise import sample_generator
from cosmos_worker.train.parallelize import (
    accelerate,
    check_float8_pays,
    form_shard_mesh,
    parallelize,
    run_blocks,
    share_frames,
)
from cosmos_worker.train.same_run import is_beyond, with_initial_warmup
from cosmos_worker.train.samples import open_samples
from cosmos_worker.train.starting_point import StartingPoint, find_starting_point
from cosmos_worker.train.step import use_bfloat16
from cosmos_worker.train.trackers.opening import choose_trackers
from cosmos_worker.train.trainer import (
    Trainer,
    train,
)
from cosmos_worker.train.validation import check_held_out
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
    processes: ProcessGroup,
    lora_scale: float | None = None,
) -> CosmosModel:
    """The network with the model's weights, or fresh ones with trainer.init=random, parallelized.

    Args:
        experiment: options of network, LoRA, parallelism and acceleration.
        weights: file or folder; None with trainer.init=random.
        processes: of :func:`share_frames`; the result is on their device.
        lora_scale: factor of LoRA corrections in the weights, which are merged; None = as the file says.

    Raises:
        ConfigError: init is checkpoint and no weights are named, or an acceleration needs what is missing.
        CheckpointError: the weights do not fit.
    """
    device = processes.device
    mesh = form_shard_mesh(experiment.parallel, processes)
    model, state = _open_weights(experiment, weights, lora_scale)
    bfloat16 = use_bfloat16(experiment.diffusion, device)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    if experiment.lora.rank:
        add_lora(model, experiment.lora, dtype)
    accelerate(model, experiment.acceleration, device)
    is_compiled = run_blocks(model, experiment, device)
    check_float8_pays(experiment.acceleration, device, is_compiled)
    parallelize(model, experiment.parallel, processes, mesh, dtype)
    model = model.to_empty(device=device)
    fill_model(model, state, weights)
    seed = experiment.trainer.seed
    init_lora(model, lambda name: sample_generator(seed, "lora", name))
    return model


def _open_weights(
    experiment: Experiment, weights: Path | None, lora_scale: float | None
) -> tuple[CosmosModel, Mapping[str, Tensor]]:
    """The network on the meta device, without values, and its weights by name."""
    rope_dtype = torch.bfloat16 if experiment.compat.bfloat16_sigma else torch.float32
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
    """A function that opens the weights that the training began with again; None if they were drawn at random."""
    if experiment.trainer.init != "checkpoint" or weights is None:
        return None
    return lambda: read_weight_file(weights, lora_scale, check_content=False)


def describe_run(
    experiment: Experiment, model: CosmosModel, dataset: WindowDataset, processes: ProcessGroup
) -> str:
    """One log line with sizes of network, dataset and batches."""
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
    """Write the resolved configuration into the run's folder, and log it."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    with atomic_write(run / RESOLVED_CONFIG_FILE, "w") as stream:
        stream.write(text)
    logger.info(
        "resolved configuration (saved as %s):\n%s", run / RESOLVED_CONFIG_FILE, text.rstrip()
    )


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Lock the folder of a run inside the block.

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
    """A function that loads the tokenizer for sample videos; None if the document names none."""
    uri = config.tokenizer_uri
    if uri is None:
        return None
    folder: Path | Literal["embedded"] = EMBEDDED if uri == EMBEDDED else volumes.resolve(uri)
    return lambda: load_tokenizer(
        folder, config.experiment.tokenizer, device, config.tokenizer_runtime
    )


def run(config: TrainConfig, volumes: Volumes) -> dict[str, Any]:
    """Train; every process of torchrun calls this.

    Returns:
        run: its folder; dropped_clips: number of clips left out; note: on an earlier run of another number of steps;
        and the result of :func:`cosmos_worker.train.trainer.train`.

    Raises:
        UserError: bad configuration, dataset or checkpoint.
        StopRequested: asked to stop; a checkpoint was saved.
    """
    check_name_is_free(config.published_uri, config.job, config.job_namespace, volumes)
    experiment = config.experiment
    folder = folder_of(config, volumes)
    trainer_options = experiment.trainer
    with (
        StopSignal().listening() as stop,
        join_processes(
            trainer_options.device,
            trainer_options.threads_per_process,
            collective_timeout(os.environ),
        ) as processes,
        ExitStack() as files,
    ):
        if processes.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            files.enter_context(only_writer(folder))
            remove_unfinished_exports(folder)
            finish_interrupted_save(folder)
            set_unreadable_aside(folder)
        found = _compare_with_earlier_runs(config, volumes, folder) if processes.is_main else None
        experiment, note, is_done, start = processes.from_main(found)
        if is_done:
            steps = trainer_options.max_steps
            change = read_change(folder, steps)
            return {
                "run": str(folder), "steps": steps, "checkpoint": steps, **note,
                **({"change": change} if change else {}),
            }  # fmt: skip
        experiment = choose_for_gpu(experiment, processes)
        config = config.model_copy(update={"experiment": experiment})
        if processes.is_main:
            write_resolved_config(folder, config)
            files.enter_context(recorded_attempt(folder, _attempt(config, processes)))
        trainer = _open_trainer(config, volumes, folder, processes)
        trainer.state.resume(None if start is None else (start.run, start.step))
        left_out = len(trainer.dataset.words.dropped)
        done = train(trainer, stop)
        return {"run": str(folder), "dropped_clips": left_out, **done, **note}


def _attempt(config: TrainConfig, processes: ProcessGroup) -> Attempt:
    """The facts of this attempt that are known when it begins."""
    return Attempt(
        began=time.time(),
        gpus=processes.world_size if processes.device.type == "cuda" else 0,
        processes=processes.world_size,
        node=os.environ.get(NODE_VARIABLE, ""),
        job=config.job or "",
    )


def _open_trainer(
    config: TrainConfig, volumes: Volumes, folder: Path, processes: ProcessGroup
) -> Trainer:
    """A run before its first step: windows, network with weights, sample videos and trackers."""
    experiment = config.experiment
    dataset, held_out = _open_windows(config, volumes, folder, processes)
    trackers = choose_trackers(experiment.trainer.trackers)
    weights = volumes.resolve(config.model_uri) if config.model_uri else None
    processes = share_frames(experiment, processes)
    load = tokenizer_loader(config, volumes, processes.device)
    keep_compiled_code(folder, processes.rank)
    samples = open_samples(folder, held_out, experiment, load, processes)
    model = build_model(experiment, weights, processes, config.model_lora_scale)
    logger.info("training %s", describe_run(experiment, model, dataset, processes))
    return Trainer(
        experiment,
        folder,
        model,
        dataset,
        held_out,
        processes,
        position_file=PositionFile.from_environment(os.environ),
        samples=samples,
        trackers=trackers,
        base=config.model_uri,
        open_base=_base_opener(experiment, weights, config.model_lora_scale),
    )


def _open_windows(
    config: TrainConfig, volumes: Volumes, folder: Path, processes: ProcessGroup
) -> tuple[WindowDataset, WindowDataset]:
    """The training and the held-out windows, checked to be enough and the same in all processes."""
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
        losses = describe_caption_losses(index, text, experiment.text.max_length)
        report_caption_losses(folder, losses)
    return dataset, held_out


def _compare_with_earlier_runs(
    config: TrainConfig, volumes: Volumes, folder: Path
) -> tuple[Experiment, dict[str, str], bool, StartingPoint | None]:
    """The experiment with its run's first warm-up, a note on earlier runs, True if all is done, and where to begin."""
    start = find_starting_point(config, volumes, folder)
    if start is None:
        note = describe_length(config, volumes)
    else:
        note = f"begins with step {start.step} of the run in {start.run}"
    if note is not None:
        logger.warning("note: %s", note)
    experiment = with_initial_warmup(folder if start is None else start.run, config.experiment)
    is_done = is_beyond(folder, experiment)
    return experiment, {} if note is None else {"note": note}, is_done, start
