"""``cosmos prune`` from its command line: where the volumes are, and from where the list of living jobs comes."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from cosmos_operator.api.base import INFERENCE_KIND, KIND
from cosmos_operator.api.labels import MANAGED_BY, MANAGED_LABEL
from cosmos_operator.api.machines import StorageSpec
from cosmos_operator.api.parse import load_job
from cosmos_operator.errors import InvalidSpec
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.local.process import pod_spec
from cosmos_operator.local.prune import ReadReferences, Rules, prune
from cosmos_operator.local.prune_pod import PrunePod, build_prune_job
from cosmos_operator.local.references import References, find_references
from cosmos_operator.local.run import lock, print_line
from cosmos_operator.plan.render import to_yaml
from cosmos_operator.plan.volumes import mount_path
from cosmos_worker.errors import EXIT_OK
from cosmos_worker.storage.volumes import VOLUMES, Volumes

if TYPE_CHECKING:
    from cosmos_operator.kube.cluster import KubeCluster

MANIFESTS = "manifests*.yaml"
STANDARD_INPUT = "-"


def run_prune(options: argparse.Namespace) -> int:
    """Carry out ``cosmos prune``; returns the exit code.

    Raises:
        InvalidSpec: arguments that do not go together, or jobs whose files cannot be told.
        WorkspaceBusy: a run uses the workspace.
        ClusterUnavailable: the API server does not answer.
        Refused: the account may not list jobs.
    """
    if options.render is not None:
        sys.stdout.write(to_yaml(build_prune_job(_prune_pod(options))))
        return EXIT_OK
    rules = Rules(options.older_than, frozenset(one.strip("/") for one in options.also))
    with ExitStack() as stack:
        volumes, read = _sources(options, stack)
        prune(volumes, read, rules, print_line, delete=options.delete)
    return EXIT_OK


def _sources(options: argparse.Namespace, stack: ExitStack) -> tuple[Volumes, ReadReferences]:
    """Folders of the volumes, and what reads the living jobs; a workspace is locked until the stack is closed."""
    given = [options.workspace is not None, bool(options.namespace), bool(options.jobs)]
    if sum(given) != 1:
        raise InvalidSpec(
            [
                "cosmos prune: from where comes the list of living jobs? give one of --workspace DIR (a folder of "
                "cosmos run), --namespace NAME (read from the API server) and --jobs FILE"
            ]
        )
    if options.workspace is not None:
        workspace = options.workspace.resolve()
        if not any(workspace.glob(MANIFESTS)):
            raise InvalidSpec([f"{workspace}: no job has been run here (no {MANIFESTS})"])
        stack.enter_context(lock(workspace))
        manifests = list(_workspace_objects(workspace))  # nobody changes them while it is locked
        references = _workspace_references(manifests)
        return _volumes(options, _workspace_folders(workspace, manifests)), lambda: references
    mounted = Volumes.from_environment(os.environ).roots
    volumes = _volumes(options, {name: {root} for name, root in mounted.items()})
    if options.namespace:
        return volumes, lambda: asyncio.run(_read_cluster(options.namespace, options.kubeconfig))
    objects = [one for name in options.jobs for one in _read_objects(name)]
    return volumes, lambda: find_references(objects)


def _volumes(options: argparse.Namespace, found: dict[str, set[Path]]) -> Volumes:
    """The folders of the volumes, those of the command line first."""
    roots = {}
    for volume in VOLUMES:
        given, folders = getattr(options, volume), sorted(found.get(volume, ()))
        if given is None and len(folders) > 1:
            listed = ", ".join(map(str, folders))
            raise InvalidSpec([f"--{volume}: jobs have several folders; give one of {listed}"])
        if given is not None or folders:
            roots[volume] = given or folders[0]
    return Volumes(roots)


# --- a workspace of cosmos run -----------------------------------------------------------------


def _workspace_objects(workspace: Path) -> Iterator[tuple[str, Manifest]]:
    """(file, object) of all manifests in a workspace."""
    for path in sorted(workspace.glob(MANIFESTS)):
        try:
            documents = list(yaml.load_all(path.read_text("utf-8"), yaml.CSafeLoader))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InvalidSpec(
                [f"{path}: cannot be read ({' '.join(str(error).split())}); run the job again"]
            ) from None
        yield from ((path.name, one) for one in documents if isinstance(one, dict))


def _workspace_references(manifests: Iterable[tuple[str, Manifest]]) -> References:
    """Names that the manifests in a workspace refer to: of each job as it was last run."""
    references = References()
    for name, manifest in manifests:
        if name not in references.jobs:
            references.jobs.append(name)
        for text in (manifest.get("data") or {}).values():
            references.add(name, str(text))
    return references


def _workspace_folders(
    workspace: Path, manifests: Iterable[tuple[str, Manifest]]
) -> dict[str, set[Path]]:
    """Volume → its folders in a workspace, from the mounts of the stages."""
    found: dict[str, set[Path]] = {}
    for _, manifest in manifests:
        if manifest.get("kind") not in ("Job", "PyTorchJob"):
            continue
        pod = pod_spec(manifest)
        claims = {
            one["name"]: one["persistentVolumeClaim"]["claimName"]
            for one in pod["volumes"]
            if "persistentVolumeClaim" in one
        }
        for mount in pod["containers"][0]["volumeMounts"]:
            for volume in VOLUMES:
                if mount["mountPath"] == mount_path(volume) and mount["name"] in claims:
                    folder = workspace / claims[mount["name"]] / mount.get("subPath", "")
                    if folder.is_dir():
                        found.setdefault(volume, set()).add(folder)
    return found


# --- a cluster ---------------------------------------------------------------------------------


async def _read_cluster(namespaces: Sequence[str], kubeconfig: Path | None) -> References:
    """Names that the jobs and ConfigMaps of namespaces refer to now.

    Raises:
        InvalidSpec: no credentials, no client library, or an API server without our resources.
    """
    try:
        from cosmos_operator.kube.cluster import connect
    except ImportError as error:
        raise InvalidSpec(
            [
                f"--namespace: {error}; the operator's image has what is needed, here give the jobs as --jobs FILE"
            ]
        ) from None
    cluster = await connect(kubeconfig)
    objects: list[Manifest] = []
    try:
        kinds = (KIND, INFERENCE_KIND)
        # a kind that is not served lists as empty, which would free everything
        lacking = sorted(set(kinds) - await cluster.serving(kinds))
        if lacking:
            raise InvalidSpec(
                [f"the API server knows no {' and no '.join(lacking)}; is it the right cluster?"]
            )
        for namespace in namespaces:
            objects += await _list_namespace(cluster, namespace, kinds)
    finally:
        await cluster.close()
    return find_references(objects)


async def _list_namespace(
    cluster: KubeCluster, namespace: str, kinds: Iterable[str]
) -> list[Manifest]:
    """The jobs and the operator's ConfigMaps of a namespace.

    Raises:
        InvalidSpec: a namespace without any ConfigMap, as a wrong name looks: it lists as empty, too.
    """
    jobs = [one for kind in kinds for one in await cluster.list(kind, namespace)]
    if not jobs and not await cluster.list("ConfigMap", namespace):
        raise InvalidSpec(
            [
                f"--namespace {namespace}: has no job and no ConfigMap, while every namespace has the ConfigMap "
                "kube-root-ca.crt; there is no such namespace, correct the name"
            ]
        )
    return jobs + list(await cluster.list("ConfigMap", namespace, {MANAGED_LABEL: MANAGED_BY}))


def _read_objects(name: str) -> list[Manifest]:
    """The objects of a file, or of standard input, as kubectl prints them.

    Raises:
        InvalidSpec: no such file, no YAML, or something that is no list of objects.
    """
    try:
        text = sys.stdin.read() if name == STANDARD_INPUT else Path(name).read_text("utf-8")
        documents = list(yaml.load_all(text, yaml.CSafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSpec([f"--jobs {name}: {' '.join(str(error).split())}"]) from None
    objects: list[Manifest] = []
    for document in documents:
        is_list = isinstance(document, dict) and str(document.get("kind")).endswith("List")
        found = document.get("items") if is_list else [document]
        if not isinstance(found, list) or not all(
            isinstance(one, dict) and one.get("kind") for one in found
        ):
            raise InvalidSpec(
                [
                    f"--jobs {name}: not the objects of a cluster; give what `kubectl get "
                    "posttrainingjobs,inferencejobs,configmaps -n NAMESPACE -o yaml` prints"
                ]
            )
        objects += found
    if not objects and not documents:
        raise InvalidSpec([f"--jobs {name}: is empty; a list without jobs has `items: []`"])
    return objects


def _prune_pod(options: argparse.Namespace) -> PrunePod:
    """The pod of --render.

    Raises:
        InvalidSpec: no image, or a wrong job.
    """
    if not options.image:
        raise InvalidSpec(
            ["--render: give the operator's image as --image, as the Deployment has it"]
        )
    job = load_job(options.render)
    storage = job.spec.storage or StorageSpec()
    namespace = (options.namespace or [job.metadata.namespace or "default"])[0]
    arguments = [f"--older-than={int(options.older_than // 60)}m"]
    arguments += [f"--also={one}" for one in options.also]
    arguments += ["--delete"] if options.delete else []
    read = options.namespace or [namespace]
    return PrunePod(namespace, options.image, storage, read, arguments)
