"""References to images: REGISTRY/REPOSITORY:TAG@DIGEST. Source: github.com/distribution/reference, regexp.go."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

_HOST = r"([A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*|\[[0-9a-fA-F:]+\])"
_PART = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
_DIGEST = r"(sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})"
IMAGE_PATTERN = rf"^({_HOST}(:[0-9]+)?/)?{_PART}(/{_PART})*(:[A-Za-z0-9_][-A-Za-z0-9_.]{{0,127}})?(@{_DIGEST})?$"

Image = Annotated[str, Field(max_length=512, pattern=IMAGE_PATTERN)]
"""Reference of an image; the repository is in lower case."""
