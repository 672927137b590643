"""The pages of datasets: their list, and one of each."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cosmos_worker.errors import DataError
from cosmos_worker.report.dataset import read_dataset as read_facts
from cosmos_worker.view import datasets
from cosmos_worker.view.datasets import Dataset
from cosmos_worker.view.folders import NotShownError
from cosmos_worker.view.pages import Viewer, page_link, paged

MAX_DROPPED = 500


@dataclass(frozen=True)
class DatasetPages:
    """Makes the pages of a viewer on datasets."""

    viewer: Viewer

    async def datasets(self, request: Request) -> Response:
        """The list of datasets, and the sizes of what was computed from them."""
        return HTMLResponse(await run_in_threadpool(self._datasets, request))

    def _datasets(self, request: Request) -> str:
        folders = self.viewer.folders
        values = {
            "datasets": datasets.find_datasets(folders),
            "caches": datasets.find_caches(folders),
            "max_counted": datasets.MAX_COUNTED,
        }
        return self.viewer.page(request, "datasets.html.j2", "datasets", values)

    async def dataset(self, request: Request) -> Response:
        """The page of one dataset."""
        return HTMLResponse(await run_in_threadpool(self._dataset, request))

    def _dataset(self, request: Request) -> str:
        viewer, folders = self.viewer, self.viewer.folders
        address, query = request.path_params["address"], request.query_params.get("q", "")
        dataset = datasets.read_dataset(folders, folders.path_of(address))
        if dataset is None:
            raise NotShownError(address)
        lines = datasets.clips_of(folders, dataset, query)
        shown, number, last = paged(lines, request)
        dropped = list(datasets.dropped_rows(folders, dataset))
        facts, warnings = self._facts(dataset)
        link = page_link(f"{viewer.base(request)}/datasets/{dataset.address}", [("q", query)])
        values = {
            "dataset": dataset,
            "facts": facts,
            "warnings": warnings,
            "distributions": datasets.distributions(dataset.summary),
            "dropped": dropped[:MAX_DROPPED],
            "num_dropped": len(dropped),
            "clips": [datasets.shown_clip(folders, dataset, line) for line in shown],
            "num_clips": len(lines),
            "query": query,
            "link": link,
            "number": number,
            "last": last,
        }
        return viewer.page(request, "dataset.html.j2", "datasets", values)

    def _facts(self, dataset: Dataset) -> tuple[list[tuple[str, str]], list[str]]:
        try:
            found = read_facts(dataset.folder)
        except (DataError, OSError) as error:
            return [], [f"{error}."]
        return found.facts, found.warnings
