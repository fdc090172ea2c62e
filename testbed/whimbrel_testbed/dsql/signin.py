"""Checks the password of a sign-in: an IAM token, which is a SigV4-presigned URL without its scheme; it makes none.

Source: AWS documentation, "AWS Signature Version 4" (query string authentication); the shape of the token is boto3's
`generate_db_connect_admin_auth_token`. Written apart from botocore so that signing and checking do not share code.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlsplit

from whimbrel_testbed.dsql import refusals
from whimbrel_testbed.dsql.refusals import RefusedError

ADMIN = "admin"
LONGEST_SECONDS = 604_800
_SERVICE = "dsql"
_CLOCK_SKEW = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class Gate:
    """What a token must have been minted for and with."""

    host: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)

    def check(self, user: str, token: str, now: datetime.datetime, leeway: float = 0.0) -> None:
        """Raise RefusedError (FATAL) unless the token admits the user now; `leeway` in seconds lengthens its life."""
        parts = urlsplit("https://" + token)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        if query.get("X-Amz-Algorithm") != "AWS4-HMAC-SHA256" or "X-Amz-Signature" not in query:
            raise _denied("The password is not an IAM authentication token")
        if parts.netloc != self.host:
            raise _denied("The token was made for another host")
        wanted = "DbConnectAdmin" if user == ADMIN else "DbConnect"
        if query.get("Action") != wanted:
            raise _denied(f"Action {wanted} is needed to connect as this user")
        self._check_time(query, now, leeway)
        self._check_signature(query)

    def _check_time(self, query: dict[str, str], now: datetime.datetime, leeway: float) -> None:
        try:
            made = datetime.datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
            life = int(query["X-Amz-Expires"])
        except (KeyError, ValueError):
            raise _denied("The token's date or expiry cannot be read") from None
        if not 0 < life <= LONGEST_SECONDS:
            raise _denied("The token's expiry is out of range")
        if now > made + datetime.timedelta(seconds=life + leeway):
            raise _denied("Signature expired")
        if made > now + _CLOCK_SKEW:
            raise _denied("Signature not yet current")

    def _check_signature(self, query: dict[str, str]) -> None:
        scope = query.get("X-Amz-Credential", "").split("/")
        date = query["X-Amz-Date"][:8]
        if scope != [self.access_key_id, date, self.region, _SERVICE, "aws4_request"]:
            raise _denied("The token's credential scope does not fit this cluster")
        signature = query.pop("X-Amz-Signature")
        if not hmac.compare_digest(signature, self._signature(query, "/".join(scope[1:]))):
            raise _denied("The request signature we calculated does not match the signature you provided")

    def _signature(self, query: dict[str, str], scope: str) -> str:
        pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
        canonical_query = "&".join(f"{name}={value}" for name, value in pairs)
        empty = hashlib.sha256(b"").hexdigest()
        request = f"GET\n/\n{canonical_query}\nhost:{self.host}\n\nhost\n{empty}"
        digest = hashlib.sha256(request.encode()).hexdigest()
        to_sign = f"AWS4-HMAC-SHA256\n{query['X-Amz-Date']}\n{scope}\n{digest}"
        key = b"AWS4" + self.secret_access_key.encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.new(key, to_sign.encode(), "sha256").hexdigest()


def _denied(hint: str) -> RefusedError:
    return RefusedError(refusals.access_denied(hint))
