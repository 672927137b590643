"""Environment variables that an installation may give to every pod of its jobs, and those that it may not."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from cosmos_worker.runtime.rendezvous import TIMEOUT_VARIABLE

NAME = "[A-Za-z_][A-Za-z0-9_]*"
RESERVED = {
    "COSMOS_.*": f"names of the operator and the worker, of which only {TIMEOUT_VARIABLE} is free",
    "HOME|NODE_NAME|HF_HUB_OFFLINE": "the operator sets it",
    "HF_ENDPOINT": "give hubEndpoint (hub.endpoint of the chart)",
    "(HF|HUGGING_FACE_HUB)_TOKEN|WANDB_API_KEY|MLFLOW_TRACKING_URI|AWS_((SECRET_)?ACCESS_KEY(_ID)?|SESSION_TOKEN)": (
        "credentials come from Secrets (secrets of the chart, or spec.credentials of a job)"
    ),
    "(PET|TORCHELASTIC)_.*|MASTER_(ADDR|PORT)|NNODES|NODE_RANK|((LOCAL_)?(RANK|WORLD_SIZE))": (
        "where the processes of a training meet is for the backend and torchrun to say"
    ),
}
"""Patterns of names that are refused → why. The chart's schema holds the same ones."""


def _check_name(name: str) -> str:
    if not re.fullmatch(NAME, name):
        raise ValueError("no name of a variable; give letters, digits and _, not a digit first")
    for pattern, reason in RESERVED.items():
        if name != TIMEOUT_VARIABLE and re.fullmatch(pattern, name):
            raise ValueError(f"cannot be given to all pods: {reason}")
    return name


PodVariables = dict[Annotated[str, AfterValidator(_check_name)], str]
"""Variables of every pod: name → value."""
