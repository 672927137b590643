"""The watches, run by kopf: the only module that imports it. Its handlers deliver events and decide nothing.

kopf lists what there is, and then watches. Of its lists the objects are taken before it sees them (``listed_pages``).

Only ``on.event`` handlers are used, so kopf writes nothing to the cluster: no finalizer, no annotation. It runs in
a thread with an event loop of its own, because at its end it cancels every task of the loop that it runs in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

import aiohttp
import kopf
from kopf._cogs.structs.credentials import Vault  # operator(vault=...) takes one; not exported

from cosmos_operator.controller.listed_pages import Handover, TakePage, make_response_class
from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.client import UNCOMPRESSED, Connection
from cosmos_operator.kube.kinds import KINDS, Manifest
from cosmos_operator.kube.lists import PAGE_SIZE

INACTIVITY_S = 90.0
"""Seconds without any event after which a watch is begun anew; the API server sends a bookmark once a minute."""
BACKOFFS_S = (1, 2, 4, 8)
"""Seconds between tries of a request that fails; after the last try the watches end."""
IDLE_S = 0.1
"""Seconds for which kopf keeps the task of an object, and the object with it, after its last event."""
STOP_S = 10.0
"""Longest time that the watches get to end, in seconds."""

Connect = Callable[[], Awaitable[Connection]]
"""Gives address and credentials of the API server."""
Deliver = Callable[[str, str, Manifest], object]
"""Receives an event: kind of the object; ADDED, MODIFIED or DELETED; the object."""


def build_settings() -> kopf.OperatorSettings:
    """Settings with which kopf watches and does nothing else."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.process.ultimate_exiting_timeout = None
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = BACKOFFS_S
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = INACTIVITY_S
    settings.queueing.idle_timeout = IDLE_S
    settings.persistence.diffbase_storage = _NothingStored()
    if hasattr(settings.watching, "chunk_size"):  # kopf 1.45 and later
        settings.watching.chunk_size = PAGE_SIZE
    return settings


class _NothingStored(kopf.DiffBaseStorage):
    """No last state of an object: kopf would copy each object to compare it, and nobody asks what has changed."""

    def build(
        self, *, body: kopf.Body, extra_fields: Iterable[kopf.FieldSpec] | None = None
    ) -> kopf.BodyEssence:
        """An empty state, whatever the object."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """None: no state has been stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Store nothing."""


def register(
    registry: kopf.OperatorRegistry,
    kinds: Collection[str],
    deliver: Deliver,
    take_page: TakePage,
    connect: Connect,
) -> None:
    """Register the handlers of these kinds, and that of the login, with kopf."""
    response_class = make_response_class(kinds, take_page)

    @kopf.on.login(registry=registry, id="login")
    async def login(**_: object) -> kopf.AiohttpSession:
        return _session(_connection_info(await connect()), response_class)

    for kind in kinds:
        resource = KINDS[kind]
        kopf.on.event(
            group=resource.group,
            version=resource.version,
            plural=resource.plural,
            id=f"watch-{resource.plural}",
            registry=registry,
        )(_handler(kind, deliver))


async def watch(
    kinds: Collection[str],
    namespaces: Sequence[str],
    deliver: Deliver,
    take_page: TakePage,
    connect: Connect,
) -> None:
    """Watch these kinds until cancelled; lists and events arrive in the caller's event loop.

    Args:
        kinds: those of ``kinds.KINDS`` that the API server has.
        namespaces: namespaces to watch; empty = all.
        deliver: called with each event.
        take_page: called with each page of the lists with which watches begin, before their first event.
        connect: gives address and credentials; called again whenever the API server rejects the credentials.

    Raises:
        ClusterUnavailable: the watches ended by themselves.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    watches = _Watches(
        kinds,
        namespaces,
        deliver=lambda *event: loop.call_soon_threadsafe(deliver, *event),
        take_page=Handover(loop, take_page).take,
        connect=lambda: asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(_await(connect), loop)
        ),
    )

    def run() -> None:
        error: BaseException | None = None
        try:
            asyncio.run(watches.run())
        except BaseException as raised:  # the thread ends; whoever waits for it reports
            error = raised
        with suppress(RuntimeError):  # nobody waits any more
            loop.call_soon_threadsafe(_resolve_end, ended, error)

    threading.Thread(target=run, name="watch", daemon=True).start()
    try:
        await asyncio.shield(ended)
    finally:
        watches.stop()
        await asyncio.wait((ended,), timeout=STOP_S)
        if ended.done():
            ended.exception()  # seen, even where it is the stop that is reported
    raise ClusterUnavailable("the watches ended")


IDENTITY: Any = "cosmos-operator"
"""Identity for kopf, which would otherwise take the name of the user; an arbitrary uid in a container has none."""


class _Watches:
    """One run of kopf, in the event loop of a thread."""

    def __init__(
        self,
        kinds: Collection[str],
        namespaces: Sequence[str],
        *,
        deliver: Deliver,
        take_page: TakePage,
        connect: Connect,
    ) -> None:
        self._namespaces = namespaces
        self._registry = kopf.OperatorRegistry()
        register(self._registry, kinds, deliver, take_page, connect)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_stopped = False

    async def run(self) -> None:
        """Watch until stopped."""
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._is_stopped:
            return
        vault = Vault()
        try:
            await kopf.operator(
                registry=self._registry,
                settings=build_settings(),
                identity=IDENTITY,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._stop,
                vault=vault,
            )
        finally:
            await vault.close()  # kopf does so too, but requests of its start may open it again

    def stop(self) -> None:
        """Ask the run to end soon; may be called from another thread."""
        self._is_stopped = True
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # ended already
                self._loop.call_soon_threadsafe(self._stop.set)


def _handler(kind: str, deliver: Deliver) -> Callable[..., Coroutine[None, None, None]]:
    """A handler of kopf that delivers the events of one kind."""

    async def deliver_event(*, event: kopf.RawEvent, **_: object) -> None:
        if event["type"] is not None:  # listed; its page has been taken
            deliver(kind, event["type"], dict(event["object"]))

    return deliver_event


async def _await(connect: Connect) -> Connection:
    return await connect()


def _resolve_end(ended: asyncio.Future[None], error: BaseException | None) -> None:
    """Tell the event loop that waits for the thread how it ended."""
    if ended.done():
        return
    if error is None or isinstance(error, asyncio.CancelledError):
        ended.set_result(None)
    else:
        ended.set_exception(
            ClusterUnavailable(f"the watches ended: {type(error).__name__}: {error}")
        )


def _session(
    info: kopf.ConnectionInfo, response_class: type[aiohttp.ClientResponse]
) -> kopf.AiohttpSession:
    """A session like kopf's own, but for uncompressed answers of this class."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
        headers={**info.as_http_headers(), **UNCOMPRESSED},
        proxy=info.proxy_url,
        trust_env=bool(info.trust_env),
        response_class=response_class,
    )
    return kopf.AiohttpSession(server=info.server, aiohttp_session=session)


def _connection_info(connection: Connection) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_path=connection.ca_file,
        insecure=not connection.verify,
        token=connection.token,
        certificate_path=connection.certificate_file,
        private_key_path=connection.key_file,
        proxy_url=connection.proxy,
        trust_env=connection.trust_env,
    )
