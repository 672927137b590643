"""Words and characters that options may have, for what answers before pydantic is loaded: the command line's parser."""

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

PATH_PATTERN = r"^[^\x00-\x1f\x7f]*$"
"""A path or an address: no control characters."""
FOLDER_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""Name of one folder or file: neither hidden, nor '..', nor a path."""
