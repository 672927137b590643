"""addresses.py: no password or signature of an address gets into messages."""

import pytest

from cosmos_worker.config.addresses import (
    recorded,
    redacted,
    secrets_of,
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


ENVIRONMENT = {
    "HF_TOKEN": "hf_hunter2hunter2",
    "AWS_SECRET_ACCESS_KEY": "abc/hunter2+def",
    "MLFLOW_TRACKING_URI": "http://user:hunter2SECRET@mlflow:5000",
    "WANDB_API_KEY": "wbhunter2",
    "SHORT_TOKEN": "a",
    "HOME": "/root",
}


def test_secrets_are_the_values_of_secret_names_and_passwords_of_addresses():
    assert sorted(secrets_of(ENVIRONMENT)) == [
        "abc/hunter2+def", "hf_hunter2hunter2", "hunter2SECRET", "wbhunter2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hf_hunter2hunter2",
        "HTTPConnectionPool(host='http://user:hunter2SECRET@mlflow:5000/api?x=hunter2')",
        "login of user with hunter2SECRET failed",
        "wbhunter2",
        "GET https://host/d.tar?X-Amz-Signature=hunter2 403",
        "SignatureDoesNotMatch abc/hunter2+def",
        "(https://me:hunter2@host/a)",
    ],
)
def test_no_text_shows_a_secret(text: str):
    assert "hunter2" not in redacted(text, ENVIRONMENT)


def test_text_without_secrets_stays_as_it_is():
    text = "models://a/model.pt is at /root, step=3/4 https://host/path"

    assert redacted(text, ENVIRONMENT) == text


def test_record_tells_addresses_apart_without_their_secrets():
    one, other, again = (
        recorded({"url": {"url": url, "sha256": None}, "path": ["models://a"]})
        for url in (
            "https://u:hunter2@h/a?s=1",
            "https://u:hunter2@h/a?s=2",
            "https://u:hunter3@h/a?s=1",
        )
    )

    assert one["url"]["url"].startswith("https://...@h/a?...#")
    assert "hunter2" not in str(one)
    assert one != other
    assert one == again
    assert recorded({"url": "https://h/a", "n": 1}) == {"url": "https://h/a", "n": 1}
