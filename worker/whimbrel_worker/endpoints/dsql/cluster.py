"""An Aurora DSQL cluster: its limits and its sign-in. Statements are those of endpoints/postgres.

Limits: Aurora DSQL user guide, "Cluster quotas and database limits"; tokens: "Generating an authentication token".
"""

from dataclasses import dataclass

from whimbrel_api.endpoints import AuroraDSQLTarget

from whimbrel_worker.engine.ports import Profile
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.secrets import Secrets

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
)


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
        root = "system" if authority is None else str(self.secrets.path(authority.name, authority.key))
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
        # Loading boto3 takes half a second of CPU, which no worker towards another target should pay.
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            client = boto3.client("dsql", region_name=self.spec.region, **self._keys())
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
