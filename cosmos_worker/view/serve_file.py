"""Answers with a file: parts of it by Range, its ETag, and headers that keep a browser from running it."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import FileResponse

SHOWN_TYPES = {
    ".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".mkv": "video/x-matroska",
    ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp", ".gif": "image/gif",
}  # fmt: skip
"""Ending → type of files that a browser shows and cannot run."""
TEXT_ENDINGS = (".json", ".jsonl", ".yaml", ".yml", ".md", ".txt", ".csv", ".log")
REPORT_NAME = "report.html"
SEALED = "sandbox; default-src 'none'; frame-ancestors 'none'"
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; frame-ancestors 'none'"
)
"""A report runs its own script, in an origin of its own: it reaches neither the viewer's pages nor the network."""


def file_response(path: Path, *, as_download: bool = False) -> FileResponse:
    """The answer with a file: videos, pictures, texts and reports are shown, everything else is a download."""
    ending = path.suffix.lower()
    policy, kind = SEALED, SHOWN_TYPES.get(ending, "application/octet-stream")
    if ending in TEXT_ENDINGS:
        kind = "text/plain; charset=utf-8"
    elif path.name == REPORT_NAME:
        policy, kind = REPORT_POLICY, "text/html; charset=utf-8"
    is_shown = kind != "application/octet-stream" and not as_download
    return FileResponse(
        path,
        media_type=kind,
        filename=path.name,
        stat_result=path.stat(),
        content_disposition_type="inline" if is_shown else "attachment",
        headers={
            "Content-Security-Policy": policy,
            "Cache-Control": "private, no-cache",
            "Cross-Origin-Opener-Policy": "unsafe-none",  # browsers show nothing sealed with another one
        },
    )
