"""What was found, as JSON and as Markdown tables. No torch here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.runner import Outcome

JSON_FILE, MARKDOWN_FILE = "gpu.json", "gpu.md"


def save(folder: Path, facts: Mapping[str, str], outcomes: Sequence[Outcome]) -> None:
    """Write both files anew, each under another name first, so that they are whole at any time."""
    content = {"facts": dict(facts), "parts": [asdict(outcome) for outcome in outcomes]}
    texts = {
        JSON_FILE: json.dumps(content, indent=2) + "\n",
        MARKDOWN_FILE: markdown(facts, outcomes),
    }
    for name, text in texts.items():
        temporary = folder / f".{name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(folder / name)


def markdown(facts: Mapping[str, str], outcomes: Sequence[Outcome]) -> str:
    """All tables, and what was not measured."""
    lines = [f"{name}: {value}  " for name, value in facts.items()]
    for table in dict.fromkeys(outcome.part.table for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.part.table == table]
        rows = [row for outcome in own for row in outcome.rows]
        if rows:
            lines += ["", f"## {table}", "", *table_lines(rows)]
        notes = dict.fromkeys(note for outcome in own for note in outcome.notes)
        lines += ["", *(f"- {note}" for note in notes)] if notes else []
    lines += ["", "## Parts", "", *_part_lines(outcomes), "", summary(outcomes), ""]
    return "\n".join(lines)


def _part_lines(outcomes: Sequence[Outcome]) -> list[str]:
    rows = [
        {
            "part": outcome.part.title,
            "": outcome.status,
            "seconds": round(outcome.seconds, 1) if outcome.status != "left out" else None,
            "estimate": outcome.part.seconds,
            "reason": outcome.reason,
        }
        for outcome in outcomes
    ]
    return table_lines(rows) if rows else []


def table_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A Markdown table of rows, with the columns of all of them in the order of their first appearance."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [" | ".join(columns), "|".join("---" for _ in columns)]
    lines += [" | ".join(cell(row.get(column)) for column in columns) for row in rows]
    return [f"| {line} |" if "---" not in line else f"|{line}|" for line in lines]


def cell(value: object) -> str:
    """The text of a cell: a number with three digits that count, a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return str(value).replace("|", "/").replace("\n", " ")


def summary(outcomes: Sequence[Outcome]) -> str:
    """One line: how many parts were done, failed and left out, with the names of those that failed."""
    names = {
        status: [outcome.part.title for outcome in outcomes if outcome.status == status]
        for status in ("done", "failed", "left out")
    }
    text = f"{len(names['done'])} parts done, {len(names['failed'])} failed, {len(names['left out'])} left out"
    return text + (f"; failed: {'; '.join(names['failed'])}" if names["failed"] else "")
