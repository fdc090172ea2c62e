"""An Aurora DSQL cluster: its limits and its sign-in. Statements are those of endpoints/postgres.

Limits: Aurora DSQL user guide, "Cluster quotas and database limits"; tokens: "Generating an authentication token".
"""

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from whimbrel_api.endpoints import AuroraDSQLTarget
from whimbrel_worker.engine.ports import Profile
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.trust import system_authorities

ROWS_A_TRANSACTION = 3000
BYTES_A_TRANSACTION = 10 << 20
SESSION_SECONDS = 3600.0
TOKEN_SECONDS = 900

PROFILE = Profile(
    name="Aurora DSQL",
    rows_per_transaction=ROWS_A_TRANSACTION - 2,
    # Half: the service also counts overhead for each row and each index, which is not published.
    bytes_per_transaction=BYTES_A_TRANSACTION // 2,
    connection_max_age=SESSION_SECONDS * 5 / 6,
    single_ddl=True,
    column_limit=255,
    unindexable=frozenset({"bytea", "json", "jsonb", "interval", "time with time zone"}),
    # "Using database roles and IAM authentication": the service makes it and it cannot be changed.
    administrators=frozenset({"admin"}),
)


_making_clients = threading.Lock()


def _client(region: str, **keys: str) -> Any:
    """A client that mints tokens. boto3's default session must not make two clients at once."""
    with _making_clients:
        return _client_once(region, tuple(sorted(keys.items())))


@lru_cache(maxsize=2)
def _client_once(region: str, keys: tuple[tuple[str, str], ...]) -> Any:
    # Loading boto3 takes half a second of CPU, which no worker towards another target should pay.
    import boto3

    return boto3.client("dsql", region_name=region, **dict(keys))


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a cluster is signed in to; `parameters` mints a token for each connection."""

    spec: AuroraDSQLTarget
    secrets: Secrets

    @property
    def where(self) -> str:
        """The cluster, for messages."""
        return f"Aurora DSQL {self.spec.endpoint}:{self.spec.port}/{self.spec.database}"

    def parameters(self) -> dict[str, object]:
        """libpq parameters with a fresh token as the password."""
        authority = self.spec.tls.ca_secret_ref
        root = system_authorities() if authority is None else str(self.secrets.path(authority.name, authority.key))
        return {
            "host": self.spec.endpoint,
            "port": self.spec.port,
            "dbname": self.spec.database,
            "user": self.spec.user,
            "password": self._token(),
            "sslmode": "verify-full",
            "sslrootcert": root,
        }

    def _token(self) -> str:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = _client(self.spec.region, **self._keys())
            mint = (
                client.generate_db_connect_admin_auth_token
                if self.spec.user == "admin"
                else client.generate_db_connect_auth_token
            )
            return str(mint(Hostname=self.spec.endpoint, Region=self.spec.region, ExpiresIn=TOKEN_SECONDS))
        except (BotoCoreError, ClientError) as error:
            raise ConfigurationError(
                "no IAM token could be made for Aurora DSQL",
                where=self.where,
                why=type(error).__name__,
                todo="name a Secret with accessKeyId and secretAccessKey, or give the pod an AWS identity",
            ) from None

    def _keys(self) -> dict[str, str]:
        reference = self.spec.credentials_secret_ref
        if reference is None:
            return {}
        keys = {
            "aws_access_key_id": self.secrets.read(reference.name, "accessKeyId"),
            "aws_secret_access_key": self.secrets.read(reference.name, "secretAccessKey"),
        }
        token = self.secrets.find(reference.name, "sessionToken")
        return keys if token is None else {**keys, "aws_session_token": token}
