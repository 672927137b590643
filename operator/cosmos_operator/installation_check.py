"""Checks of an installation that ``helm test`` runs in pods: access rights, a dry run, a small job."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import yaml

from cosmos_operator.api.base import INFERENCE_PLURAL, PLURAL
from cosmos_operator.errors import InvalidSpec, OperatorError
from cosmos_operator.kube.cluster import KubeCluster, connect
from cosmos_operator.kube.kinds import KINDS, Manifest
from cosmos_operator.settings import Settings, load_settings
from cosmos_worker.errors import EXIT_BUG, EXIT_OK

POLL_S = 5.0
EVERYWHERE = "(all)"
"""Shown instead of a namespace for rights in all of them."""

Needs = dict[tuple[str, str], tuple[str, ...]]
"""API group and resource, with its subresource if it has one → verbs."""

JOB_NEEDS: Needs = {
    **{
        ("cosmos.dev", f"{plural}{below}"): verbs
        for plural in (PLURAL, INFERENCE_PLURAL)
        for below, verbs in {
            "": ("get", "list", "watch", "delete"),
            "/status": ("patch",),
            "/finalizers": ("update",),
        }.items()
    },
    ("batch", "jobs"): ("get", "list", "watch", "create", "delete", "patch"),
    ("kubeflow.org", "pytorchjobs"): ("get", "list", "watch", "create", "delete", "patch"),
    ("trainer.kubeflow.org", "trainjobs"): ("get", "list", "watch", "create", "delete", "patch"),
    ("trainer.kubeflow.org", "trainjobs/status"): ("patch",),
    ("trainer.kubeflow.org", "trainingruntimes"): ("create",),
    ("", "configmaps"): ("get", "list", "watch", "create", "delete", "patch"),
    ("", "services"): ("get", "list", "watch", "create", "delete"),
    ("", "persistentvolumeclaims"): ("get", "list", "watch", "create"),
    ("", "pods"): ("list", "watch", "delete"),
    ("", "pods/log"): ("get",),
    ("", "events"): ("list", "create"),
    ("kueue.x-k8s.io", "localqueues"): ("list", "watch"),
    ("kueue.x-k8s.io", "workloads"): ("list", "watch"),
}
"""Rights that the operator needs in the namespaces of jobs."""
CLUSTER_NEEDS: Needs = {
    ("", "nodes"): ("list",),
    ("storage.k8s.io", "storageclasses"): ("get",),
    ("coordination.k8s.io", "leases"): ("list",),
}
"""Rights that the operator needs in the whole cluster, if canListNodes is true."""


@dataclass(frozen=True)
class Access:
    """One right that the operator needs."""

    namespace: str
    """Namespace; empty = all, or a resource without namespace."""
    group: str
    resource: str
    verb: str
    name: str = ""
    """Name of the object; empty = any."""

    @property
    def attributes(self) -> dict[str, str]:
        """The right in the form of a SelfSubjectAccessReview."""
        resource, _, subresource = self.resource.partition("/")
        return {
            "namespace": self.namespace,
            "group": self.group,
            "resource": resource,
            "subresource": subresource,
            "verb": self.verb,
            "name": self.name,
        }


def needed_access(settings: Settings) -> Iterator[Access]:
    """All rights that an operator with these settings needs."""
    for namespace in settings.watch_namespaces or ("",):
        for (group, resource), verbs in JOB_NEEDS.items():
            yield from (Access(namespace, group, resource, verb) for verb in verbs)
    if settings.can_list_nodes:
        for (group, resource), verbs in CLUSTER_NEEDS.items():
            yield from (Access("", group, resource, verb) for verb in verbs)
    group, lease = KINDS["Lease"].group, settings.lease
    for verb in ("create", "list"):
        yield Access(lease.namespace, group, "leases", verb)
    for verb in ("get", "update"):
        yield Access(lease.namespace, group, "leases", verb, lease.name)


async def check_access(cluster: KubeCluster, options: argparse.Namespace) -> int:
    """Print which rights of the operator are granted and which are missing; 1 if one is missing."""
    rows: dict[tuple[str, str], dict[str, bool]] = {}
    for access in needed_access(load_settings(options.settings)):
        resource, slash, subresource = access.resource.partition("/")
        group = f".{access.group}" if access.group else ""
        resource = f"{resource}{group}{slash}{subresource}"
        row = rows.setdefault((access.namespace or EVERYWHERE, resource), {})
        row[access.verb] = await cluster.may(access.attributes)
    _print(f"{'NAMESPACE':<24} {'RESOURCE':<42} {'GRANTED':<42} MISSING")
    for (namespace, resource), verbs in rows.items():
        granted, missing = (
            ",".join(verb for verb, is_granted in verbs.items() if is_granted is wanted)
            for wanted in (True, False)
        )
        _print(f"{namespace:<24} {resource:<42} {granted:<42} {missing}".rstrip())
    num_missing = sum(not granted for verbs in rows.values() for granted in verbs.values())
    if num_missing:
        _print(
            f"{num_missing} rights are missing; grant them to the operator's service account "
            "(values rbac.create and rbac.scope of the chart)"
        )
        return EXIT_BUG
    _print("the operator has all rights that it needs")
    return EXIT_OK


async def check_dry_run(cluster: KubeCluster, options: argparse.Namespace) -> int:
    """Let the API server check a job without storing it."""
    job = _load(options)
    await cluster.dry_run(job)
    _print(f"the API server accepts PostTrainingJob {_title(job)}")
    return EXIT_OK


async def check_smoke(cluster: KubeCluster, options: argparse.Namespace) -> int:
    """Create a job, print its status until it ends, delete it; 1 if it does not succeed in time."""
    job = _load(options)
    kind, namespace = job["kind"], job["metadata"]["namespace"]
    name = job["metadata"]["name"]
    if await cluster.create(job) is None:
        raise InvalidSpec(
            [
                f"PostTrainingJob {_title(job)} exists already; kubectl -n {namespace} delete ptj {name}"
            ]
        )
    deadline, printed = monotonic() + options.timeout_seconds, ""
    found = await cluster.get(kind, namespace, name)
    uid = found["metadata"]["uid"] if found else ""
    try:
        while True:
            status = (found or {}).get("status") or {}
            line = f"{status.get('state', 'Pending')}: {status.get('message', '')}"
            if line != printed:
                printed = line
                _print(line)
            outcome = _outcome(status)
            has_ended = outcome is not None or found is None or monotonic() >= deadline
            if has_ended:
                break
            await asyncio.sleep(POLL_S)
            found = await cluster.get(kind, namespace, name)
        _print(yaml.safe_dump({"status": status}, sort_keys=False).rstrip())
    finally:
        if uid:
            await cluster.delete(kind, namespace, name, uid, foreground=False)
    if outcome is None:
        reason = (
            f"not finished after {options.timeout_seconds:g} s" if found else "deleted meanwhile"
        )
        _print(f"PostTrainingJob {_title(job)}: {reason}")
    return EXIT_OK if outcome == "Succeeded" else EXIT_BUG


def _outcome(status: Manifest) -> str | None:
    """Succeeded or Failed; None while the job has not ended."""
    for condition in status.get("conditions") or ():
        if condition["type"] in ("Succeeded", "Failed") and condition["status"] == "True":
            return str(condition["type"])
    return None


def _load(options: argparse.Namespace) -> Manifest:
    try:
        job: Manifest = yaml.safe_load(options.job.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InvalidSpec([f"{options.job}: {' '.join(str(error).split())}"]) from error
    job["metadata"]["namespace"] = options.namespace
    return job


def _title(job: Manifest) -> str:
    return f"{job['metadata']['namespace']}/{job['metadata']['name']}"


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


Check = Callable[[KubeCluster, argparse.Namespace], Awaitable[int]]


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of the module."""
    parser = argparse.ArgumentParser(
        prog="python -m cosmos_operator.installation_check", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="CHECK")

    def add(name: str, check: Check) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=check.__doc__, description=check.__doc__)
        command.set_defaults(check=check)
        command.add_argument(
            "--kubeconfig",
            type=Path,
            metavar="FILE",
            help="credentials (default: those of the pod)",
        )
        return command

    add("access", check_access).add_argument("--settings", type=Path, required=True, metavar="FILE")
    for name, check in (("dry-run", check_dry_run), ("smoke", check_smoke)):
        command = add(name, check)
        command.add_argument("--job", type=Path, required=True, metavar="FILE")
        command.add_argument("--namespace", required=True)
        if check is check_smoke:
            command.add_argument("--timeout-seconds", type=float, default=1800.0)
    return parser


async def run_check(options: argparse.Namespace) -> int:
    """Run one check; returns the exit code."""
    cluster = await connect(options.kubeconfig)
    try:
        check: Check = options.check
        return await check(cluster, options)
    finally:
        await cluster.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the module; returns the exit code."""
    try:
        return asyncio.run(run_check(build_parser().parse_args(arguments)))
    except OperatorError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
