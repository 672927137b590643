"""The pages: an address and its query in, HTML or a file out. Only GET and HEAD come here."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from markupsafe import Markup
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from cosmos_worker.report.chart import loss_chart
from cosmos_worker.report.words import describe_experiment
from cosmos_worker.storage.volumes import RESOLVED_CONFIG_FILE
from cosmos_worker.view import run_page, samples
from cosmos_worker.view.figures import FigureFiles, curve, thinned
from cosmos_worker.view.folders import Folders, NotShownError
from cosmos_worker.view.jobs import Job, find_items, find_jobs, read_job
from cosmos_worker.view.rendering import render, render_part
from cosmos_worker.view.serve_file import file_response
from cosmos_worker.view.state import STATES, TRAINING, RunState, read_state

ROWS = 50
"""Jobs or clips of one page."""
CARDS = 12
"""Cards of generated videos of one page."""
MAX_STATES = 1000
"""Jobs whose files the filter by state reads: those with the latest sign of life."""
LISTED_S = 5.0
"""Seconds for which a list of jobs is used again."""

One = TypeVar("One")


@dataclass
class Viewer:
    """Makes the pages of a folder.

    Attributes:
        folders: that are shown.
        tensorboard: address of a TensorBoard; empty = no link.
        clock: seconds since the epoch.
    """

    folders: Folders
    tensorboard: str = ""
    clock: Callable[[], float] = time.time
    _listed: tuple[float, list[Job]] = field(default=(-math.inf, []), repr=False)

    def __post_init__(self) -> None:
        self.figures = FigureFiles(self.folders)

    # --- what pages have in common -----------------------------------------------------------

    def page(self, request: Request, template: str, page: str, values: Mapping[str, Any]) -> str:
        """A whole page with its navigation."""
        common = {
            "base": self.base(request),
            "nonce": request.state.nonce,
            "page": page,
            "tensorboard": self.tensorboard,
            "folder": str(self.folders.main),
        }
        return render(template, {**common, **values})

    def base(self, request: Request) -> str:
        """The beginning of all addresses, without a slash at its end."""
        return str(request.scope.get("root_path", "")).rstrip("/")

    def all_jobs(self) -> list[Job]:
        """All jobs, the latest sign of life first; a list is used for a few seconds."""
        now = time.monotonic()
        if now - self._listed[0] > LISTED_S:
            self._listed = (now, find_jobs(self.folders))
        return self._listed[1]

    def find_job(self, address: str) -> Job:
        """The job of an output root.

        Raises:
            NotShownError: no such folder, or no job in it.
        """
        job = read_job(self.folders, self.folders.path_of(address))
        if job is None:
            raise NotShownError(address)
        return job

    def state(self, job: Job) -> RunState:
        """The state of a job as it is now."""
        return read_state(self.folders, self.figures, job, self.clock)

    # --- jobs --------------------------------------------------------------------------------

    async def jobs(self, request: Request) -> Response:
        """The list of jobs."""
        return HTMLResponse(await run_in_threadpool(self._jobs, request))

    def _jobs(self, request: Request) -> str:
        query, state = (request.query_params.get(name, "") for name in ("q", "state"))
        jobs = [job for job in self.all_jobs() if query.lower() in job.address.lower()]
        left_out = 0
        if state in STATES:
            latest = jobs[:MAX_STATES]
            left_out = len(jobs) - len(latest)
            pairs = [(job, now) for job in latest if (now := self.state(job)).state == state]
            total = len(pairs)
            shown, number, last = paged(pairs, request)
        else:
            total = len(jobs)
            some, number, last = paged(jobs, request)
            shown = [(job, self.state(job)) for job in some]
        base = self.base(request)
        values = {"query": query, "state": state, "states": STATES, "base": base}
        table = {**values, "rows": shown, "total": total, "left_out": left_out}
        part = render_part("jobs_table.html.j2", table)
        link = page_link(f"{base}/", [("q", query), ("state", state)])
        own = {**values, "table": part["html"], "link": link, "number": number, "last": last}
        return self.page(request, "jobs.html.j2", "jobs", own)

    # --- one job -----------------------------------------------------------------------------

    async def job(self, request: Request) -> Response:
        """The page of a job, or with ?part=live the parts of it that change."""
        return await run_in_threadpool(self._job, request)

    def _job(self, request: Request) -> Response:
        job = self.find_job(request.path_params["address"])
        now = self.state(job)
        sections = self._sections(job, now, request)
        if request.query_params.get("part") == "live":
            said = f"step {now.step}, {now.state}" if job.run else now.state
            live = now.state == TRAINING
            return JSONResponse({"sections": sections, "isLive": live, "said": said})
        config = self.folders.text(job.run / RESOLVED_CONFIG_FILE) if job.run else None
        document = run_page.read_config(self.folders, job.run) if job.run else {}
        values = {
            "job": job,
            "sections": sections,
            "is_live": now.state == TRAINING,
            "facts": describe_experiment(config) if config and document else [],
            "preset": run_page.changes_of_preset(document),
            "config": config or "",
        }
        return HTMLResponse(self.page(request, "job.html.j2", "jobs", values))

    def _sections(self, job: Job, now: RunState, request: Request) -> dict[str, dict[str, Any]]:
        """The parts of a job's page by name, each with its digest."""
        folders, base = self.folders, self.base(request)
        lines = self.figures.lines(job.run) if job.run else []
        config = run_page.read_config(folders, job.run) if job.run else {}
        common = {"base": base, "job": job}
        state = {"now": now, "warnings": run_page.warnings_of(folders, job, config)}
        parts = {"state": ("section_state.html.j2", state)}
        if job.run is not None:
            train = thinned(curve(lines, "loss"))
            held_out = curve(lines, "validation_loss")
            chart = Markup(loss_chart(train, held_out)) if train else ""  # noqa: S704 - our own SVG
            best = run_page.read_best(folders, job.run)
            rows = run_page.held_out_rows(lines, best)
            parts["curves"] = ("section_curves.html.j2", {"chart": chart, "held_out": rows})
            every = request.query_params.get("steps") == "all"
            cards = samples.sample_cards(folders, job.run, all_steps=every)
            parts["samples"] = ("section_samples.html.j2", {"cards": cards})
        parts["generated"] = ("section_generated.html.j2", self._generated(job, request))
        parts["files"] = (
            "section_files.html.j2",
            {"files": run_page.files_of(folders, job)},
        )
        return {name: render_part(one, {**common, **own}) for name, (one, own) in parts.items()}

    def _generated(self, job: Job, request: Request) -> dict[str, Any]:
        folders = self.folders
        found = samples.read_generated(folders, find_items(folders, job))
        cards = samples.generated_cards(folders, job.folder, found)
        shown, number, last = paged(cards, request, CARDS)
        return {
            "generated": found, "metrics": samples.metric_names(found), "cards": shown,
            "first": (number - 1) * CARDS, "number": number, "last": last,
        }  # fmt: skip

    # --- files -------------------------------------------------------------------------------

    async def file(self, request: Request) -> Response:
        """A file, whole or a part of it."""
        path = await run_in_threadpool(self.folders.path_of, request.path_params["address"])
        if not path.is_file():
            raise NotShownError(str(path))
        as_download = request.query_params.get("download") == "1"
        return file_response(path, as_download=as_download)


def paged(
    rows: Sequence[One], request: Request, count: int = ROWS
) -> tuple[Sequence[One], int, int]:
    """The rows of the page that a query asks for, its number from 1, and the number of pages."""
    last = max(1, -(-len(rows) // count))
    asked = request.query_params.get("page", "1")
    number = min(max(1, int(asked)), last) if asked.isdecimal() and len(asked) < 8 else 1
    return rows[(number - 1) * count : number * count], number, last


def page_link(path: str, values: Sequence[tuple[str, str]]) -> str:
    """The address of a list with its query, to which the number of a page is added."""
    given = [(name, value) for name, value in values if value]
    return (
        f"{quote(path, safe='/@')}?{urlencode(given)}&" if given else f"{quote(path, safe='/@')}?"
    )
