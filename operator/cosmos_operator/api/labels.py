"""Every label and annotation that the operator sets or reads, by which people and tools select its objects."""

from __future__ import annotations

from cosmos_operator.api.base import GROUP, INFERENCE_KIND, KIND

# --- set on everything that the operator creates -----------------------------------------------

MANAGED_LABEL, MANAGED_BY = "app.kubernetes.io/managed-by", "cosmos"
"""Kubernetes' label for the program that manages an object, and the operator's value of it."""
PART_OF_LABEL, PART_OF = "app.kubernetes.io/part-of", "cosmos"
"""Kubernetes' label for the application that an object belongs to, and its value."""
COMMON_LABELS = {MANAGED_LABEL: MANAGED_BY, PART_OF_LABEL: PART_OF}

# --- of this project ---------------------------------------------------------------------------

JOB_LABEL = f"{GROUP}/job"
"""Name of the PostTrainingJob that an object belongs to; absent on objects that several jobs share."""
INFERENCE_JOB_LABEL = f"{GROUP}/inference-job"
"""Name of the InferenceJob that an object belongs to."""
JOB_LABELS = {KIND: JOB_LABEL, INFERENCE_KIND: INFERENCE_JOB_LABEL}
"""Kind of a job → label of its objects."""
STAGE_LABEL = f"{GROUP}/stage"
"""Name of the stage that an object belongs to."""
KEY_LABEL = f"{GROUP}/key"
"""Content key of the stage."""
ATTEMPT_LABEL = f"{GROUP}/attempt"
"""Number of the training attempt, on its workload and its pods."""
ROLE_LABEL, LEADER = f"{GROUP}/role", "leader"
"""Role of a pod of a PyTorchJob, and its value on the pod of rank 0, whose log reports the progress."""
DEPENDS_ANNOTATION = f"{GROUP}/depends-on"
"""Names of the stages that must have finished first, separated by commas."""
TEMPLATE_ANNOTATION = f"{GROUP}/template"
"""Content key of a Job's pod template; it differs if another job asks for another image or other nodes."""
DOCUMENT_ANNOTATION = f"{GROUP}/document"
"""Hash of the document in a ConfigMap, of which the name has only the part that decides the result."""

WATCHED_ANNOTATION = f"{GROUP}/watched-namespaces"
"""Namespaces that an installation watches, separated by commas, on its Lease; * = all."""

COST_ANNOTATION = f"{GROUP}/steps-since-checkpoint"
"""Steps of a running training that a preemption now would repeat, on its workload."""
COST_TIME_ANNOTATION = f"{GROUP}/steps-since-checkpoint-time"
"""Time at which that number was written."""

# --- of Kubernetes and Kueue -------------------------------------------------------------------

JOB_PREFIX = "batch.kubernetes.io/"
"""Prefix of the labels and annotations that Kubernetes gives to the pods of a Job."""
JOB_NAME_LABEL = "batch.kubernetes.io/job-name"
"""Name of the batch/v1 Job, on its pods."""
INDEX_ANNOTATION = "batch.kubernetes.io/job-completion-index"
"""Index of a pod in an indexed Job, as a label and as an annotation."""
HOSTNAME_LABEL = "kubernetes.io/hostname"
"""Host name of a node."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
"""LocalQueue of Kueue in which a workload waits."""
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
"""Priority class of Kueue by which a workload is ordered in its queue."""
TOPOLOGY_PREFIX = "kueue.x-k8s.io/podset-"
"""Beginning of the annotations with which pods ask Kueue for a topology, such as one rack for all of them."""
