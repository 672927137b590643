"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import datetime, timezone


def parse_time(text: str) -> datetime:
    """``2026-01-31T12:00:00Z``, with or without fractions, as an aware datetime."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def format_time(time: datetime) -> str:
    """RFC 3339 in UTC, whole seconds."""
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_since(text: str | None, now: datetime) -> float:
    """Age of a time; 0 for none."""
    return (now - parse_time(text)).total_seconds() if text else 0.0


def format_duration(seconds: float) -> str:
    """1h42m, 5m10s or 42s."""
    total = max(0, round(seconds))
    minutes, rest = divmod(total, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
