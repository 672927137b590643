"""Sources of files, as documents name them (path, URL, repository, bucket), and models to fetch. No torch here."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cosmos_worker.config.values import (
    Model,
    PathText,
)

REPOSITORY_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*$"
"""OWNER/NAME."""
PATH_OF_NAMES = r"^[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*$"
"""Names of folders behind one another: the Hub itself says what is no repository."""
REVISION_PATTERN = r"^[A-Za-z0-9_][A-Za-z0-9._+@-]*(/[A-Za-z0-9_][A-Za-z0-9._+@-]*)*$"
"""A branch, tag or commit."""
S3_URI = r"^s3://[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9](/.*)?$"
"""s3://BUCKET or s3://BUCKET/KEY."""


S3_ENDPOINT = r"^https?://[A-Za-z0-9._\-\[\]:]+(/[A-Za-z0-9._~/-]*)?$"
"""http or https address without a user or a query."""


class UrlSource(Model):
    """A tar archive behind a URL."""

    url: PathText
    """http, https or file address of a .tar, .tar.gz, .tgz, .tar.bz2 or .tar.xz."""
    sha256: str | None = None
    """Expected SHA-256 of the archive, 64 hex digits; null = not checked."""


class HuggingFaceSource(Model):
    """A repository on the Hugging Face Hub."""

    repo: Annotated[str, Field(max_length=128, pattern=PATH_OF_NAMES)]
    """owner/name."""
    revision: Annotated[str, Field(max_length=128, pattern=REVISION_PATTERN)] = "main"
    """Branch, tag or commit; a commit makes the job reproducible."""


class S3Source(Model):
    """Objects in a bucket of Amazon S3 or a store that is compatible with it."""

    uri: Annotated[str, Field(max_length=1300, pattern=S3_URI)]
    """s3://BUCKET/PREFIX for all objects below a prefix, or the address of a single one: a .tar, .tar.gz, .tgz,
    .tar.bz2 or .tar.xz, or a model's .pt or .safetensors."""
    endpoint: Annotated[str, Field(pattern=S3_ENDPOINT)] | None = None
    """Address of the store's S3 API; null = as AWS is configured on this machine, else Amazon's."""
    region: str | None = None
    """Region of the bucket; null = as AWS is configured on this machine."""


class Source(Model):
    """The place that files come from: exactly one of the fields."""

    path: PathText | None = None
    """A folder that the worker can already see: a plain path or a volume address."""
    url: UrlSource | None = None
    """A tar archive behind a URL."""
    hugging_face: HuggingFaceSource | None = None
    """A repository on the Hugging Face Hub."""
    s3: S3Source | None = None
    """Objects in a bucket."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        names = ("path", "url", "hugging_face", "s3")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"source: got {' and '.join(given) or 'nothing'}; give exactly one of {', '.join(names)}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_later_fields(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out s3 where it is not given: content keys and records of versions without it stay what they were."""
        values: dict[str, Any] = serialize(self)
        if self.s3 is None:
            values.pop("s3", None)
        return values


ArtifactKind = Literal[
    "model", "tokenizer", "text_encoder",
    "guardrails", "guardrails_with_face_blur", "text_classifier", "image_encoder", "prompt_upsampler",
]  # fmt: skip


class Artifact(Model):
    """One folder of model files to fetch."""

    kind: ArtifactKind
    """The kind of model; it decides which files are needed and how they are checked."""
    name: str
    """Name for messages, such as Cosmos-Predict1-7B-Video2World."""
    source: Source
    target_uri: PathText
    """Folder that receives the files."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest that the files must have together: SHA-256 of the lines ``<SHA-256>  <name>`` of all of them, sorted by
    name; null = not checked."""

    @model_serializer(mode="wrap")
    def _without_later_fields(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a digest that is not given: content keys of before stay what they were."""
        values: dict[str, Any] = serialize(self)
        if self.sha256 is None:
            values.pop("sha256", None)
        return values
