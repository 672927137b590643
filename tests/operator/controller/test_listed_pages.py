from __future__ import annotations

import asyncio
import threading

from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from cosmos_operator.controller.listed_pages import Handover, ListedPage, make_response_class


def page(number: int, *, is_last: bool = False) -> ListedPage:
    return ListedPage("Job", [{"number": number}], "7", is_first=number == 0, is_last=is_last)


async def read(documents: dict[str, object], path: str, taken: list[ListedPage]) -> object:
    """The document that a server has under a path, as one reads it whose lists of Jobs are taken."""

    async def answer(request: web.Request) -> web.Response:
        return web.json_response(documents[request.path])

    async def take(found: ListedPage) -> None:
        taken.append(found)

    application = web.Application()
    application.router.add_get("/{path:.*}", answer)
    response_class = make_response_class(("Job",), take)
    async with (
        TestServer(application) as server,
        ClientSession(response_class=response_class) as session,
        session.get(server.make_url(path)) as response,
    ):
        return await response.json()


async def test_objects_are_taken_out_of_a_list():
    taken: list[ListedPage] = []
    metadata = {"resourceVersion": "7", "continue": "more"}
    items = [{"metadata": {"name": "one"}}]
    jobs = {"kind": "JobList", "apiVersion": "batch/v1", "metadata": metadata, "items": items}

    left = await read({"/jobs": jobs}, "/jobs?limit=1", taken)

    assert left == jobs | {"items": []}, "the one who asked goes on with the next page"
    one = {"metadata": {"name": "one"}, "kind": "Job", "apiVersion": "batch/v1"}
    assert taken == [ListedPage("Job", [one], "7", is_first=True, is_last=False)]


async def test_last_page_of_a_list_that_goes_on():
    taken: list[ListedPage] = []
    jobs = {"kind": "JobList", "apiVersion": "batch/v1", "metadata": {}, "items": None}

    await read({"/jobs": jobs}, "/jobs?continue=more", taken)

    assert taken == [ListedPage("Job", [], "", is_first=False, is_last=True)]


async def test_other_answers_are_read_as_they_are():
    taken: list[ListedPage] = []
    documents = {
        "/pods": {"kind": "PodList", "metadata": {}, "items": [{"metadata": {"name": "one"}}]},
        "/job": {"kind": "Job", "metadata": {"name": "one"}},
        "/apis": {"groups": []},
    }

    for path, document in documents.items():
        assert await read(documents, path, taken) == document
    assert not taken


async def test_page_is_handed_over_once_the_one_before_is_taken():
    taken: list[int] = []
    may_end = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def take(found: ListedPage) -> None:
        await may_end.wait()
        taken.append(found.items[0]["number"])

    ends: list[int] = []

    def run() -> None:
        async def hand_over() -> None:
            handover = Handover(loop, take)
            for number in range(3):
                await handover.take(page(number, is_last=number == 2))
                ends.append(number)

        asyncio.run(hand_over())

    thread = threading.Thread(target=run)
    thread.start()
    while not ends:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert (ends, taken) == ([0], []), (
        "the second page is not handed over before the first is taken"
    )

    may_end.set()
    await asyncio.to_thread(thread.join)
    assert ends == taken == [0, 1, 2]
