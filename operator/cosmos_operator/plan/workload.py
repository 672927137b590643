"""The common parts of all kinds of workload: metadata, queue, and the pods of a training attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cosmos_operator.api.job import Job
from cosmos_operator.api.labels import (
    ATTEMPT_LABEL,
    DEPENDS_ANNOTATION,
    PRIORITY_LABEL,
    QUEUE_LABEL,
)
from cosmos_operator.api.machines import SchedulingSpec
from cosmos_operator.api.pod_template import StagesSpec
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.names import attempt_name
from cosmos_operator.plan.pod import AvoidedNodes, build_pod_template, metadata
from cosmos_operator.plan.stages import Stage
from cosmos_operator.settings import Settings


def workload_metadata(job: Job, stage: Stage, name: str) -> Manifest:
    """Metadata of a stage's workload, with the stages that it depends on, and its queue if it has one."""
    result = metadata(job, stage, name)
    result["annotations"] = {DEPENDS_ANNOTATION: ",".join(stage.depends_on)}
    if is_queued(job, stage):
        result["labels"][QUEUE_LABEL] = job.queue_name
        if priority := job.metadata.labels.get(PRIORITY_LABEL):
            result["labels"][PRIORITY_LABEL] = priority
    return result


def is_queued(job: Job, stage: Stage) -> bool:
    """True if Kueue decides when a stage starts; its workload is then created suspended, so that it waits its turn."""
    return bool(job.queue_name) and (stage.kind == "train" or stage.gpus > 0)


@dataclass(frozen=True)
class TrainingAttempt:
    """One attempt of the training, for any backend."""

    job: PostTrainingJob
    stage: Stage
    config_map: str
    """Name of the ConfigMap with the stage's document."""
    settings: Settings
    number: int
    """Number of the attempt, from 1."""
    avoid: AvoidedNodes | None = None
    """Nodes on which earlier attempts failed."""

    @property
    def name(self) -> str:
        """Name of the attempt's workload."""
        return attempt_name(self.job.name, self.number)

    @property
    def is_queued(self) -> bool:
        """True if Kueue decides when the attempt starts."""
        return is_queued(self.job, self.stage)

    def metadata(self) -> Manifest:
        """Metadata of the attempt's workload."""
        return self._labelled(workload_metadata(self.job, self.stage, self.name))

    def pod_template(
        self, container: str = "worker", environment: tuple[Manifest, ...] = ()
    ) -> Manifest:
        """Template of the attempt's pods, see :func:`build_pod_template`."""
        template = build_pod_template(
            self.job,
            self.stage,
            config_map=self.config_map,
            settings=self.settings,
            container=container,
            environment=environment,
            avoid=self.avoid,
        )
        self._labelled(template["metadata"])
        return template

    def plain_pod_template(self) -> Manifest:
        """The template without anything that the job or the installation changes in it."""
        spec = self.job.spec.model_copy(
            update={"pod_template": None, "stages": StagesSpec(), "scheduling": SchedulingSpec()}
        )
        job = self.job.model_copy(update={"spec": spec})
        return build_pod_template(job, self.stage, config_map=self.config_map, settings=Settings())

    def _labelled(self, header: Manifest) -> Manifest:
        header["labels"][ATTEMPT_LABEL] = str(self.number)
        return header
