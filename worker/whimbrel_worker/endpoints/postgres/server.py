"""A plain PostgreSQL server: its profile and its sign-in."""

from dataclasses import dataclass

from whimbrel_api.base import TlsMode
from whimbrel_api.endpoints import PostgreSQLTarget
from whimbrel_worker.endpoints.postgres.connector import open_connection
from whimbrel_worker.engine.ports import Profile
from whimbrel_worker.libpq import Connection
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.trust import system_authorities

PROFILE = Profile(
    name="PostgreSQL",
    rows_per_transaction=50_000,
    bytes_per_transaction=16 << 20,
    connection_max_age=3600.0,
    single_ddl=False,
)
# A stopped worker's open transaction would hold its row locks for ever and keep its successor out.
_SETTINGS = (
    "-c idle_in_transaction_session_timeout=60000 -c lock_timeout=30000"
    " -c timezone=UTC -c client_encoding=UTF8 -c DateStyle=ISO -c bytea_output=hex -c extra_float_digits=1"
)


@dataclass(frozen=True, slots=True)
class PostgresConnector:
    """Signs in with user name and password, read anew for every connection so that a rotated Secret counts."""

    spec: PostgreSQLTarget
    secrets: Secrets

    @property
    def where(self) -> str:
        """The server, for messages."""
        return f"PostgreSQL {self.spec.host}:{self.spec.port}/{self.spec.database}"

    def connect(self) -> Connection:
        """A new connection, autocommit on."""
        secret = self.spec.credentials_secret_ref.name
        return open_connection(
            self.where,
            host=self.spec.host,
            port=self.spec.port,
            dbname=self.spec.database,
            user=self.secrets.read(secret, "username"),
            password=self.secrets.read(secret, "password"),
            options=_SETTINGS,
            **self._tls(),
        )

    def _tls(self) -> dict[str, str]:
        if self.spec.tls.mode is TlsMode.DISABLED:
            return {"sslmode": "disable"}
        authority = self.spec.tls.ca_secret_ref
        root = system_authorities() if authority is None else str(self.secrets.path(authority.name, authority.key))
        return {"sslmode": "verify-full", "sslrootcert": root}
