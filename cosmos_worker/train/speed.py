"""The speed of a training's steps: tokens, share of the device's peak, memory."""

from __future__ import annotations

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.flops import TRAINING_FACTOR, training_flops
from cosmos_worker.runtime.process_group import ProcessGroup
from cosmos_worker.train.data import WindowDataset
from cosmos_worker.train.time_use import peak_flops, peak_memory_gib

LORA_SHARE = (TRAINING_FACTOR - 1) / TRAINING_FACTOR
"""Operations with LoRA in units of those without: frozen weights have no gradients."""


class SpeedMeter:
    """Counts the work of steps, from one report to the next.

    Args:
        experiment: the network, and how many samples a step has.
        dataset: sizes of its samples.
        processes: that share the work.
    """

    def __init__(
        self, experiment: Experiment, dataset: WindowDataset, processes: ProcessGroup
    ) -> None:
        self._experiment, self._processes = experiment, processes
        self._shapes = {name: dataset.latent_shape(name)[1:] for name in dataset.sizes}
        self._tokens = self._flops = 0

    def add(self, bucket: str | None) -> None:
        """Add a step.

        Args:
            bucket: of its samples.
        """
        T, H, W = self._shapes[bucket]
        samples = self._experiment.trainer.global_batch_size
        self._tokens += samples * (T * H * W // self._experiment.net.patch_size**2)
        self._flops += samples * training_flops(self._experiment, (T, H, W))

    def take(self, seconds: float) -> dict[str, float]:
        """Figures of the steps since the last call, for the log.

        Args:
            seconds: that the steps took.

        Returns:
            tokens_per_second of all processes; mfu, model flops utilisation: the share that matrix products without
            recomputation have of the peak of all GPUs, where it is known; peak_memory_gib of this process's GPU.
        """
        device = self._processes.device
        found = {"tokens_per_second": round(self._tokens / max(seconds, 1e-9), 1)}
        peak = peak_flops(device)
        if peak is not None and self._experiment.diffusion.compute_dtype != "float32":
            flops = self._flops * (LORA_SHARE if self._experiment.lora.rank else 1)
            most = peak * self._processes.world_size * max(seconds, 1e-9)
            found["mfu"] = round(flops / most, 4)
        memory = peak_memory_gib(device)
        if memory is not None:
            found["peak_memory_gib"] = memory
        self._tokens = self._flops = 0
        return found
