"""The page that compares runs."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cosmos_worker.view import compare
from cosmos_worker.view.pages import CARDS, Viewer, page_link, paged


@dataclass(frozen=True)
class ComparePage:
    """Makes the page of a viewer that compares the runs of a query."""

    viewer: Viewer

    async def compare(self, request: Request) -> Response:
        """The comparison of the runs that the query names: ?run=ADDRESS&run=ADDRESS."""
        return HTMLResponse(await run_in_threadpool(self._compare, request))

    def _compare(self, request: Request) -> str:
        viewer = self.viewer
        addresses = list(dict.fromkeys(request.query_params.getlist("run")))
        jobs = [viewer.find_job(address) for address in addresses[: compare.MAX_RUNS]]
        runs = compare.labelled([(job, viewer.state(job)) for job in jobs])
        cards, number, last = paged(compare.cards(viewer.folders, runs), request, CARDS)
        query = [("run", run.job.address) for run in runs]
        values = {
            "runs": runs,
            "left_out": max(0, len(addresses) - compare.MAX_RUNS),
            "charts": compare.charts(viewer.figures, runs),
            "table": compare.table(viewer.folders, viewer.figures, runs) if runs else [],
            "options": compare.options(viewer.folders, runs),
            "cards": cards,
            "link": page_link(f"{viewer.base(request)}/compare", query),
            "number": number,
            "last": last,
        }
        return viewer.page(request, "compare.html.j2", "compare", values)
