"""What a training leaves to the GPUs that are there, chosen when it begins: memory and kernel of attention."""

from __future__ import annotations

import logging

import torch

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.memory.choice import choose, describe_choice, leaves_a_choice, with_choice
from cosmos_worker.memory.plan import Setup
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train.attention import choose_attention

logger = logging.getLogger(__name__)


def choose_for_gpu(experiment: Experiment, processes: ProcessGroup) -> Experiment:
    """The experiment with a choice in place of each ``auto`` of memory and attention; all processes call this.

    Raises:
        ConfigError: batch, processes or groups do not divide.
    """
    # process 0 decides for all, so that every process computes alike
    kernel = processes.from_main(choose_attention(experiment, processes.device))
    if kernel != experiment.acceleration.attention:
        logger.info("chosen for this device: attention=%s", kernel)
        kernels = experiment.acceleration.model_copy(update={"attention": kernel})
        experiment = experiment.model_copy(update={"acceleration": kernels})
    return _choose_memory(experiment, processes)


def _choose_memory(experiment: Experiment, processes: ProcessGroup) -> Experiment:
    """The experiment with activation checkpointing and micro-batch in place of ``auto``.

    Without a GPU nothing is computed again and samples are computed one by one, unless the experiment says otherwise.

    The GPU with the least memory decides for all.
    """
    if not leaves_a_choice(experiment):
        return experiment
    if processes.device.type != "cuda":
        asked = experiment.parallel.activation_checkpointing
        kind = "none" if asked == "auto" else asked
        chosen = with_choice(experiment, kind, experiment.trainer.least_micro_batch)
        logger.info(
            "chosen without a GPU: activation_checkpointing=%s micro_batch_size=%d",
            kind,
            chosen.trainer.least_micro_batch,
        )
        return chosen
    own = torch.cuda.get_device_properties(processes.device).total_memory
    setup = choose(
        Setup(
            experiment,
            num_gpus=processes.world_size,
            gpus_per_node=processes.local_world_size,
            gpu_memory=min(processes.gather(own)),
            **experiment.parallel.model_dump(),
        )
    )
    logger.info("chosen for the memory of the GPUs: %s", describe_choice(setup))
    return setup.experiment
