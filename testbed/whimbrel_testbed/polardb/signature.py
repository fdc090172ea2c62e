"""Signature Version 4: whose call it is. An account's name is the access key, its password the secret."""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

from whimbrel_testbed.polardb.limits import CLOCK_SKEW_SECONDS
from whimbrel_testbed.polardb.refusals import RefusedError

_ALGORITHM = "AWS4-HMAC-SHA256"
_PART = re.compile(r"(\w+)=([^,\s]+)")
_SERVICE = "dynamodb"
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class Request:
    """What of an HTTP request is signed; `headers` by lower-case name."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


def account_of(request: Request, passwords: Mapping[str, str], now: datetime | None = None) -> str:
    """Return the account that has signed a request, or refuse it as DynamoDB does.

    Any region is taken: PolarDB's endpoint has none.
    """
    authorization = request.headers.get("authorization", "")
    if not authorization:
        raise RefusedError("MissingAuthenticationTokenException", "Request is missing Authentication Token")
    parts = dict(_PART.findall(authorization))
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if name not in parts]
    if missing or not authorization.startswith(_ALGORITHM):
        raise RefusedError(
            "IncompleteSignatureException",
            "".join(f"Authorization header requires '{name}' parameter. " for name in missing)
            + "Authorization header has to begin with " + _ALGORITHM,
        )  # fmt: skip
    account, _, scope = parts["Credential"].partition("/")
    if account not in passwords:
        raise RefusedError("UnrecognizedClientException", "The security token included in the request is invalid.")
    stamp = request.headers.get("x-amz-date", "")
    _check_scope(scope, stamp, now or datetime.now(UTC))
    expected = _signature(request, parts["SignedHeaders"], scope, stamp, passwords[account])
    if not hmac.compare_digest(expected.encode(), parts["Signature"].encode()):
        raise _mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )
    return str(account)


def _mismatch(message: str) -> RefusedError:
    return RefusedError("InvalidSignatureException", message)


def _check_scope(scope: str, stamp: str, now: datetime) -> None:
    parts = scope.split("/")
    if len(parts) != 4 or parts[2:] != [_SERVICE, "aws4_request"]:
        raise _mismatch(f"Credential should be scoped to correct service: '{_SERVICE}'.")
    try:
        signed = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
    except ValueError:
        raise RefusedError(
            "IncompleteSignatureException", "Authorization header requires existence of a valid 'X-Amz-Date' header."
        ) from None
    if parts[0] != stamp[:8]:
        raise _mismatch(f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {stamp}")
    if abs((now - signed).total_seconds()) > CLOCK_SKEW_SECONDS:
        late = "expired" if signed < now else "not yet current"
        raise _mismatch(f"Signature {late}: {stamp} is more than 15 min away from {now.strftime(_STAMP)}")


def _signature(request: Request, signed_headers: str, scope: str, stamp: str, password: str) -> str:
    names = signed_headers.split(";")
    if "host" not in names:
        raise _mismatch("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    headers = "".join(f"{name}:{' '.join(request.headers.get(name, '').split())}\n" for name in names)
    canonical = "\n".join(
        (request.method, quote(request.path, safe="/-_.~%"), _canonical_query(request.query), headers, signed_headers,
         hashlib.sha256(request.body).hexdigest())
    )  # fmt: skip
    text = "\n".join((_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()))
    return hmac.new(_signing_key(password, scope), text.encode(), hashlib.sha256).hexdigest()


def _canonical_query(query: str) -> str:
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)


@functools.lru_cache(maxsize=64)
def _signing_key(password: str, scope: str) -> bytes:
    key = b"AWS4" + password.encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
