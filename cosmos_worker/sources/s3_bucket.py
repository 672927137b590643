"""A bucket of an S3 store, through boto3: its objects, and their bytes from any position on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError
from urllib3.exceptions import HTTPError

from cosmos_worker.config.addresses import shown_address, without_secrets
from cosmos_worker.config.source import S3Source
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.sources.s3_errors import (
    ANONYMOUS,
    CREDENTIALS,
    Access,
    readable_errors,
)
from cosmos_worker.storage.files import shorten
from cosmos_worker.storage.web_page import describe_page

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 5
"""Attempts of each request; botocore waits up to 20 s between two, also for a store that asks to slow down."""
MAX_FAILURES = 6
"""Connections in a row that break without a byte before an object is given up."""
WAIT_S = 0.5
"""Pause before the first new connection; twice as long before each further one."""
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
PIECE_BYTES = 1 << 20
MAX_NEARBY = 50
AWS_DOMAINS = (".amazonaws.com", ".amazonaws.com.cn", ".api.aws")

Write = Callable[[int, bytes], None]
"""Takes the position in the object and the bytes from there on."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as the store lists it."""

    key: str
    size_bytes: int
    etag: str
    """Changes with the content; without quotes, empty if the store gives none."""


class Bucket:
    """The bucket of a source; threads may use it at the same time.

    Args:
        source: address of the bucket and of what is wanted in it.
        num_connections: requests at the same time.
    """

    def __init__(self, source: S3Source, num_connections: int = 1) -> None:
        """Find credentials as every AWS program does: environment, files, role of the service account or machine.

        Raises:
            DataError: the configuration of AWS on this machine is wrong.
        """
        self.name, _, self.key = source.uri.removeprefix("s3://").partition("/")
        where = (
            f"{source.uri} at {shown_address(source.endpoint)}" if source.endpoint else source.uri
        )
        self._access = Access(where, "AWS")
        with readable_errors(self._access):
            session = botocore.session.get_session()
            credentials = session.get_credentials()
            method = getattr(credentials, "method", "")
            kind = CREDENTIALS.get(method, method or "AWS") if credentials else ANONYMOUS
            kind = f"credentials: {kind}" if credentials else kind
            self._access = Access(where, kind)
            self._client = _connect(
                session, source, num_connections, signed=credentials is not None
            )
            self._endpoint = shown_address(self._client.meta.endpoint_url)
            if not _is_aws(self._client.meta.endpoint_url):  # perhaps of AWS_ENDPOINT_URL
                self._access = Access(f"{source.uri} at {self._endpoint}", kind)
        self._client.meta.events.register("before-parse.s3", self._refuse_strangers)
        logger.info(
            "bucket=%s endpoint=%s credentials=%s",
            self.name, self._endpoint, method or "none (anonymous)",
        )  # fmt: skip

    @property
    def where(self) -> str:
        """The source's address, for messages."""
        return self._access.where

    def _refuse_strangers(self, response_dict: dict[str, Any], **_: object) -> None:
        """Refuse the answer of something that is no S3 store, such as a login page or a web server."""
        status, headers = response_dict["status_code"], response_dict["headers"]
        found = _found_instead(status, headers, response_dict["body"])
        if found is not None:
            raise DataError(
                f"{self.where}: what answers is no S3 store: got {found} from {self._endpoint}; give "
                "endpoint the address of the store's S3 API, and look whether a proxy or a login page stands between"
            )

    def list_objects(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin with a prefix, but for the empty ones that stand for folders."""
        with readable_errors(self._access):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self.name, Prefix=prefix):
                if "Name" not in page and "IsTruncated" not in page:
                    raise DataError(f"{self.where}: what answers is no S3 store; check endpoint")
                for entry in page.get("Contents", ()):
                    found = StoredObject(
                        entry["Key"], entry["Size"], entry.get("ETag", "").strip('"')
                    )
                    if not _is_folder_marker(found):
                        yield found

    def find(self, key: str) -> StoredObject | None:
        """The object with exactly this key, if there is one."""
        with readable_errors(self._access):
            try:
                entry = self._client.head_object(Bucket=self.name, Key=key)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") in ("404", "NoSuchKey", "NotFound"):
                    return None
                raise
            return StoredObject(key, entry["ContentLength"], entry.get("ETag", "").strip('"'))

    def describe(self, item: StoredObject) -> dict[str, Any]:
        """The store's description of an object: its checksums, if it keeps any, and its encryption."""
        with readable_errors(self._access):
            return dict(
                self._client.head_object(
                    Bucket=self.name, Key=item.key, ChecksumMode="ENABLED", **_if_match(item)
                )
            )

    def names_near(self, prefix: str) -> str:
        """Names in the bucket beside or above a prefix that no key begins with, for messages."""
        parent = prefix.rstrip("/")
        while True:
            parent = parent.rpartition("/")[0]
            start = f"{parent}/" if parent else ""
            with readable_errors(self._access):
                page = self._client.list_objects_v2(
                    Bucket=self.name, Prefix=start, Delimiter="/", MaxKeys=MAX_NEARBY
                )
            names = [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
            names += [entry["Key"] for entry in page.get("Contents", ()) if entry["Key"] != start]
            if names:
                return f"s3://{self.name}/{start} holds {shorten(sorted(n.removeprefix(start) for n in names))}"
            if not parent:
                return f"the bucket {self.name} is empty"

    def read(self, item: StoredObject, start: int, stop: int, write: Write) -> dict[str, Any]:
        """Read bytes of an object, which must still be the listed one; goes on where a connection breaks.

        Args:
            item: the object.
            start: first byte.
            stop: the byte after the last one.
            write: receives the bytes.

        Returns:
            The last answer of the store.

        Raises:
            DataError: the store refuses, or gives other bytes than were asked for.
            RetryableError: the connection keeps breaking, or the object has changed.
        """
        position, failures = start, 0
        while True:
            before, problem = position, "the connection ended early"
            with readable_errors(self._access):
                answer = self._get(item, position, stop)
                try:
                    while piece := answer["Body"].read(PIECE_BYTES):
                        write(position, piece)
                        position += len(piece)
                except FlexibleChecksumError as error:
                    raise RetryableError(
                        f"s3://{self.name}/{item.key}: arrived with another checksum than the store says: {error}; run "
                        "again"
                    ) from None
                except (BotoCoreError, HTTPError) as error:
                    problem = without_secrets(str(error))
            if position >= stop:
                return answer
            failures = 1 if position > before else failures + 1
            if failures > MAX_FAILURES:
                raise RetryableError(f"{self.where}: {item.key}: {problem}; run again")
            logger.warning("%s: %s; going on at byte %d", item.key, problem, position)
            time.sleep(WAIT_S * 2 ** (failures - 1))

    def _get(self, item: StoredObject, start: int, stop: int) -> dict[str, Any]:
        whole = (start, stop) == (0, item.size_bytes)
        extra = {"ChecksumMode": "ENABLED"} if whole else {"Range": f"bytes={start}-{stop - 1}"}
        answer = self._client.get_object(Bucket=self.name, Key=item.key, **_if_match(item), **extra)
        expected = None if whole else f"bytes {start}-{stop - 1}/{item.size_bytes}"
        same = (
            answer.get("ETag", "").strip('"') == item.etag
            and answer["ContentLength"] == stop - start
        )
        if not same:
            raise RetryableError(
                f"{self.where}: {item.key} has changed since it was listed; run again when nobody writes there"
            )
        if answer.get("ContentRange") != expected:
            raise DataError(
                f"{self.where}: asked for {expected} of {item.key}, the store gives {answer.get('ContentRange')}; "
                "it must support ranges"
            )
        return dict(answer)


def _connect(
    session: botocore.session.Session, source: S3Source, num_connections: int, *, signed: bool
) -> Any:  # noqa: ANN401 - boto3 makes its clients as it goes
    """A client for S3; with the bucket in the path where the store is not AWS, as few others have names for buckets."""
    configured = (session.get_scoped_config().get("s3") or {}).get("addressing_style")
    maker = boto3.session.Session(botocore_session=session)

    def client(addressing_style: str) -> Any:  # noqa: ANN401
        return maker.client(
            "s3",
            endpoint_url=source.endpoint,
            region_name=source.region,
            config=Config(
                signature_version=None if signed else UNSIGNED,
                s3={"addressing_style": addressing_style},
                retries={"mode": "standard", "total_max_attempts": MAX_ATTEMPTS},
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                max_pool_connections=num_connections,
                response_checksum_validation="when_required",
            ),
        )

    if configured or (source.endpoint and not _is_aws(source.endpoint)):
        return client(configured or "path")
    made = client("auto")
    return made if _is_aws(made.meta.endpoint_url) else client("path")


def _is_aws(endpoint: str) -> bool:
    return (urlsplit(endpoint).hostname or "").endswith(AWS_DOMAINS)


def _found_instead(status: int, headers: Mapping[str, str], body: object) -> str | None:
    """Words for an answer that no S3 store gives; None if it may be one of a store.

    Args:
        status: of HTTP; botocore makes a 500 of every 200 whose body is not XML.
        headers: of the answer, in any case.
        body: bytes, or the stream of an object.
    """
    text = body.strip() if isinstance(body, bytes) else b""
    from_store = "x-amz-bucket-region" in headers or b"<Error" in text
    if 300 <= status < 400 and status != HTTPStatus.NOT_MODIFIED and not from_store:
        return (
            f"a redirect to {shown_address(headers.get('location', 'nowhere'))} (status {status})"
        )
    page = describe_page(text)
    if page is not None and status <= HTTPStatus.INTERNAL_SERVER_ERROR:
        return page
    if status < 300 and "html" in headers.get("content-type", "") and "etag" not in headers:
        return "an HTML page"
    if (
        status in (HTTPStatus.OK, HTTPStatus.INTERNAL_SERVER_ERROR)
        and text
        and not text.startswith(b"<")
    ):
        return "an answer that is not XML"
    return None


def _if_match(item: StoredObject) -> dict[str, str]:
    return {"IfMatch": f'"{item.etag}"'} if item.etag else {}


def _is_folder_marker(item: StoredObject) -> bool:
    """An empty object that a console or Hadoop makes for a folder."""
    return item.size_bytes == 0 and item.key.endswith(("/", "_$folder$"))
