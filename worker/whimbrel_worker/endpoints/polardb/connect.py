"""Connections to the PostgreSQL behind PolarDB's endpoint, for statements and for replication. No stream is here."""

from dataclasses import dataclass
from typing import Any, Final

import psycopg

from whimbrel_api.base import TlsMode
from whimbrel_api.endpoints import PolarDBSource
from whimbrel_worker.endpoints.polardb.failures import guarded, no_replication_right, translate_sign_in
from whimbrel_worker.libpq import Connection, open_libpq
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.trust import system_authorities

_FORMS: Final = "-c client_encoding=UTF8 -c bytea_output=hex -c DateStyle=ISO -c timezone=UTC -c extra_float_digits=1"
"""Values in the log come in the text forms of the connection that reads it."""
_STATEMENTS: Final = f"{_FORMS} -c statement_timeout=60000 -c lock_timeout=30000"
_MAY_REPLICATE: Final = "SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user"


@dataclass(frozen=True, slots=True)
class PolarDBConnector:
    """Signs in with user name and password, read anew for every connection so that a rotated Secret counts."""

    spec: PolarDBSource
    secrets: Secrets

    @property
    def where(self) -> str:
        """The server, for messages."""
        return f"PolarDB {self.spec.host}:{self.spec.port}/{self.spec.database}"

    def connect(self) -> Connection:
        """A new connection for statements, autocommit on. Raises ConfigurationError or Transient."""
        try:
            return self._open(options=_STATEMENTS)
        except psycopg.Error as error:
            raise self._refused(error) from None

    def connect_replication(self) -> Connection:
        """A new connection for replication of this database; it takes the simple query protocol alone.

        Raises ConfigurationError, also where the account lacks the right, or Transient.
        """
        try:
            return self._open(options=_FORMS, replication="database")
        except psycopg.Error as error:
            self._check_right(error)
            raise self._refused(error) from None

    def _open(self, **parameters: Any) -> Connection:
        secret = self.spec.credentials_secret_ref.name
        return open_libpq(
            host=self.spec.host,
            port=self.spec.port,
            dbname=self.spec.database,
            user=self.secrets.read(secret, "username"),
            password=self.secrets.read(secret, "password"),
            **self._tls(),
            **parameters,
        )

    def _tls(self) -> dict[str, Any]:
        if self.spec.tls.mode is TlsMode.DISABLED:
            return {"sslmode": "disable"}
        authority = self.spec.tls.ca_secret_ref
        root = system_authorities() if authority is None else str(self.secrets.path(authority.name, authority.key))
        return {"sslmode": "verify-full", "sslrootcert": root}

    def _check_right(self, error: psycopg.Error) -> None:
        """Ask whether the right is what is missing: libpq tells no SQLSTATE of a refused connection."""
        with self.connect() as connection, guarded(self.where):
            row = connection.execute(_MAY_REPLICATE).fetchone()
        if row is not None and not row[0]:
            raise no_replication_right(self.where, " ".join(str(error).split())[:500])

    def _refused(self, error: psycopg.Error) -> Exception:
        return translate_sign_in(error, self.where, self.spec.credentials_secret_ref.name)
