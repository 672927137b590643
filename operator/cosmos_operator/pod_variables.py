"""Environment variables that an installation may give to every pod of its jobs, and reserved ones."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from cosmos_worker.runtime.rendezvous import TIMEOUT_VARIABLE

NAME = "[A-Za-z_][A-Za-z0-9_]*"
RESERVED = {
    "COSMOS_.*": f"reserved for the operator and the worker, but for {TIMEOUT_VARIABLE}",
    "HOME|NODE_NAME|HF_HUB_OFFLINE": "the operator sets it",
    "HF_ENDPOINT": "give hubEndpoint (hub.endpoint of the chart)",
    "(HF|HUGGING_FACE_HUB)_TOKEN|WANDB_API_KEY|MLFLOW_TRACKING_URI|AWS_((SECRET_)?ACCESS_KEY(_ID)?|SESSION_TOKEN)": (
        "credentials come from Secrets (secrets of the chart, or spec.credentials of a job)"
    ),
    "(PET|TORCHELASTIC)_.*|MASTER_(ADDR|PORT)|NNODES|NODE_RANK|((LOCAL_)?(RANK|WORLD_SIZE))": (
        "the backend and torchrun set the rendezvous of the processes of a training"
    ),
}
"""Patterns of reserved names → the reason. The chart's schema holds the same patterns."""


def _check_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError(
            "is not the name of a variable; use letters, digits and _, and begin with no digit"
        )
    for pattern, reason in RESERVED.items():
        if name != TIMEOUT_VARIABLE and re.fullmatch(pattern, name):
            raise ValueError(f"cannot be given to all pods: {reason}")
    return name


PodVariables = dict[Annotated[str, AfterValidator(_check_name)], str]
"""Environment variables of every pod: name → value."""
