"""kopf as the engine that watches: the only module that imports it. Handlers pass events on and decide nothing.

Only ``on.event`` handlers are used, so kopf writes nothing to the cluster: no finalizer, no annotation. It runs in
a thread with an event loop of its own, because at its end it cancels every task of the loop that it runs in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import kopf
from kopf._cogs.structs.credentials import Vault  # operator(vault=...) takes one; not exported

from cosmos_operator.api.base import GROUP, KIND
from cosmos_operator.api.labels import JOB_LABEL
from cosmos_operator.controller.work_queue import Key
from cosmos_operator.errors import ClusterUnavailable
from cosmos_operator.kube.client import Connection
from cosmos_operator.kube.kinds import KINDS

MANAGED_LABEL, MANAGED_BY = "app.kubernetes.io/managed-by", "cosmos"
"""Label of everything that the operator makes."""

INACTIVITY_S = 90.0
"""Time without any event, bookmarks included, after which a watch is begun anew. Bookmarks come once a minute."""
BACKOFFS_S = (1, 2, 4, 8)
"""Waits between tries of a request that is refused; after that the watches end."""
STOP_S = 10.0
"""Longest wait for the watches to end."""

Connect = Callable[[], Awaitable[Connection]]


@dataclass(frozen=True)
class WatchEvent:
    """What the operator needs to know of one event of a watch."""

    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str
    is_deleted: bool = False
    is_finished: bool = False
    """A PostTrainingJob that has succeeded or failed."""
    job: str | None = None
    """PostTrainingJob that the label names."""
    owners: tuple[str, ...] = ()
    """PostTrainingJobs that own the object."""


Deliver = Callable[[WatchEvent], object]


def read_event(kind: str, event_type: str | None, body: Mapping[str, Any]) -> WatchEvent | None:
    """Understand an event of the watch of a kind; None if its object is not ours."""
    metadata = body["metadata"]
    labels = metadata.get("labels") or {}
    if kind != KIND and labels.get(MANAGED_LABEL) != MANAGED_BY:
        return None
    conditions = (body.get("status") or {}).get("conditions") or ()
    final = [each for each in conditions if each["type"] in ("Succeeded", "Failed")]
    return WatchEvent(
        kind=kind,
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        is_deleted=event_type == "DELETED",
        is_finished=kind == KIND and any(each["status"] == "True" for each in final),
        job=labels.get(JOB_LABEL),
        owners=tuple(
            owner["name"]
            for owner in metadata.get("ownerReferences") or ()
            if owner["kind"] == KIND and owner["apiVersion"].startswith(f"{GROUP}/")
        ),
    )


class Router:
    """Tells which jobs an event is about."""

    def __init__(self) -> None:
        self._unfinished: dict[str, set[str]] = {}

    def route(self, event: WatchEvent) -> list[Key]:
        """The job itself; else those of the label or of the owners; else, for want of both, all that run there."""
        unfinished = self._unfinished.setdefault(event.namespace, set())
        if event.kind == KIND:
            if event.is_deleted or event.is_finished:
                unfinished.discard(event.name)
            else:
                unfinished.add(event.name)
            names: Iterable[str] = (event.name,)
        elif event.job:
            names = (event.job,)
        else:
            names = event.owners or sorted(unfinished)
        return [(event.namespace, name) for name in names]


def build_settings() -> kopf.OperatorSettings:
    """Settings of kopf that leave out all that it would do beyond watching."""
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
    selectors = getattr(settings.watching, "label_selectors", None)
    if (
        selectors is not None
    ):  # kopf 1.45 and later; before that, read_event leaves out what is not ours
        for kind, resource in KINDS.items():
            if kind != KIND:
                selectors[resource.group, resource.version, resource.plural] = (
                    f"{MANAGED_LABEL}={MANAGED_BY}"
                )
    return settings


def register(
    registry: kopf.OperatorRegistry, kinds: Iterable[str], deliver: Deliver, connect: Connect
) -> None:
    """Let kopf watch these kinds."""

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
        kinds: kinds of ``kinds.KINDS`` that the API server has.
        namespaces: where; empty = everywhere.
        deliver: called with each event.
        connect: how to reach the API server; asked again whenever it refuses our credentials.

    Raises:
        ClusterUnavailable: the watches ended by themselves.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    watches = _Watches(
        kinds,
        namespaces,
        deliver=lambda event: loop.call_soon_threadsafe(deliver, event),
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
            loop.call_soon_threadsafe(_settle, ended, error)

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
"""What kopf would otherwise make from the name of the user, which a container with an arbitrary uid lacks."""


class _Watches:
    """One run of kopf, in the event loop of its thread."""

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
        """Ask from another thread to end soon."""
        self._is_stopped = True
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # ended already
                self._loop.call_soon_threadsafe(self._stop.set)


def _handler(kind: str, deliver: Deliver) -> Callable[..., Coroutine[None, None, None]]:
    async def pass_on(*, event: kopf.RawEvent, **_: object) -> None:
        found = read_event(kind, event["type"], event["object"])
        if found is not None:
            deliver(found)

    return pass_on


async def _await(connect: Connect) -> Connection:
    return await connect()


def _settle(ended: asyncio.Future[None], error: BaseException | None) -> None:
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
