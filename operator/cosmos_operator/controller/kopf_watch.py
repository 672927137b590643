"""The watches, run by kopf: the only module that imports it. Its handlers deliver events and decide nothing.

Only ``on.event`` handlers are used, so kopf writes nothing to the cluster: no finalizer, no annotation. It runs in
a thread with an event loop of its own, because at its end it cancels every task of the loop that it runs in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

import kopf
from kopf._cogs.structs.credentials import Vault  # operator(vault=...) takes one; not exported

from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.client import Connection
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
Deliver = Callable[[str, str | None, Manifest], object]
"""Receives an event: kind of the object; ADDED, MODIFIED, DELETED, or None for the first list; the object."""


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
    if hasattr(settings.watching, "chunk_size"):  # kopf 1.45 and later
        settings.watching.chunk_size = PAGE_SIZE
    return settings


def register(
    registry: kopf.OperatorRegistry, kinds: Iterable[str], deliver: Deliver, connect: Connect
) -> None:
    """Register the handlers of these kinds, and that of the login, with kopf."""

    @kopf.on.login(registry=registry, id="login")
    async def login(**_: object) -> kopf.ConnectionInfo:
        return _connection_info(await connect())

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
    kinds: Iterable[str], namespaces: Sequence[str], deliver: Deliver, connect: Connect
) -> None:
    """Watch these kinds until cancelled; events arrive in the caller's event loop.

    Args:
        kinds: those of ``kinds.KINDS`` that the API server has.
        namespaces: namespaces to watch; empty = all.
        deliver: called with each event.
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
        kinds: Iterable[str],
        namespaces: Sequence[str],
        *,
        deliver: Deliver,
        connect: Connect,
    ) -> None:
        self._namespaces = namespaces
        self._registry = kopf.OperatorRegistry()
        register(self._registry, kinds, deliver, connect)
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


def _connection_info(connection: Connection) -> kopf.ConnectionInfo:
    return kopf.ConnectionInfo(
        server=connection.server,
        ca_path=connection.ca_file,
        insecure=not connection.verify,
        token=connection.token,
        certificate_path=connection.certificate_file,
        private_key_path=connection.key_file,
        proxy_url=connection.proxy,
        trust_env=True,
    )
