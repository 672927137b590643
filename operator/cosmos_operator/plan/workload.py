"""What workloads of all kinds have in common: metadata, queue, and what an attempt of the training is given. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cosmos_operator.api.labels import ATTEMPT_LABEL, DEPENDS_ANNOTATION, QUEUE_LABEL
from cosmos_operator.api.v1alpha1 import PostTrainingJob
from cosmos_operator.kube.kinds import Manifest
from cosmos_operator.plan.names import attempt_name
from cosmos_operator.plan.pod import AvoidedNodes, build_pod_template, metadata
from cosmos_operator.plan.stages import Stage
from cosmos_operator.settings import Settings


def workload_metadata(job: PostTrainingJob, stage: Stage, name: str) -> Manifest:
    """Metadata of a stage's workload: what it waits for, and its queue if it needs one."""
    result = metadata(job, stage, name)
    result["annotations"] = {DEPENDS_ANNOTATION: ",".join(stage.depends_on)}
    if is_queued(job, stage):
        result["labels"][QUEUE_LABEL] = job.spec.scheduling.queue_name
    return result


def is_queued(job: PostTrainingJob, stage: Stage) -> bool:
    """Whether Kueue decides when a stage starts; it is then created suspended, so that it never jumps the queue."""
    return bool(job.spec.scheduling.queue_name) and (stage.kind == "train" or stage.gpus > 0)


@dataclass(frozen=True)
class TrainingAttempt:
    """One attempt of the training, whatever runs it."""

    job: PostTrainingJob
    stage: Stage
    config_map: str
    """Name of the ConfigMap with the stage's document."""
    settings: Settings
    number: int
    """From 1."""
    avoid: AvoidedNodes | None = None
    """Nodes that have failed earlier attempts."""

    @property
    def name(self) -> str:
        """Name of its workload."""
        return attempt_name(self.job.name, self.number)

    @property
    def is_queued(self) -> bool:
        """Whether Kueue decides when it starts."""
        return is_queued(self.job, self.stage)

    def metadata(self) -> Manifest:
        """Metadata of its workload."""
        return self._labelled(workload_metadata(self.job, self.stage, self.name))

    def pod_template(
        self, container: str = "worker", environment: tuple[Manifest, ...] = ()
    ) -> Manifest:
        """Template of its pods, see :func:`build_pod_template`."""
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

    def _labelled(self, header: Manifest) -> Manifest:
        header["labels"][ATTEMPT_LABEL] = str(self.number)
        return header
