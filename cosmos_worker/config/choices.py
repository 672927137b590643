"""Words that options may have, also for the parser of the command line, which answers before pydantic is loaded."""

from __future__ import annotations

from typing import Literal

DatasetLayout = Literal["bridge", "videos", "lerobot", "jsonl"]
FrameRate = Literal["constant", "resample"]
Fit = Literal["stretch", "crop", "pad"]
"""stretch: each side by its own factor; crop: fill the window and cut what protrudes, in equal parts; pad: fit into the
window and fill with black."""

NEEDS = (
    "driver", "torch", "cuda", "nccl", "te", "te-fp8", "apex", "torchao", "av", "shm", "hf-token",
)  # fmt: skip
"""Items that a job can need of a machine; ``runtime/machine_check.py`` looks for them."""
