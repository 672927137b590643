"""Job and stages → the manifests of all objects, and their YAML. Pure.

``cosmos render`` prints them, ``cosmos run`` carries them out on this machine, the operator creates them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from cosmos_operator.api.base import INFERENCE_KIND, KIND
from cosmos_operator.api.job import Job
from cosmos_operator.api.labels import (
    COMMON_LABELS,
    DOCUMENT_ANNOTATION,
    JOB_LABEL,
    STAGE_LABEL,
)
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.backend import Backend, choose_backend
from cosmos_operator.plan.job import build_stage_job
from cosmos_operator.plan.names import object_name
from cosmos_operator.plan.pod import CONFIG_FILE, FETCHING, metadata, owner_of
from cosmos_operator.plan.stages import Stage
from cosmos_operator.plan.workload import TrainingAttempt
from cosmos_operator.settings import Settings
from cosmos_worker.config.document_version import HINTS_FILE, dump_document, dump_hints
from cosmos_worker.storage.volumes import (
    VOLUMES,
    content_key,
)

EVERYTHING_SERVED = frozenset({"PyTorchJob", "TrainJob"})
OWN_VARIANTS = {KIND: "", INFERENCE_KIND: "ij"}
"""Kind of a job → variant in the names of the stages that it shares with no other, see :func:`object_name`."""


def build_manifests(
    job: Job,
    stages: Sequence[Stage],
    *,
    settings: Settings | None = None,
    attempt: int = 1,
) -> list[Manifest]:
    """All objects of a job: claims, one ConfigMap and one workload for each stage, in the order of the plan."""
    settings = settings or Settings()
    backend = choose_backend(job.spec.backend.type, EVERYTHING_SERVED)
    manifests = build_claims(job)
    if any(stage.kind == "train" for stage in stages):
        manifests.append(build_leader_service(job, backend))
    for stage in stages:
        manifests.append(build_config_map(job, stage))
        name = stage_name(job, stage)
        if stage.kind == "train":
            assert isinstance(job, PostTrainingJob)
            manifests += backend.build(TrainingAttempt(job, stage, name, settings, attempt))
        else:
            manifests.append(build_stage_job(job, stage, name, name, settings))
    return manifests


def build_claims(job: Job) -> list[Manifest]:
    """The claims that the job asks to create. They have no owner, so that their files outlive the job."""
    claims: dict[str, Manifest] = {}
    for volume in VOLUMES:
        spec = getattr(job.spec.storage, volume)
        if spec.create is None or spec.claim_name in claims:
            continue
        header: Manifest = {
            "name": spec.claim_name,
            "labels": dict(COMMON_LABELS),
        }
        if job.metadata.namespace is not None:
            header["namespace"] = job.metadata.namespace
        body: Manifest = {
            "accessModes": [spec.create.access_mode],
            "resources": {"requests": {"storage": spec.create.size}},
        }
        if spec.create.storage_class_name is not None:
            body["storageClassName"] = spec.create.storage_class_name
        claims[spec.claim_name] = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": header,
            "spec": body,
        }
    return list(claims.values())


def stage_name(job: Job, stage: Stage) -> str:
    """Name of a stage's ConfigMap, and of its Job unless it is the training."""
    variant = _variant(job, stage) if stage.is_shared else OWN_VARIANTS[job.kind]
    return object_name(owner_of(job, stage), stage.name, stage.key, variant)


def _variant(job: Job, stage: Stage) -> str:
    """Hash of what differs between jobs with the same stage: claims, and credentials of the stages that download."""
    mounts = [[mount.claim_name, mount.sub_path, mount.mount_path] for mount in stage.mounts(job)]
    if stage.kind not in FETCHING:
        return content_key([mounts, None])[:6]
    token, keys = job.spec.credentials.hugging_face, job.spec.credentials.s3
    # jobs without keys keep the names that they had before there were any
    named = [] if keys is None else [keys.model_dump()]
    return content_key([mounts, token and token.model_dump(), *named])[:6]


def build_config_map(job: Job, stage: Stage) -> Manifest:
    """The ConfigMap with a stage's document."""
    document, hints = (
        dump_document(stage.kind, stage.document),
        dump_hints(stage.kind, stage.document),
    )
    data = {CONFIG_FILE: to_yaml([document])}
    if hints:
        data[HINTS_FILE] = to_yaml([hints])
    header = metadata(job, stage, stage_name(job, stage))
    header["annotations"] = {DOCUMENT_ANNOTATION: content_key([document, hints])}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": header,
        "immutable": True,
        "data": data,
    }


def build_leader_service(job: Job, backend: Backend) -> Manifest:
    """The headless Service that always selects the training's leader: ``kubectl logs -f svc/<job>``."""
    header: Manifest = {
        "name": job.name,
        "labels": {**COMMON_LABELS, JOB_LABEL: job.name},
    }
    if job.metadata.namespace is not None:
        header["namespace"] = job.metadata.namespace
    selector = {JOB_LABEL: job.name, STAGE_LABEL: "train", **backend.leader_labels}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": header,
        "spec": {"clusterIP": "None", "selector": selector},
    }


# --- YAML ------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Writes texts with line breaks as blocks, repeats equal values instead of using anchors, and indents lists."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401 - the signature of PyYAML
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(documents: Iterable[Any]) -> str:
    """Documents as YAML, with keys in the order given."""
    return yaml.dump_all(
        list(documents), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100
    )
