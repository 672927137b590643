"""The Secrets that a PostTrainingJob names for the stages that download."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from cosmos_operator.api.base import ApiModel, ObjectName


class SecretKey(ApiModel):
    """One key of a Secret in the job's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1, max_length=253)] = "token"
    """Key in the Secret that holds the value."""


class KeysSecret(ApiModel):
    """A Secret in the job's namespace that holds the keys of an S3 store."""

    name: ObjectName
    """Name of the Secret. Its keys are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, for temporary credentials,
    AWS_SESSION_TOKEN."""


class CredentialsSpec(ApiModel):
    """Secrets for the stages that download. Without a cluster, HF_TOKEN and the variables of AWS count instead."""

    hugging_face: SecretKey | None = None
    """Secret with a token for the Hugging Face Hub. Omitted: that of the installation, if it has one."""
    s3: KeysSecret | None = None
    """Secret with the keys of an S3 store. Omitted: that of the installation; without one the pods use the role of
    their service account, or read public buckets only."""
