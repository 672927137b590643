"""The figures as a table in Markdown."""

from __future__ import annotations

from typing import Any

ROWS = (
    ("Jobs and pods on the API server", lambda s: f"{sum(s['watched_objects'].values()):,}"),
    ("at rest: percent of a core", lambda s: f"{s['rest_percent_of_core']:.1f} %"),
    ("at rest: requests per second", lambda s: f"{s['rest_requests_per_s']:.1f}"),
    ("at rest: resident memory", lambda s: f"{s['rest_rss_mb']:.0f} MB"),
    ("restart, until all are reconciled", lambda s: f"{s['restart_s']:.1f} s"),
    ("its processor time", lambda s: f"{s['restart_processor_s']:.1f} s"),
    ("its peak of memory", lambda s: f"{s['restart_peak_mb']:.0f} MB"),
    ("jobs applied together", lambda s: f"{s['burst_jobs']}"),
    ("from apply to the first Job, median", lambda s: f"{s['burst_median_s']:.2f} s"),
    ("the same, p99", lambda s: f"{s['burst_p99_s']:.2f} s"),
    ("processor time for all of them", lambda s: f"{s['burst_processor_s']:.1f} s"),
)


def table(result: dict[str, Any]) -> str:
    """All sizes side by side, and a line about the life of one job."""
    sizes, life = result["sizes"], result["life"]
    heads = [f"{size['live']:,} live, {size['finished']:,} finished" for size in sizes]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (len(sizes) + 1) + "|"]
    for title, read in ROWS:
        lines.append(f"| {title} | {' | '.join(read(size) for size in sizes)} |")
    kinds = ", ".join(f"{number} {kind}" for kind, number in life["by_kind"].items())
    lines += [
        "",
        f"One job of eight stages and one inference item, {life['seconds']:.0f} s with {life['steps']} steps: "
        f"{life['requests']} requests ({kinds}).",
    ]
    return "\n".join(lines)
