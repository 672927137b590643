"""addresses.py: no password or signature of an address gets into messages."""

import pytest

from cosmos_worker.config.addresses import (
    shown_address,
    without_secrets,
)
from cosmos_worker.config.documents import parse_document
from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.errors import ConfigError


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://data.example.com:8443/a.tar.gz", "https://data.example.com:8443/a.tar.gz"),
        ("https://me:hunter2@host/a.tar?sig=hunter2", "https://...@host/a.tar?..."),
        ("s3://key:hunter2@bucket/a b/?x=hunter2", "s3://...@bucket/a b/?..."),
        ("http://[::1/?hunter2", "http://..."),
        ("file:///data/a.tar", "file:///data/a.tar"),
    ],
)
def test_an_address_is_shown_without_secrets(address: str, shown: str):
    assert shown_address(address) == without_secrets(address) == shown


def test_addresses_inside_of_a_text_are_shown_so():
    text = "got 'https://me:hunter2@host/a?b=hunter2', not s3://bucket/a or 3 @ 4?"

    assert without_secrets(text) == "got 'https://...@host/a?...', not s3://bucket/a or 3 @ 4?"


@pytest.mark.parametrize(
    "source",
    [
        {"s3": {"uri": "s3://key:hunter2@bucket/sets"}},
        {"s3": {"uri": "s3://bucket/sets", "endpoint": "ftp://key:hunter2@host"}},
    ],
)
def test_a_refused_document_does_not_tell_them(source: object):
    with pytest.raises(ConfigError, match=r"pattern.*\.\.\.@") as caught:
        parse_document(PrepareDatasetConfig, {"source": source}, "x.yaml")

    assert "hunter2" not in str(caught.value)
