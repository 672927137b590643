"""Digests of an object that a store gives and that can be compared."""

from __future__ import annotations

import base64
import hashlib
import zlib
from pathlib import Path

import pytest

from cosmos_worker.sources.s3_digests import (
    digest_file,
    expected_digests,
)

CONTENT = b"weights" * 1000
MD5 = hashlib.md5(CONTENT).hexdigest()
SHA256 = base64.b64encode(hashlib.sha256(CONTENT).digest()).decode()
CRC32 = base64.b64encode(zlib.crc32(CONTENT).to_bytes(4, "big")).decode()


@pytest.mark.parametrize(
    ("answer", "etag", "bucket", "compared"),
    [
        ({}, MD5, "lab", {"MD5"}),
        ({"ServerSideEncryption": "AES256"}, MD5, "lab", {"MD5"}),
        ({"ServerSideEncryption": "aws:kms"}, "0" * 32, "lab", set()),
        ({"SSECustomerAlgorithm": "AES256"}, "0" * 32, "lab", set()),
        ({}, f"{MD5}-2", "lab", set()),
        ({}, "", "lab", set()),
        ({}, "0" * 32, "lab--use1-az4--x-s3", set()),
        ({"ChecksumSHA256": SHA256, "ChecksumType": "FULL_OBJECT"}, MD5, "lab", {"SHA-256", "MD5"}),
        ({"ChecksumSHA256": f"{SHA256}-3"}, f"{MD5}-3", "lab", set()),
        ({"ChecksumSHA256": "AAAA", "ChecksumType": "COMPOSITE"}, f"{MD5}-3", "lab", set()),
        ({"ChecksumCRC32": CRC32, "ChecksumType": "FULL_OBJECT"}, f"{MD5}-3", "lab", {"CRC-32"}),
        ({"ChecksumCRC64NVME": "AAAAAAAAAAA="}, f"{MD5}-3", "lab", set()),
    ],
)
def test_digests_that_are_those_of_the_content_are_compared(
    tmp_path: Path, answer: dict[str, str], etag: str, bucket: str, compared: set[str]
) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    (tmp_path / "b").write_bytes(CONTENT[:-1] + b"S")

    expected = expected_digests(answer, etag, bucket)

    assert set(expected) == compared
    assert digest_file(tmp_path / "a").differing(expected) is None
    assert digest_file(tmp_path / "b").differing(expected) in (compared or {None})
