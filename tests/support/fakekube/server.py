"""The HTTP side of the API server: paths, verbs, content types, Status answers."""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

import yaml
from aiohttp import web

from support.fakekube import errors, logs, patches, watch
from support.fakekube.commands import PodCommands
from support.fakekube.errors import ApiError
from support.fakekube.resources import Object, Resource
from support.fakekube.selection import parse_fields, parse_labels
from support.fakekube.store import Store, utc_now

VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.3", "platform": "linux/amd64"}
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
PARTIAL = "PartialObjectMetadata"
ACCEPTED = (MERGE_PATCH, STRATEGIC_PATCH, APPLY_PATCH)
VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Call:
    """One request, understood."""

    verb: str
    resource: Resource
    namespace: str
    name: str
    subresource: str
    query: dict[str, str]
    at: float = 0.0
    """Time of the call on the monotonic clock."""
    only_metadata: bool = False
    """True: the client asks for the metadata of objects alone."""

    def shown(self, obj: Object) -> Object:
        """An object of a list or a watch as the client asks for it."""
        if not self.only_metadata:
            return obj
        return {"apiVersion": "meta.k8s.io/v1", "kind": PARTIAL, "metadata": obj["metadata"]}

    def has(self, option: str) -> bool:
        """True if an option of the query is on."""
        return self.query.get(option, "") in ("1", "true", "True")


@dataclass
class Rule:
    """Answers some calls with an error, such as a server that is overloaded or a right that is missing."""

    matches: Callable[[Call], bool]
    error: ApiError
    times: int | None = None


class FakeApiServer:
    """Answers requests from a store."""

    def __init__(
        self, store: Store, pod_logs: logs.PodLogs, commands: PodCommands | None = None
    ) -> None:
        self.store, self.logs, self.commands = store, pod_logs, commands
        self.calls: list[Call] = []
        self.rules: list[Rule] = []
        self.watches = watch.Watches(store)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        try:
            if request.method == "GET":
                found = self._discover(request.path.strip("/"))
                if found is not None:
                    return found
            call = self._understand(request)
            self.calls.append(call)
            self._refuse(call)
            return await self._answer(call, request)
        except ApiError as error:
            return web.json_response(error.to_status(), status=error.code)
        except (json.JSONDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
            return web.json_response(errors.bad_request(str(error)).to_status(), status=400)

    def _refuse(self, call: Call) -> None:
        for rule in self.rules:
            if rule.times != 0 and rule.matches(call):
                rule.times = rule.times and rule.times - 1
                raise rule.error

    # --- discovery -----------------------------------------------------------------------------

    def _discover(self, path: str) -> web.Response | None:
        if path in ("healthz", "livez", "readyz"):
            return web.Response(text="ok")
        parts = path.split("/")
        if path == "version":
            return web.json_response(VERSION)
        if path == "api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        if path == "apis":
            return web.json_response(self._groups())
        if parts[0] == "api" and len(parts) == 2:
            return self._resources("", parts[1])
        if parts[0] == "apis" and len(parts) == 2:
            found = [group for group in self._groups()["groups"] if group["name"] == parts[1]]
            if not found:
                raise errors.no_such_path()
            return web.json_response({"kind": "APIGroup", "apiVersion": "v1", **found[0]})
        if parts[0] == "apis" and len(parts) == 3:
            return self._resources(parts[1], parts[2])
        return None

    def _groups(self) -> Object:
        versions: dict[str, dict[str, None]] = {}
        for resource in self.store.resources.values():
            if resource.group:
                versions.setdefault(resource.group, {})[resource.version] = None
        groups = []
        for group, names in versions.items():
            entries = [{"groupVersion": f"{group}/{name}", "version": name} for name in names]
            groups.append({"name": group, "versions": entries, "preferredVersion": entries[0]})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}

    def _resources(self, group: str, version: str) -> web.Response:
        found = [
            entry
            for resource in self.store.resources.values()
            if (resource.group, resource.version) == (group, version)
            for entry in resource.discovery()
        ]
        if not found:
            raise errors.no_such_path()
        name = f"{group}/{version}" if group else version
        body = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": name,
            "resources": found,
        }
        return web.json_response(body)

    # --- requests ------------------------------------------------------------------------------

    def _understand(self, request: web.Request) -> Call:
        parts = request.path.strip("/").split("/")
        if parts[0] == "api" and len(parts) > 2:
            group, version, rest = "", parts[1], parts[2:]
        elif parts[0] == "apis" and len(parts) > 3:
            group, version, rest = parts[1], parts[2], parts[3:]
        else:
            raise errors.no_such_path()
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2 and rest[2] not in ("status", "finalize"):
            namespace, rest = rest[1], rest[2:]
        resource = self.store.resources.get(f"{rest[0]}.{group}" if group else rest[0])
        if resource is None or resource.version != version:
            raise errors.no_such_path()
        name, subresource = [*rest[1:], "", ""][:2]
        query = dict(request.query)
        verb = VERBS[request.method]
        if verb == "get" and not name:
            verb = "watch" if query.get("watch") in ("1", "true", "True") else "list"
        if verb == "delete" and not name:
            verb = "deletecollection"
        only_metadata = PARTIAL in request.headers.get("Accept", "")
        now = time.monotonic()
        return Call(verb, resource, namespace, name, subresource, query, now, only_metadata)

    async def _answer(self, call: Call, request: web.Request) -> web.StreamResponse:
        if call.verb == "watch":
            return await self.watches.serve(call, request)
        if call.verb == "list":
            return web.json_response(self._list(call))
        if call.subresource == "log":
            return await self.logs.serve(call, request, self.store)
        if call.subresource == "exec" and self.commands is not None:
            return await self.commands.serve(call, request)
        if call.verb == "get":
            return web.json_response(self._get(call))
        body = await request.read()
        if call.verb == "patch":
            return self._patch(call, request.content_type, body)
        value = (
            yaml.safe_load(body) if "yaml" in request.content_type else json.loads(body or b"{}")
        )
        if call.verb in ("delete", "deletecollection"):
            return self._delete(call, value)
        if call.subresource == "eviction":
            return self._evict(call, value)
        return self._create(call, value) if call.verb == "create" else self._replace(call, value)

    def _get(self, call: Call) -> Object:
        return self.store.get(call.resource.key, call.namespace, call.name)

    def _list(self, call: Call) -> Object:
        resource = call.resource
        labels = parse_labels(call.query.get("labelSelector", ""))
        fields = parse_fields(call.query.get("fieldSelector", ""))
        found = self.store.list(resource.key, call.namespace)
        return {
            "kind": f"{resource.kind}List",
            "apiVersion": resource.api_version,
            "metadata": {"resourceVersion": str(self.store.version)},
            "items": [call.shown(obj) for obj in found if labels(obj) and fields(obj)],
        }

    def _create(self, call: Call, obj: Object) -> web.Response:
        self._check_body(call, obj)
        new = copy.deepcopy(obj)
        meta = new.setdefault("metadata", {})
        if call.resource.namespaced:
            meta.setdefault("namespace", call.namespace)
        made = self.store.create(call.resource.key, new, dry_run=call.query.get("dryRun") == "All")
        return web.json_response(made, status=201)

    def _replace(self, call: Call, obj: Object) -> web.Response:
        self._check_body(call, obj)
        new = copy.deepcopy(obj)
        if new.setdefault("metadata", {}).setdefault("name", call.name) != call.name:
            name = new["metadata"]["name"]
            text = (
                f"the name of the object ({name}) does not match the name on the URL ({call.name})"
            )
            raise errors.bad_request(text)
        return self._write(call, new)

    def _patch(self, call: Call, content_type: str, body: bytes) -> web.Response:
        live = self.store.get(call.resource.key, call.namespace, call.name)
        if content_type == APPLY_PATCH and call.subresource == "status":
            return self._apply_status(call, live, yaml.safe_load(body))
        if content_type == MERGE_PATCH:
            new = patches.merge_patch(copy.deepcopy(live), json.loads(body))
        elif content_type == STRATEGIC_PATCH and not call.resource.is_custom:
            new = patches.strategic_patch(copy.deepcopy(live), json.loads(body))
        else:
            raise errors.unknown_format(ACCEPTED)
        uid = new["metadata"].get("uid")
        if uid != live["metadata"]["uid"]:
            raise errors.immutable(call.resource.kind, call.name, "metadata.uid", str(uid))
        if new["metadata"].get("resourceVersion") == live["metadata"]["resourceVersion"]:
            new["metadata"].pop("resourceVersion")
        return self._write(call, new)

    def _apply_status(self, call: Call, live: Object, applied: Object) -> web.Response:
        """Replace the status by what is applied. This is all of server-side apply where a status has one writer."""
        self._check_body(call, applied)
        given = applied["metadata"]
        meta = {**live["metadata"], "resourceVersion": given.get("resourceVersion")}
        return self._write(call, {**live, "metadata": meta, "status": applied.get("status", {})})

    def _write(self, call: Call, new: Object) -> web.Response:
        resource = call.resource
        if resource.namespaced:
            new["metadata"].setdefault("namespace", call.namespace)
        return web.json_response(self.store.update(resource.key, new, subresource=call.subresource))

    def _delete(self, call: Call, options: Object | None) -> web.Response:
        options = options or {}
        if call.verb == "deletecollection":
            found = self._list(call)
            for obj in found["items"]:
                meta = obj["metadata"]
                self._delete_one(call, meta.get("namespace", ""), meta["name"], options)
            return web.json_response(found)
        obj, is_gone = self._delete_one(call, call.namespace, call.name, options)
        if not is_gone or call.resource.key == "pods":
            return web.json_response(obj)
        details = {"name": call.name, "kind": call.resource.plural, "uid": obj["metadata"]["uid"]}
        if call.resource.group:
            details["group"] = call.resource.group
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details,
        }
        return web.json_response(body)

    def _delete_one(
        self, call: Call, namespace: str, name: str, options: Object
    ) -> tuple[Object, bool]:
        expected = options.get("preconditions") or {}
        grace = options.get("gracePeriodSeconds", call.query.get("gracePeriodSeconds"))
        return self.store.delete(
            call.resource.key,
            namespace,
            name,
            uid=expected.get("uid"),
            version=expected.get("resourceVersion"),
            propagation=options.get("propagationPolicy") or call.query.get("propagationPolicy"),
            grace_s=None if grace is None else int(grace),
        )

    def _evict(self, call: Call, eviction: Object) -> web.Response:
        options = eviction.get("deleteOptions") or {}
        evict_pod(self.store, call.namespace, call.name, options.get("gracePeriodSeconds"))
        body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "code": 201,
        }
        return web.json_response(body, status=201)

    def _check_body(self, call: Call, obj: Object) -> None:
        """Refuse a body of another kind or of another namespace."""
        resource, meta = call.resource, obj.get("metadata") or {}
        version, kind = obj.get("apiVersion", resource.api_version), obj.get("kind", resource.kind)
        if version != resource.api_version:
            expected = f"does not match the expected API version ({resource.api_version})"
            raise errors.bad_request(f"the API version in the data ({version}) {expected}")
        if kind != resource.kind:
            raise errors.bad_request(
                f"the kind in the data ({kind}) does not match the expected kind ({resource.kind})"
            )
        if call.namespace and meta.get("namespace", call.namespace) != call.namespace:
            text = "the namespace of the provided object does not match the namespace sent on the request"
            raise errors.bad_request(text)


def evict_pod(store: Store, namespace: str, name: str, grace_s: int | None = None) -> None:
    """Evict a pod: set the condition DisruptionTarget with the reason, then delete."""
    pod = store.get("pods", namespace, name)
    set_disruption(store, pod, "EvictionByEvictionAPI", "Eviction API: evicting")
    store.delete("pods", namespace, name, grace_s=grace_s)


def set_disruption(store: Store, pod: Object, reason: str, message: str) -> None:
    """Add the condition DisruptionTarget to a pod."""
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": reason,
        "message": message,
        "lastTransitionTime": utc_now(),
    }
    live = store.get("pods", pod["metadata"]["namespace"], pod["metadata"]["name"])
    others = [c for c in live["status"].get("conditions", []) if c["type"] != "DisruptionTarget"]
    store.patch_status("pods", live, conditions=[*others, condition])


async def start(server: FakeApiServer, port: int = 0) -> tuple[web.AppRunner, str]:
    """Listen on this machine; returns what stops it and the address."""
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    address = runner.addresses[0]
    return runner, f"http://{address[0]}:{address[1]}"


async def stop(runner: web.AppRunner) -> None:
    """Stop to listen, and cut every connection.

    One that has just been accepted, or whose client reads no more, would outlive the event loop.
    """
    for site in list(runner.sites):
        await site.stop()
    await asyncio.sleep(0.01)  # accepted connections reach the server
    server = runner.server
    connections = [] if server is None else [each.transport for each in server.connections]
    await runner.cleanup()
    for connection in connections:
        if isinstance(connection, asyncio.WriteTransport):
            connection.abort()
    await asyncio.sleep(0)
