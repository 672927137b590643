"""Which options of an experiment decide what a run computes, and which only how it proceeds. No torch here."""

from __future__ import annotations

from typing import Any

from cosmos_worker.options import Experiment

TRAINER_PACE = (
    "micro_batch_size",
    "save_every_steps",
    "keep_last",
    "keep_exports",
    "log_every_steps",
    "validate_every_steps",
    "validation_draws",
    "validation_sigmas",
    "keep_best",
    "sample_every_steps",
    "sample_count",
    "sample_steps",
    "trackers",
    "device",
    "threads_per_process",
)
"""Trainer settings that change how a run proceeds, not what it computes: the sum over the global batch is the same."""


def decisive_options(experiment: Experiment) -> dict[str, Any]:
    """The options that decide the weights; a run is continued only under the same ones."""
    return experiment.model_dump(
        mode="json",
        exclude={
            "trainer": set(TRAINER_PACE),
            "tokenizer": {"batch_size"},
            "optimizer": {"implementation"},
            "parallel": True,
            "acceleration": {"attention"},
        },
    )
