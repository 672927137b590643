"""The progress of the training: read from the leader's log, written into the status. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cosmos_operator.api.status import Progress
from cosmos_operator.decide.pass_state import Pass
from cosmos_operator.kube.objects import (
    format_duration,
    format_time,
    parse_time,
)
from cosmos_operator.kube.termination import shown
from cosmos_operator.plan.stages import Stage
from cosmos_worker.config.stages import TrainConfig

# with bounds: the worker's image is the job's, and whatever its log says, no pass may fail of it
_COUNT = r"[0-9]{1,12}"
_STAMP = (
    r"(?P<time>20[0-9]{2}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?Z) "
    r"\w{1,16} rank=0 \S{1,128} "
)
_STEP = re.compile(
    _STAMP
    + rf"step=(?P<step>{_COUNT})/(?P<total>{_COUNT}) (?:validation_)?loss=(?P<loss>\S+)(?P<rest>.*)"
)
_SAVED = re.compile(_STAMP + rf"(?P<what>checkpoint|continued) step=(?P<step>{_COUNT})\b")
_UNITS = re.compile(
    _STAMP
    + rf"(?P<name>\S{{1,64}}) (?P<unit>[a-z_]{{1,64}})=(?P<done>{_COUNT})/(?P<total>{_COUNT})\b"
)
_STARTED = re.compile(_STAMP + r"training parameters=")
_NOTE = re.compile(_STAMP + r"note: (?P<note>.+)")
_SPEED = re.compile(r"samples/s=(\S+)")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")
MAX_DECIMAL = 32
_DURATION = re.compile(r"[0-9]{1,9}(:[0-9]{1,9}){0,2}")
MAX_NOTE = 500
"""Characters of a note of the worker."""
MAX_LOG_LINE = 8192
"""Characters of a line that are looked at."""
_ETA = re.compile(r"eta=(\S+)")


@dataclass(frozen=True)
class LogFacts:
    """Facts in the last lines of a worker's log."""

    step: int | None = None
    total_steps: int | None = None
    loss: str | None = None
    samples_per_second: str | None = None
    eta_s: int | None = None
    report_time: str | None = None
    """Time at which the worker last reported progress, by the clock of its node."""
    checkpoint: int | None = None
    """Step of the latest complete checkpoint."""
    start_step: int | None = None
    """Step from which the training continued."""
    note: str = ""
    """A note of the worker for people, such as that it begins anew with another number of steps."""
    units: str = ""
    """Progress of another stage, such as ``cache-latents windows=120/480``."""


def read_log(text: str) -> LogFacts:
    """The latest facts in the lines of a log; lines of other forms are passed over."""
    facts: dict[str, str | int | None] = {}
    for whole in text.splitlines():
        line = whole[:MAX_LOG_LINE]
        if not _has_time(line):
            continue
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
            facts["note"] = shown(match["note"], MAX_NOTE)
        elif match := _UNITS.match(line):
            units = f"{match['name']} {match['unit']}={match['done']}/{match['total']}"
            facts["units"] = shown(units)
            facts["report_time"] = match["time"]
    return LogFacts(**facts)  # type: ignore[arg-type]  # names and types are those of the patterns above


def _has_time(line: str) -> bool:
    """True if a line begins with a time, which a date such as February 30 is not."""
    try:
        parse_time(line.partition(" ")[0])
    except (ValueError, OverflowError):
        return False
    return True


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
    """A time such as 1:02:03 or 2:03 in seconds; None if it is not one."""
    if not _DURATION.fullmatch(text):
        return None
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return total


def report_progress(
    pass_: Pass, stage: Stage, facts: LogFacts, *, has_finished: bool
) -> Progress | None:
    """The progress for the status: that of the log, or that of the last pass if it was written a moment ago.

    Args:
        pass_: the pass.
        stage: the training.
        facts: facts in the leader's log.
        has_finished: True once the training has succeeded.
    """
    assert isinstance(stage.document, TrainConfig)
    total = stage.document.experiment.trainer.max_steps
    before = pass_.previous.progress
    if has_finished:
        return _final_progress(before, total)
    if facts.report_time is None:
        return before
    if before is not None and _was_just_written(pass_, before):
        return before
    seen = format_time(pass_.now) if is_news(before, facts) else None
    if facts.step is None:  # it has begun, and done no step yet
        base = before or Progress.model_construct(total_steps=total, summary=f"0/{total}")
        return _with_report(base, facts, seen)
    progress = Progress.model_construct(
        step=facts.step,
        total_steps=total,
        summary=f"{facts.step}/{total}",
        loss=_decimal(facts.loss) or (before.loss if before else None),
        samples_per_second=_decimal(facts.samples_per_second),
        eta_seconds=facts.eta_s,
        eta=format_duration(facts.eta_s) if facts.eta_s is not None else "",
        last_report_time=before.last_report_time if before else None,
    )
    return _with_report(progress, facts, seen)


def is_news(before: Progress | None, facts: LogFacts) -> bool:
    """True if the log ends with another report than the one that the status knows."""
    if facts.report_time is None:
        return False
    return before is None or before.log_time != facts.report_time


def _with_report(progress: Progress, facts: LogFacts, seen: str | None) -> Progress:
    """The progress with the time in the log, and the time at which we saw it if it is new."""
    update = {"log_time": facts.report_time} | ({"last_report_time": seen} if seen else {})
    return progress.model_copy(update=update)


def _final_progress(before: Progress | None, total: int) -> Progress:
    values = {"step": total, "total_steps": total, "summary": f"{total}/{total}"}
    rest = {"eta_seconds": None, "eta": ""}
    if before is None:
        return Progress.model_construct(**values, **rest)  # type: ignore[arg-type]  # as Progress has them
    return before.model_copy(update={**values, **rest})


def _was_just_written(pass_: Pass, before: Progress) -> bool:
    """True if less than progress_seconds have passed since the progress that the status shows was seen."""
    if before.last_report_time is None:
        return False
    passed = (pass_.now - parse_time(before.last_report_time)).total_seconds()
    return 0 <= passed < pass_.settings.progress_seconds


def _decimal(text: str | None) -> str | None:
    """The text if it is a decimal number, otherwise None; the log may say nan."""
    is_decimal = text is not None and len(text) <= MAX_DECIMAL and _DECIMAL.fullmatch(text)
    return text if is_decimal else None
