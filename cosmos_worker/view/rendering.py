"""HTML from the templates of this folder and the style of the report. Everything that is not ours is escaped."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup

import cosmos_worker.report
from cosmos_worker.report.words import format_minutes
from cosmos_worker.view.samples import metric_text

OWN = Path(__file__).parent
REPORT = Path(cosmos_worker.report.__file__).parent
ABSENT = "–"  # noqa: RUF001 - a dash, as tables have it


@lru_cache
def environment() -> jinja2.Environment:
    """The templates."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([OWN / "templates", REPORT]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "address": lambda text: quote(text, safe="/@", errors="surrogateescape"),
        "figure": _figure,
        "metric": metric_text,
        "duration": lambda seconds: ABSENT if seconds is None else format_minutes(seconds),
        "isotime": lambda seconds: _time(seconds).isoformat(timespec="seconds"),
        "localtime": lambda seconds: f"{_time(seconds):%Y-%m-%d %H:%M} UTC",
    }
    return found


def _figure(value: Any) -> str:  # noqa: ANN401 - a number, None, or what the template does not know
    if not isinstance(value, int | float) or not math.isfinite(value):
        return ABSENT
    return f"{value:.4f}"


def _time(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def render(template: str, values: Mapping[str, Any]) -> str:
    """A template with its values as text; what is no Unicode in a name becomes a question mark."""
    text = environment().get_template(template).render(**values)
    return text.encode("utf-8", "replace").decode("utf-8")


def render_part(template: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """A part of a page, as safe HTML, and the digest by which a change is noticed."""
    html = render(template, values)
    digest = hashlib.sha256(html.encode("utf-8")).hexdigest()[:16]
    return {"html": Markup(html), "digest": digest}  # noqa: S704 - escaped by the template


@lru_cache
def style() -> bytes:
    """The style of the report and what the viewer adds to it."""
    texts = [(REPORT / "style.css").read_bytes(), (OWN / "style.css").read_bytes()]
    return b"\n".join(texts)


@lru_cache
def script() -> bytes:
    """The script of all pages."""
    return (OWN / "view.js").read_bytes()
