"""Environment variables that an installation may give to every pod of its jobs, and reserved ones."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from cosmos_worker.runtime.rendezvous import TIMEOUT_VARIABLE

NAME = "[A-Za-z_][A-Za-z0-9_]*"
CREDENTIALS = (
    "(HF|HUGGING_FACE_HUB)_TOKEN|WANDB_API_KEY|MLFLOW_TRACKING_URI"
    "|AWS_((SECRET_)?ACCESS_KEY(_ID)?|SESSION_TOKEN)"
)
"""Names of variables with credentials, which come from Secrets."""
RESERVED = {
    "COSMOS_.*": f"reserved for the operator and the worker, but for {TIMEOUT_VARIABLE}",
    "HOME|USER|NODE_NAME|HF_HUB_OFFLINE": "the operator sets it",
    "HF_ENDPOINT": "give hubEndpoint (hub.endpoint of the chart)",
    CREDENTIALS: (
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
    if reason := reason_of_reserved(name):
        raise ValueError(f"cannot be given to all pods: {reason}")
    return name


def reason_of_reserved(name: str) -> str:
    """The reason for which a variable cannot be given to pods; empty if it can."""
    if name == TIMEOUT_VARIABLE:
        return ""
    found = (reason for pattern, reason in RESERVED.items() if re.fullmatch(pattern, name))
    return next(found, "")


PodVariables = dict[Annotated[str, AfterValidator(_check_name)], str]
"""Environment variables of every pod: name → value."""
