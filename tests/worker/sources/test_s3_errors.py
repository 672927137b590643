"""Messages about the answers of a store, of proxies before it, and of other servers in its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.s3_store import BUCKET, KEYS, PAGE, Answer, S3Store, error_answer, set_credentials

from cosmos_worker.config.source import S3Source
from cosmos_worker.errors import DataError, RetryableError, WorkerError
from cosmos_worker.sources.s3 import download_source

URI = f"s3://{BUCKET}/data"


def failure(
    store: S3Store, tmp_path: Path, uri: str = URI, endpoint: str | None = None
) -> WorkerError:
    source = S3Source(uri=uri, endpoint=endpoint or store.url, region="eu-west-9")
    with pytest.raises((DataError, RetryableError)) as caught:
        download_source(source, tmp_path / "partial", list)
    message = str(caught.value)
    assert uri in message
    assert "\n" not in message
    assert not any(value in message for value in (*KEYS.values(), "session-token"))
    return caught.value


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (
            error_answer(404, "NoSuchBucket"),
            DataError,
            "NoSuchBucket: said the store.*check the bucket's name",
        ),
        (
            error_answer(403, "AccessDenied"),
            DataError,
            r"AccessDenied: said the store; used credentials: AWS_ACCESS_KEY_ID of the environment .*"
            r"grant this identity s3:ListBucket",
        ),
        (error_answer(403, "InvalidAccessKeyId"), DataError, "does not know this access key"),
        (
            error_answer(403, "SignatureDoesNotMatch"),
            DataError,
            "AWS_SECRET_ACCESS_KEY does not belong",
        ),
        (error_answer(400, "ExpiredToken"), DataError, "they have expired: renew them"),
        (error_answer(400, "InvalidToken"), DataError, "correct or remove it"),
        (
            error_answer(301, "PermanentRedirect", **{"x-amz-bucket-region": "us-west-2"}),
            DataError,
            "the bucket is in region us-west-2: give region: us-west-2",
        ),
        (error_answer(403, "RequestTimeTooSkewed"), RetryableError, "set this machine's clock"),
        (
            error_answer(503, "SlowDown"),
            RetryableError,
            "SlowDown: said the store; run again later",
        ),
        (error_answer(500, "InternalError"), RetryableError, "InternalError.*run again later"),
        (error_answer(403, "InvalidObjectState"), DataError, "is archived; restore it"),
        (error_answer(418, "Odd"), DataError, "Odd: said the store"),
        (
            (200, {"Content-Type": "text/html"}, PAGE),
            DataError,
            "an HTML page titled 'Sign in & go on' from http",
        ),
        (
            (404, {"Content-Type": "text/html"}, PAGE),
            DataError,
            "no S3 store: got an HTML page titled 'Sign in & go",
        ),
        (
            (200, {"Content-Type": "application/json"}, b"{}"),
            DataError,
            "what answers is no S3 store",
        ),
        (
            (200, {"Content-Type": "application/xml"}, b"<a/>"),
            DataError,
            "what answers is no S3 store",
        ),
        ((503, {"Content-Type": "text/html"}, PAGE), RetryableError, "503.*run again later"),
    ],
)
def test_answers_are_explained(
    store: S3Store, tmp_path: Path, answer: Answer, kind: type[WorkerError], words: str
) -> None:
    store.refuse = lambda method, path: answer

    error = failure(store, tmp_path)

    assert type(error) is kind
    assert re.search(words, str(error)), str(error)


def test_store_that_is_busy_is_asked_again(store: S3Store, tmp_path: Path) -> None:
    store.put("data/a.txt", b"A")
    answers = [error_answer(503, "SlowDown")]
    store.refuse = lambda method, path: answers.pop() if answers else None

    folder = download_source(S3Source(uri=URI, endpoint=store.url), tmp_path / "partial", list)

    assert (folder / "a.txt").read_bytes() == b"A"


def test_bucket_that_does_not_exist(store: S3Store, tmp_path: Path) -> None:
    error = failure(store, tmp_path, "s3://nowhere/data")

    assert "s3://nowhere/data at http://127.0.0.1" in str(error)
    assert "NoSuchBucket: The specified bucket does not exist" in str(error)


def test_nobody_at_the_endpoint(store: S3Store, tmp_path: Path) -> None:
    error = failure(store, tmp_path, endpoint="http://127.0.0.1:1")

    assert type(error) is RetryableError
    assert 'Could not connect to the endpoint URL: "http://127.0.0.1:1/' in str(error)


def test_endpoint_may_be_configured_as_for_every_aws_program(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.url)
    store.put("data/a.txt", b"A")

    assert (download_source(S3Source(uri=URI), tmp_path / "partial", list) / "a.txt").is_file()
    with pytest.raises(
        DataError, match=f"s3://{BUCKET}/nothing at {store.url}: no object is there"
    ):
        download_source(S3Source(uri=f"s3://{BUCKET}/nothing"), tmp_path / "partial", list)


def test_endpoint_without_tls(store: S3Store, tmp_path: Path) -> None:
    error = failure(store, tmp_path, endpoint=store.url.replace("http:", "https:"))

    assert type(error) is DataError
    assert "check endpoint (https:// or http://)" in str(error)


def test_redirect_to_a_login_page(store: S3Store, tmp_path: Path) -> None:
    store.refuse = lambda method, path: (302, {"Location": "https://login.example.com/"}, b"")

    error = failure(store, tmp_path)

    assert type(error) is DataError
    assert "got a redirect to https://login.example.com/ (status 302) from http" in str(error)


@pytest.mark.parametrize(
    "answer",
    [
        (302, {"Location": "https://me:hunter2@login.example.com/?signature=hunter2"}, b""),
        error_answer(307, "TemporaryRedirect", Location="https://me:hunter2@b.example.com/?k=hunter2"),
        error_answer(418, "Odd", "see https://me:hunter2@example.com/?k=hunter2"),
        (200, {"Content-Type": "application/xml"}, b"<a/>"),
        (200, {"Content-Type": "text/html"}, PAGE),
        error_answer(403, "AccessDenied"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_there", [True, False])
def test_addresses_are_told_without_their_secrets(
    store: S3Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: Answer,
    is_there: bool,
) -> None:
    """A proxy before a store may want a password, which AWS_ENDPOINT_URL can hold."""
    address = store.url if is_there else "http://127.0.0.1:1"
    monkeypatch.setenv(
        "AWS_ENDPOINT_URL", f"{address}/?token=hunter2".replace("//", "//me:hunter2@", 1)
    )
    store.refuse = lambda method, path: answer

    with caplog.at_level("INFO"), pytest.raises((DataError, RetryableError)) as caught:
        download_source(S3Source(uri=URI), tmp_path / "partial", list)

    assert "hunter2" not in f"{caught.value} {caplog.text}"
    assert f"{URI} at http://...@127.0.0.1:" in str(caught.value)
    assert "endpoint=http://...@127.0.0.1:" in caplog.text


# --- credentials -------------------------------------------------------------------------------


def test_without_credentials_requests_are_anonymous(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_credentials(monkeypatch, tmp_path, {})
    store.client.put_bucket_acl(Bucket=BUCKET, ACL="public-read")
    store.put("data/a.txt", b"A", ACL="public-read")

    folder = download_source(S3Source(uri=URI, endpoint=store.url), tmp_path / "public", list)

    assert (folder / "a.txt").read_bytes() == b"A"
    assert set(store.authorizations) == {None}
    store.refuse = lambda method, path: error_answer(403, "AccessDenied")
    assert re.search(
        "used no credentials .*anonymous.*; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile",
        str(failure(store, tmp_path)),
    )


@pytest.mark.parametrize(
    ("settings", "files", "words"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIDTEST"}, {}, "Partial credentials found in env"),
        ({"AWS_PROFILE": "lab"}, {}, r"profile \(lab\) could not be found"),
        (
            {},
            {
                "no-credentials": "[default]\naws_access_key_id=AKIDTEST\naws_secret_access_key=very-secret-value\n"
            },
            r"used credentials: the shared credentials file \(~/\.aws/credentials\)",
        ),
        (
            {},
            {
                "no-config": "[default]\naws_access_key_id=AKIDTEST\naws_secret_access_key=very-secret-value\n"
            },
            r"used credentials: the configuration file of AWS",
        ),
        (
            {**KEYS, "AWS_SESSION_TOKEN": "session-token"},
            {},
            "used credentials: AWS_ACCESS_KEY_ID of the environment",
        ),
    ],
)
def test_kind_of_the_credentials_is_told(
    store: S3Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict,
    files: dict,
    words: str,
) -> None:
    set_credentials(monkeypatch, tmp_path, settings)
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    store.refuse = lambda method, path: error_answer(403, "AccessDenied")

    error = failure(store, tmp_path)

    assert type(error) is DataError
    assert re.search(words, str(error)), str(error)


def test_role_of_a_service_account_is_told(
    store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables and files of a pod on EKS with an IAM role of a service account; moto is the token service."""
    (tmp_path / "token").write_text("token-of-the-pod")
    role = {
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/reader",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        "AWS_ENDPOINT_URL_STS": store.url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    set_credentials(monkeypatch, tmp_path, role)
    denied = error_answer(403, "AccessDenied")
    store.refuse = lambda method, path: denied if path.startswith(f"/{BUCKET}") else None
    assert "used credentials: the role of the service account" in str(failure(store, tmp_path))

    store.refuse = lambda method, path: error_answer(403, "AccessDenied")
    assert re.search(
        r"the role of the service account \(web identity\) cannot be used: .*; give AWS_ACCESS_KEY",
        str(failure(store, tmp_path)),
    )
