"""The verdict of a guardrail on an input that it blocks. Knows no model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

BLOCKLIST: Literal["blocklist"] = "blocklist"
TEXT_CLASSIFIER: Literal["text-classifier"] = "text-classifier"
VIDEO_FILTER: Literal["video-filter"] = "video-filter"


@dataclass(frozen=True)
class Blocked:
    """The verdict on an input that gets no video.

    Attributes:
        by: name of the guardrail.
        reason: its finding, for people.
    """

    by: Literal["blocklist", "text-classifier", "video-filter"]
    reason: str

    def as_record(self) -> dict[str, str]:
        """The verdict as an entry of a record."""
        return asdict(self)
