"""Where a DynamoDB service is and how to sign in to it: endpoint, trust and keys. No call of DynamoDB is made here.

Keys come from a Secret, from the process's own AWS identity (botocore's chain: environment, web identity, container,
instance) or from a role assumed with either. Loading boto3 costs half a second of CPU, so only those who need it do.
"""

import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from whimbrel_api.base import SecretKeyRef, Tls, TlsMode
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget
from whimbrel_worker.errors import ConfigurationError, Transient
from whimbrel_worker.secrets import Secrets

_LOOK_AGAIN_SECONDS = 5.0
"""How soon a changed Secret is seen without a refusal."""
_SESSION_NAME = "whimbrel"
_HEADER_WORD = re.compile(r"[!-~]+")
_OWN_HOST = re.compile(r"dynamodb\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
_PRIVATE_HOST = re.compile(r".*\.dynamodb\.[a-z0-9-]+\.vpce\.amazonaws\.com(\.cn)?")


class Keys(NamedTuple):
    """What a call is signed with."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Keys(…)"


@dataclass(frozen=True, slots=True)
class Access:
    """One service: `endpoint` is a URL without a path; without `secret` the process's own identity signs in."""

    endpoint: str
    region: str
    secrets: Secrets
    secret: str | None = None
    role_arn: str | None = None
    tls: Tls = field(default_factory=Tls)
    what: str = "DynamoDB"

    @property
    def where(self) -> str:
        """The service, for messages."""
        return f"{self.what} {self.endpoint} ({self.region})"

    @property
    def host(self) -> str:
        """The Host header: the port is named where it is not the scheme's own."""
        address = urlsplit(self.endpoint)
        usual = 80 if address.scheme == "http" else 443
        name = f"[{address.hostname}]" if ":" in (address.hostname or "") else str(address.hostname)
        return name if address.port in (None, usual) else f"{name}:{address.port}"

    @property
    def keys_from(self) -> str:
        """Where the keys come from, for messages."""
        own = f"Secret {self.secret}" if self.secret else "the pod's own AWS identity"
        return f"role {self.role_arn} (assumed with {own})" if self.role_arn else own

    def for_streams(self) -> "Access":
        """The same for DynamoDB Streams, which AWS serves under a host of its own."""
        return replace(self, endpoint=_streams_endpoint(self.endpoint, self.region))

    def for_kinesis(self) -> "Access":
        """The same for Kinesis Data Streams."""
        return replace(self, endpoint=_kinesis_endpoint(self.endpoint, self.region), what="Kinesis")

    def trust(self) -> ssl.SSLContext | None:
        """How the server's certificate is checked; None for plain HTTP. Raises ConfigurationError."""
        if urlsplit(self.endpoint).scheme == "http":
            return None
        if self.tls.mode is TlsMode.DISABLED:
            raise ConfigurationError(
                "tls.mode Disabled and an https endpoint contradict each other",
                where=self.where,
                todo="name the authority in tls.caSecretRef, or an http endpoint",
            )
        reference = self.tls.ca_secret_ref
        return ssl.create_default_context() if reference is None else self._own_authority(reference)

    def _own_authority(self, reference: SecretKeyRef) -> ssl.SSLContext:
        path = self.secrets.path(reference.name, reference.key)
        try:
            return ssl.create_default_context(cafile=str(path))
        except ssl.SSLError as error:
            raise ConfigurationError(
                "the authority's certificate cannot be read",
                where=f"Secret {reference.name}",
                why=error.reason or "no certificate in PEM form was found",
                todo="store the authority's certificate in PEM form under the key that tls.caSecretRef names",
            ) from None


def of_source(spec: DynamoDBSource, secrets: Secrets) -> Access:
    """Access to a source, AWS's own endpoint of the region unless another is named."""
    return _access(spec, secrets)


def of_target(spec: DynamoDBTarget, secrets: Secrets) -> Access:
    """Access to a target, AWS's own endpoint of the region unless another is named."""
    return _access(spec, secrets)


def _access(spec: DynamoDBSource | DynamoDBTarget, secrets: Secrets) -> Access:
    secret = spec.credentials_secret_ref.name if spec.credentials_secret_ref else None
    endpoint = spec.endpoint or f"https://dynamodb.{spec.region}.{_domain(spec.region)}"
    return Access(endpoint, spec.region, secrets, secret, spec.role_arn, spec.tls)


def _domain(region: str) -> str:
    return "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"


def _streams_endpoint(endpoint: str, region: str) -> str:
    """Amazon DynamoDB endpoints and quotas: streams have hosts of their own. Who else speaks it serves both at one."""
    return f"https://streams.dynamodb.{region}.{_domain(region)}" if _is_amazons(endpoint) else endpoint


def _kinesis_endpoint(endpoint: str, region: str) -> str:
    """Amazon Kinesis Data Streams endpoints and quotas; a private endpoint answers to the same name by private DNS."""
    return f"https://kinesis.{region}.{_domain(region)}" if _is_amazons(endpoint) else endpoint


def _is_amazons(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return bool(_OWN_HOST.fullmatch(host) or _PRIVATE_HOST.fullmatch(host))


def _clean(secret: str, keys: Keys) -> Keys:
    """Keys that fit into a header. Raises ConfigurationError."""
    for name, value in (("accessKeyId", keys.access_key), ("sessionToken", keys.token)):
        if value is not None and not _HEADER_WORD.fullmatch(value):
            raise ConfigurationError(
                f"{name} in Secret {secret} is no key",
                why="it is empty or holds spaces, line ends or letters outside of ASCII",
                todo=f"write it anew; kubectl describe secret {secret} shows the lengths of its keys",
            )
    return keys


class SignIn:
    """The keys of one Access, kept for a moment and read anew when they may have changed. Safe for many threads."""

    def __init__(self, access: Access) -> None:
        self._access, self._lock = access, threading.Lock()
        self._own: Any = None
        self._assumed: Any = None
        self._secret_keys, self._look_again = Keys("", ""), 0.0

    def keys(self) -> Keys:
        """Valid keys, as far as is known. Raises ConfigurationError or, when an AWS service is away, Transient."""
        with self._lock:
            if self._access.role_arn is None:
                return self._first_keys()
            if self._assumed is None:
                self._assumed = self._role(self._access.role_arn)
            return self._frozen(self._assumed)

    def principal(self) -> str:
        """The ARN of whom the keys belong to. STS answers everybody: no right is needed. Raises as `keys` does."""
        keys = self.keys()
        try:
            return str(self._asking(lambda: self._sts(keys).get_caller_identity())["Arn"])
        except ConfigurationError as error:
            raise ConfigurationError(
                "AWS STS does not tell whose keys these are",
                where=self._access.where,
                why=error.why,
                todo="check the keys, and that the pod reaches STS in this region (AWS_ENDPOINT_URL_STS names another)",
            ) from None

    def renewed(self, refused: Keys) -> bool:
        """Forget what is kept, because these keys were refused; whether there are other ones now."""
        with self._lock:
            self._own = self._assumed = None
            self._look_again = 0.0
        return self.keys() != refused

    def _first_keys(self) -> Keys:
        if self._access.secret is None:
            return self._frozen(self._own_identity())
        if time.monotonic() >= self._look_again:
            self._secret_keys = self._from_secret(self._access.secret)
            self._look_again = time.monotonic() + _LOOK_AGAIN_SECONDS
        return self._secret_keys

    def _from_secret(self, name: str) -> Keys:
        secrets = self._access.secrets
        return _clean(
            name,
            Keys(
                secrets.read(name, "accessKeyId"),
                secrets.read(name, "secretAccessKey"),
                secrets.find(name, "sessionToken") or None,
            ),
        )

    def _own_identity(self) -> Any:
        if self._own is None:
            import botocore.session

            self._own = self._asking(lambda: botocore.session.get_session().get_credentials())
        if self._own is None:
            raise ConfigurationError(
                "there are no AWS keys to sign in with",
                where=self._access.where,
                why="no Secret is named and the pod has no AWS identity",
                todo="name a Secret in credentialsSecretRef, or give the worker's service account an AWS role",
            )
        return self._own

    def _role(self, role_arn: str) -> Any:
        """Credentials that botocore renews before they end."""
        from botocore.credentials import DeferredRefreshableCredentials

        return DeferredRefreshableCredentials(method="assume-role", refresh_using=lambda: self._assume(role_arn))

    def _assume(self, role_arn: str) -> dict[str, str]:
        given = self._sts(self._first_keys()).assume_role(RoleArn=role_arn, RoleSessionName=_SESSION_NAME)[
            "Credentials"
        ]
        return {
            "access_key": given["AccessKeyId"],
            "secret_key": given["SecretAccessKey"],
            "token": given["SessionToken"],
            "expiry_time": given["Expiration"].isoformat(),
        }

    def _sts(self, keys: Keys) -> Any:
        import boto3
        from botocore.config import Config

        return boto3.client(
            "sts",
            config=Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 3}),
            region_name=self._access.region,
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.token,
        )

    def _frozen(self, credentials: Any) -> Keys:
        frozen = self._asking(credentials.get_frozen_credentials)
        return Keys(frozen.access_key, frozen.secret_key, frozen.token)

    def _asking(self, action: Callable[[], Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        try:
            return action()
        except HTTPClientError as error:
            raise Transient(
                "AWS did not answer when asked for keys", where=self._access.where, why=type(error).__name__
            ) from None
        except (BotoCoreError, ClientError) as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> ConfigurationError:
        answer = getattr(error, "response", {})
        return ConfigurationError(
            "no AWS keys could be had",
            where=self._access.where,
            why=f"{self._access.keys_from}: {answer.get('Error', {}).get('Code') or type(error).__name__}",
            todo="check the Secret or the pod's AWS identity, and that the role's trust policy names it",
        )
