"""A training on CPUs whose products are those of the stand-in: ``engine_program.py CONFIG``, started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from support import engine_stand_in

from cosmos_worker import cli
from cosmos_worker.config.training import AccelerationConfig
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.stages import train
from cosmos_worker.train.parallelize import accelerate


def accelerate_as_on_cuda(
    model: CosmosModel, config: AccelerationConfig, device: torch.device
) -> None:
    """What the stage calls, told that there is a GPU."""
    accelerate(model, config, torch.device("cuda"))


if __name__ == "__main__":
    engine_stand_in.install()
    train.accelerate = accelerate_as_on_cuda
    cli.main(["train", "--config", str(Path(sys.argv[1]))])
