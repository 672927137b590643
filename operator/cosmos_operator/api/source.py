"""Sources of a PostTrainingJob's files: a path, a claim, an archive, a Hugging Face repository, a bucket."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import ConfigDict, Field, model_validator

from cosmos_operator.api.base import (
    Address,
    ApiModel,
    ObjectName,
    RelativeFolder,
    rules,
)
from cosmos_worker.config.source import (
    REPOSITORY_PATTERN,
    REVISION_PATTERN,
    S3_ENDPOINT,
    S3_URI,
)
from cosmos_worker.config.values import MAX_ADDRESS

Digest = Annotated[str, Field(max_length=64, pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in hexadecimal digits."""


class ClaimFolder(ApiModel):
    """A folder in a persistent volume claim."""

    claim_name: ObjectName | None = None
    """Name of the claim, in the job's namespace. Omitted: that of spec.storage.datasets for a dataset,
    otherwise that of spec.storage.models."""
    path: RelativeFolder
    """Folder inside the claim. Empty: its root."""
    sha256: Digest | None = None
    """SHA-256 that the files must have, as 64 hexadecimal digits: that of the lines of sha256sum of all
    files that are fetched, sorted by name. The status shows it of what was fetched (ModelReady). Not for datasets.
    Omitted: it is not checked."""


class Archive(ApiModel):
    """A tar archive that is downloaded from a URL."""

    url: Annotated[
        str, Field(max_length=MAX_ADDRESS, pattern=r"^(https?|file)://[^\x00-\x1f\x7f]+$")
    ]
    """URL of the archive: a .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz, by https, http or file."""
    sha256: Digest | None = None
    """SHA-256 that the archive must have, as 64 hexadecimal digits. Omitted: it is not checked."""


class Repository(ApiModel):
    """A repository on the Hugging Face Hub."""

    repo: Annotated[str, Field(max_length=128, pattern=REPOSITORY_PATTERN)]
    """Repository as OWNER/NAME."""
    revision: Annotated[str, Field(min_length=1, max_length=128, pattern=REVISION_PATTERN)] = "main"
    """Branch, tag or commit of the repository; only a commit makes the job reproducible."""
    sha256: Digest | None = None
    """SHA-256 that the files must have, as 64 hexadecimal digits: that of the lines of sha256sum of all
    files that are fetched, sorted by name. The status shows it of what was fetched (ModelReady). Not for datasets.
    Omitted: it is not checked."""


class StoredObjects(ApiModel):
    """Objects in a bucket of Amazon S3, or of a store that is compatible with it."""

    uri: Annotated[str, Field(max_length=1300, pattern=S3_URI)]
    """Address of the objects: s3://BUCKET/PREFIX for everything below a prefix, or a single object, which is a
    .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz, or a .pt or .safetensors of a model. Objects are identified by this
    address alone: give files that have changed another prefix."""
    endpoint: Annotated[str, Field(max_length=512, pattern=S3_ENDPOINT)] | None = None
    """URL of the store's S3 API, such as https://minio.example.com:9000. Omitted: that of Amazon, or of the AWS
    configuration of this machine."""
    region: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9-]+$")] | None = None
    """Region of the bucket, such as eu-central-1. Omitted: the one that Amazon reports, or that of the AWS
    configuration of this machine."""
    sha256: Digest | None = None
    """SHA-256 that the files must have, as 64 hexadecimal digits: that of the lines of sha256sum of all
    files that are fetched, sorted by name. The status shows it of what was fetched (ModelReady). Not for datasets.
    Omitted: it is not checked."""


class Source(ApiModel):
    """The source of files. Give exactly one of the fields."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.path), has(self.claim), has(self.url), has(self.huggingFace), has(self.s3)]"
                ".filter(given, given).size() == 1",
                "give exactly one of path, claim, url, huggingFace, s3",
            )
        )
    )

    path: Address | None = None
    """Path of a folder or file. With cosmos run: on this machine, relative to the job's file. On a cluster: inside the
    worker's image; for volumes use claim."""
    claim: ClaimFolder | None = None
    """Folder in a persistent volume claim."""
    url: Archive | None = None
    """Tar archive that is downloaded from a URL."""
    hugging_face: Repository | None = None
    """Repository on the Hugging Face Hub."""
    s3: StoredObjects | None = None
    """Objects in a bucket of an S3 store."""

    @property
    def digest_of_files(self) -> str | None:
        """The SHA-256 that the fetched files must have together; None if none is given. That of an archive is apart."""
        given = self.claim or self.hugging_face or self.s3
        return None if given is None else given.sha256

    @property
    def is_pinned(self) -> bool:
        """True if only one content can come from here: by a digest, or as a path, which is in the image or local."""
        by_archive = self.url is not None and self.url.sha256 is not None
        return self.path is not None or by_archive or self.digest_of_files is not None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        names: dict[str, object] = {"path": self.path, "claim": self.claim, "url": self.url}
        names |= {"huggingFace": self.hugging_face, "s3": self.s3}
        given = [name for name, value in names.items() if value is not None]
        if len(given) != 1:
            raise ValueError(
                f"got {' and '.join(given) or 'nothing'}; give exactly one of {', '.join(names)}"
            )
        return self
