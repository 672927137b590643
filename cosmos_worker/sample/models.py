"""Network and tokenizer of a sampling run, and where each is while the other computes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch

from cosmos_worker.model.dit import CosmosDiT
from cosmos_worker.tokenizer.tokenizer import VideoTokenizer

HOST = torch.device("cpu")
"""Where models wait."""


@dataclass
class Models:
    """Both models; one that is offloaded is on the device inside its ``with`` block only.

    Attributes:
        net: network in eval mode.
        tokenizer: of the same latents.
        device: where both compute.
        offload: which of "network" and "tokenizer" wait in host memory.
    """

    net: CosmosDiT
    tokenizer: VideoTokenizer
    device: torch.device
    offload: Collection[str] = ()

    def network_at_work(self) -> AbstractContextManager[object]:
        """The network is on the device inside the block."""
        return self._present("network", self.net.to)

    def tokenizer_at_work(self) -> AbstractContextManager[object]:
        """The tokenizer is on the device inside the block."""
        return self._present("tokenizer", self.tokenizer.move)

    def _present(
        self, name: str, move: Callable[[torch.device], object]
    ) -> AbstractContextManager[object]:
        return _moved(move, self.device) if name in self.offload else nullcontext()


@contextmanager
def _moved(move: Callable[[torch.device], object], device: torch.device) -> Iterator[None]:
    move(device)
    try:
        yield
    finally:
        move(HOST)
        if device.type == "cuda":
            torch.cuda.empty_cache()
