"""Digests of a downloaded object: its SHA-256, and those that the store gives for comparison."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PIECE_BYTES = 1 << 22
MD5 = re.compile(r"[0-9a-f]{32}")
PLAIN_ENCRYPTION = (None, "AES256")
"""Encryption by the store under which an ETag is still the content's MD5."""


class Digests:
    """SHA-256, MD5, SHA-1 and CRC-32 of the bytes that went through."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._crc32 = 0

    def update(self, piece: bytes) -> None:
        """Add bytes."""
        self._sha256.update(piece)
        self._md5.update(piece)
        self._sha1.update(piece)
        self._crc32 = zlib.crc32(piece, self._crc32)

    @property
    def sha256(self) -> str:
        """SHA-256, 64 hex digits."""
        return self._sha256.hexdigest()

    def differing(self, expected: Mapping[str, bytes]) -> str | None:
        """Name of the first digest that is not the expected one."""
        found = {
            "SHA-256": self._sha256.digest(),
            "SHA-1": self._sha1.digest(),
            "CRC-32": self._crc32.to_bytes(4, "big"),
            "MD5": self._md5.digest(),
        }
        return next((name for name, value in expected.items() if found[name] != value), None)


def digest_file(path: Path) -> Digests:
    """Digests of a whole file."""
    digests = Digests()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            digests.update(piece)
    return digests


def expected_digests(answer: Mapping[str, Any], etag: str, bucket: str) -> dict[str, bytes]:
    """Digests of an object's content that a store gives and that can be compared.

    Args:
        answer: of the store, with the object or about it, to a request with ``ChecksumMode``.
        etag: of the object; its MD5 if it was uploaded in one part and is not encrypted with a key of its own.
        bucket: name; in a directory bucket (``--x-s3``) an ETag is never an MD5.

    Returns:
        Name of the digest → value. Checksums of parts of an object are left out.
    """
    names = {"SHA-256": "ChecksumSHA256", "SHA-1": "ChecksumSHA1", "CRC-32": "ChecksumCRC32"}
    expected = {}
    if answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        for name, field in names.items():
            value = answer.get(field, "-")
            if "-" not in value:  # 'VALUE-3' is made of the checksums of three parts
                expected[name] = base64.b64decode(value)
    is_plain = answer.get("ServerSideEncryption") in PLAIN_ENCRYPTION and not answer.get(
        "SSECustomerAlgorithm"
    )
    if MD5.fullmatch(etag) and is_plain and not bucket.endswith("--x-s3"):
        expected["MD5"] = bytes.fromhex(etag)
    return expected
