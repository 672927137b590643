"""Turn errors of an S3 store into errors of ours, with the kind of credentials and advice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore import exceptions
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from cosmos_worker.config.addresses import shown_address, without_secrets
from cosmos_worker.errors import DataError, RetryableError
from cosmos_worker.runtime.failures import one_line

CREDENTIALS = {
    "env": "AWS_ACCESS_KEY_ID of the environment (on a cluster: of the Secret in spec.credentials.s3 or the chart's "
    "secrets.s3)",
    "shared-credentials-file": "the shared credentials file (~/.aws/credentials)",
    "config-file": "the configuration file of AWS (~/.aws/config)",
    "assume-role": "an assumed role (~/.aws/config)",
    "assume-role-with-web-identity": "the role of the service account (web identity)",
    "sso": "a login through single sign-on",
    "login": "a login of the AWS command line",
    "custom-process": "a credential process (~/.aws/config)",
    "container-role": "the role of the container",
    "iam-role": "the role of the machine (instance metadata)",
}
"""boto3's name for a kind of credentials → the name in messages."""
ANONYMOUS = "no credentials (none were found, so requests are anonymous)"
GIVE_CREDENTIALS = (
    "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or a profile in the environment, on a cluster a Secret in "
    "spec.credentials.s3"
)
DENIED = (
    "AccessDenied",
    "AllAccessDisabled",
    "AccountProblem",
    "Forbidden",
    "Unauthorized",
    "401",
    "403",
)
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
OTHER_REGION = (
    "301", "307", "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
)  # fmt: skip
CHANGED = ("PreconditionFailed", "412", "ConditionalRequestConflict")
ADVICE = {
    "NoSuchBucket": "check the bucket's name in uri, and endpoint",
    "NoSuchKey": "check uri",
    "404": "check uri and endpoint",
    "InvalidAccessKeyId": "the store does not know this access key; give credentials of this store, and endpoint if "
    "it is not AWS",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY does not belong to the access key; correct the credentials",
    "InvalidToken": "AWS_SESSION_TOKEN does not belong to the access key; correct or remove it",
    "InvalidObjectState": "the object is archived; restore it in the store first",
    "KMS.DisabledException": "enable the key that the object is encrypted with",
}
"""Error code of the store → advice."""
RETRYABLE = (
    "RequestTimeout",
    "SlowDown",
    "InternalError",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
)
RETRYABLE_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
SETTINGS = (
    exceptions.PartialCredentialsError, exceptions.ProfileNotFound, exceptions.ConfigParseError,
    exceptions.InvalidRegionError, exceptions.InvalidRetryConfigurationError, exceptions.InvalidConfigError,
    exceptions.CredentialRetrievalError, exceptions.TokenRetrievalError, exceptions.SSOError,
    exceptions.ParamValidationError, exceptions.EndpointProviderError, exceptions.SSLError,
    exceptions.InvalidProxiesConfigError, exceptions.NoCredentialsError,
)  # fmt: skip
"""Errors of the configuration, which another attempt does not cure."""


@dataclass(frozen=True)
class Access:
    """An address in a store, and how requests to it are signed; for messages."""

    where: str
    """Address, such as ``s3://bucket/prefix at https://store.example.com``."""
    credentials: str
    """Kind of the credentials, never a value."""


@contextmanager
def readable_errors(access: Access) -> Iterator[None]:
    """Turn what boto3 raises into errors of ours.

    Raises:
        DataError: the store refuses, or what answers is no S3 store.
        RetryableError: the network or the store fails for now, or the object has changed.
    """
    try:
        yield
    except ClientError as error:
        raise _answer_of_store(error, access) from None
    except ResponseParserError as error:
        text = _text_of(error)[:300]
        raise DataError(
            f"{access.where}: what answers is no S3 store ({text}); check endpoint"
        ) from None
    except SETTINGS as error:
        raise DataError(f"{access.where}: {_text_of(error)}; {_advice(error)}") from None
    except (BotoCoreError, HTTPError) as error:
        raise RetryableError(
            f"{access.where}: {_text_of(error)}; check endpoint and the network, then run again"
        ) from None


def _text_of(error: Exception) -> str:
    """The text of a library's error on one line, without passwords and signatures of addresses in it."""
    return without_secrets(one_line(str(error)))


def _advice(error: BotoCoreError) -> str:
    if isinstance(error, exceptions.SSLError):
        return (
            "check endpoint (https:// or http://), or name the certificates of the store's authority in "
            "AWS_CA_BUNDLE"
        )
    if isinstance(error, exceptions.ParamValidationError):
        return "check uri"
    return "correct the configuration of AWS on this machine"


def _answer_of_store(error: ClientError, access: Access) -> DataError | RetryableError:
    """The error for an answer of the store with an error code."""
    answer: dict[str, Any] = dict(error.response)
    details: dict[str, str] = answer.get("Error", {})
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code, message = details.get("Code") or str(status), one_line(details.get("Message") or "")
    message = without_secrets(message)
    said = f"the store answers {code}" + (f": {message}" if message else "")
    where = access.where
    if error.operation_name.startswith("AssumeRole"):
        return DataError(
            f"{where}: {access.credentials} cannot be used: {said}; {GIVE_CREDENTIALS}"
        )
    if code in CHANGED:
        return RetryableError(
            f"{where}: the object has changed since it was listed; run again when nobody writes there"
        )
    if code == "RequestTimeTooSkewed":
        return RetryableError(f"{where}: {said}; set this machine's clock, then run again")
    if code in RETRYABLE or status in RETRYABLE_STATUS:
        return RetryableError(f"{where}: {said}; run again later")
    if code in OTHER_REGION:
        return DataError(f"{where}: {said}; {_region_advice(answer)}")
    if code in EXPIRED:
        return DataError(
            f"{where}: {said}; used {access.credentials}; they have expired: renew them, then run again"
        )
    if code in DENIED or (status in (401, 403) and code not in ADVICE):
        return DataError(f"{where}: {said}; used {access.credentials}; {_denied(access)}")
    return DataError(
        f"{where}: {said}; used {access.credentials}; {ADVICE.get(code, 'check uri and endpoint')}"
    )


def _region_advice(answer: dict[str, Any]) -> str:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    details = answer.get("Error", {})
    region = headers.get("x-amz-bucket-region") or details.get("Region")
    if region:
        return f"the bucket is in region {region}: give region: {region}"
    address = details.get("Endpoint") or headers.get("location")
    if address:
        return f"the bucket is at {shown_address(address)}: give its region, or this endpoint"
    return "the bucket is in another region: give region"


def _denied(access: Access) -> str:
    if access.credentials == ANONYMOUS:
        return GIVE_CREDENTIALS
    return (
        "check the bucket's name, and grant this identity s3:ListBucket on the bucket and s3:GetObject on its objects, "
        "or give other credentials"
    )
