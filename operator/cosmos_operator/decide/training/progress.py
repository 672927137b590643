"""How far the training is, for people: step, loss, speed, time left. Pure."""

from __future__ import annotations

import re

from cosmos_operator.api.status import Progress
from cosmos_operator.decide.pass_state import Draft
from cosmos_operator.decide.stages.stage_jobs import StageView
from cosmos_operator.decide.times import format_duration, parse_time
from cosmos_operator.decide.training.gang import Gang
from cosmos_operator.plan.stages import Stage
from cosmos_worker.config.stages import TrainConfig

DECIMAL = re.compile(r"^-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?$")


def report_progress(draft: Draft, stage: Stage, gang: Gang, view: StageView) -> Progress | None:
    """The progress to show: of the log, or of the last pass if that was written a moment ago."""
    assert isinstance(stage.document, TrainConfig)
    total = stage.document.experiment.trainer.max_steps
    before, facts = draft.previous.progress, gang.facts
    if view.state == "Succeeded":
        return _finished(before, total)
    if facts.step is None:
        return before
    if before is not None and _is_too_soon(draft, before, facts.report_time):
        return before
    return Progress.model_construct(
        step=facts.step,
        total_steps=total,
        summary=f"{facts.step}/{total}",
        loss=_decimal(facts.loss) or (before.loss if before else None),
        samples_per_second=_decimal(facts.samples_per_second),
        eta_seconds=facts.eta_s,
        eta=format_duration(facts.eta_s) if facts.eta_s is not None else "",
        last_report_time=facts.report_time,
    )


def _finished(before: Progress | None, total: int) -> Progress:
    values = {"step": total, "total_steps": total, "summary": f"{total}/{total}"}
    rest = {"eta_seconds": None, "eta": ""}
    if before is None:
        return Progress.model_construct(**values, **rest)  # type: ignore[arg-type]  # as Progress has them
    return before.model_copy(update={**values, **rest})


def _is_too_soon(draft: Draft, before: Progress, report_time: str | None) -> bool:
    """Mere progress is written at most every progress_seconds."""
    if before.last_report_time is None or report_time is None:
        return False
    passed = (parse_time(report_time) - parse_time(before.last_report_time)).total_seconds()
    return 0 <= passed < draft.settings.progress_seconds


def _decimal(text: str | None) -> str | None:
    """The text if it is a number; the log may say nan."""
    return text if text is not None and DECIMAL.match(text) else None
