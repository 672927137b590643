"""What a guardrail says about an input that it holds back. Knows no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

BLOCKLIST: Literal["blocklist"] = "blocklist"
TEXT_CLASSIFIER: Literal["text-classifier"] = "text-classifier"
VIDEO_FILTER: Literal["video-filter"] = "video-filter"


@dataclass(frozen=True)
class Blocked:
    """An input that gets no video.

    Attributes:
        by: the guardrail.
        reason: what it found.
    """

    by: Literal["blocklist", "text-classifier", "video-filter"]
    reason: str

    def as_record(self) -> dict[str, str]:
        """As a record and the list have it."""
        return asdict(self)
