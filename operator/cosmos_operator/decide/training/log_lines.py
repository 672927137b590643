"""Progress out of the worker's log, the same lines that people read. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_STAMP = r"(?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) \w+ rank=0 \S+ "
_STEP = re.compile(
    _STAMP + r"step=(?P<step>\d+)/(?P<total>\d+) (?:validation_)?loss=(?P<loss>\S+)(?P<rest>.*)"
)
_SAVED = re.compile(_STAMP + r"(?P<what>checkpoint|continued) step=(?P<step>\d+)\b")
_UNITS = re.compile(_STAMP + r"(?P<name>\S+) (?P<unit>[a-z_]+)=(?P<done>\d+)/(?P<total>\d+)\b")
_STARTED = re.compile(_STAMP + r"training parameters=")
_NOTE = re.compile(_STAMP + r"note: (?P<note>.+)")
_SPEED = re.compile(r"samples/s=(\S+)")
_ETA = re.compile(r"eta=(\S+)")


@dataclass(frozen=True)
class LogFacts:
    """What the last lines of a log say."""

    step: int | None = None
    total_steps: int | None = None
    loss: str | None = None
    samples_per_second: str | None = None
    eta_s: int | None = None
    report_time: str | None = None
    """When the worker last gave a sign of progress."""
    checkpoint: int | None = None
    """Step of the latest complete checkpoint."""
    start_step: int | None = None
    """Step from which the training continued."""
    note: str = ""
    """What people should know of the training, such as that it begins anew with another number of steps."""
    units: str = ""
    """Progress of another stage, such as ``cache-latents windows=120/480``."""


def read_log(text: str) -> LogFacts:
    """The latest facts in the lines of a log; what is no known line is passed over."""
    facts: dict[str, str | int | None] = {}
    for line in text.splitlines():
        if match := _STEP.match(line):
            facts |= _step_facts(match)
        elif match := _SAVED.match(line):
            step = int(match["step"])
            facts["checkpoint"] = step
            facts["report_time"] = match["time"]
            if match["what"] == "continued":
                facts["start_step"] = facts["step"] = step
        elif match := _STARTED.match(line):
            facts["report_time"] = match["time"]
        elif match := _NOTE.match(line):
            facts["note"] = match["note"]
        elif match := _UNITS.match(line):
            facts["units"] = f"{match['name']} {match['unit']}={match['done']}/{match['total']}"
            facts["report_time"] = match["time"]
    return LogFacts(**facts)  # type: ignore[arg-type]  # names and types are those of the patterns above


def _step_facts(match: re.Match[str]) -> dict[str, str | int | None]:
    found: dict[str, str | int | None] = {
        "step": int(match["step"]),
        "total_steps": int(match["total"]),
        "report_time": match["time"],
    }
    if "validation_loss" in match.group(0):
        return found
    speed, eta = _SPEED.search(match["rest"]), _ETA.search(match["rest"])
    found["loss"] = match["loss"]
    found["samples_per_second"] = speed[1] if speed else None
    found["eta_s"] = _seconds(eta[1]) if eta else None
    return found


def _seconds(text: str) -> int | None:
    """1:02:03 or 2:03 in seconds."""
    try:
        parts = [int(part) for part in text.split(":")]
    except ValueError:
        return None
    total = 0
    for part in parts:
        total = total * 60 + part
    return total
