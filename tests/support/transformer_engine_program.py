"""A training on CPUs with the stand-in's products: ``transformer_engine_program.py CONFIG``, started by torchrun."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from cosmos_worker import cli
from cosmos_worker.config.training import AccelerationConfig
from cosmos_worker.model.dit import CosmosModel
from cosmos_worker.stages import train
from cosmos_worker.train.parallelize import accelerate
from support import fake_transformer_engine


def accelerate_as_on_cuda(
    model: CosmosModel, config: AccelerationConfig, device: torch.device
) -> None:
    """The function that the stage calls, with the device of a GPU."""
    accelerate(model, config, torch.device("cuda"))


if __name__ == "__main__":
    fake_transformer_engine.install()
    train.accelerate = accelerate_as_on_cuda
    cli.main(["train", "--config", str(Path(sys.argv[1]))])
