"""The manifest of a Kubernetes Event about a job."""

from __future__ import annotations

import time
from datetime import datetime

from cosmos_operator.api.base import API_VERSION
from cosmos_operator.decide.decision import Event
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.kube.objects import format_time

COMPONENT = "cosmos-operator"
"""Source of the Events that the operator writes."""


def build_event(document: Manifest, event: Event, now: datetime) -> Manifest:
    """The manifest of an Event about a job."""
    metadata, stamp = document["metadata"], format_time(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name']}.{time.time_ns():x}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": document["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "reason": event.reason,
        "message": event.message,
        "type": "Warning" if event.is_warning else "Normal",
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
