"""Jobs on a cluster, for people and programs: submit, wait, logs, stop, resume, list, pull.

``connect`` is the door for programs; ``cosmos submit`` and its neighbours use the same parts.
"""

from __future__ import annotations

from cosmos_operator.client.jobs import Outcome
from cosmos_operator.client.results import Result
from cosmos_operator.client.session import Cosmos, connect

__all__ = ["Cosmos", "Outcome", "Result", "connect"]
