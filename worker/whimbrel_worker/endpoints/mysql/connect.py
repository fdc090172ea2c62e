"""Signed-in connections to a MySQL source: TLS, credentials read anew each time, session settings. No other
statement."""

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import pymysql
from pymysql.connections import Connection as PyMySQLConnection
from pymysql.cursors import Cursor

from whimbrel_api.base import Tls, TlsMode
from whimbrel_api.endpoints import MySQLSource as MySQLSpec
from whimbrel_worker.endpoints.mysql.failures import translate, translate_sign_in
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.secrets import Secrets

Connection: TypeAlias = "PyMySQLConnection[Cursor]"
_CONNECT_SECONDS = 10
_READ_SECONDS = 300
_SESSION = (
    "SET SESSION time_zone = '+00:00', sql_mode = '', transaction_isolation = 'REPEATABLE-READ',"
    " net_write_timeout = 3600, sql_auto_is_null = 0, sql_select_limit = DEFAULT, max_execution_time = 0"
)
"""A slow target holds a result open for long, hence net_write_timeout."""


@dataclass(frozen=True, slots=True)
class MySQLConnector:
    """Connects to one server as one account."""

    spec: MySQLSpec
    secrets: Secrets

    @property
    def where(self) -> str:
        """The server, for messages."""
        return f"MySQL {self.spec.host}:{self.spec.port}"

    def connect(self) -> Connection:
        """A new connection, autocommit on, times in UTC. Raises ConfigurationError or Transient."""
        secret = self.spec.credentials_secret_ref.name
        user, password = self.secrets.read(secret, "username"), self.secrets.read(secret, "password")
        context = self._tls()
        try:
            return pymysql.connect(
                host=self.spec.host,
                port=self.spec.port,
                user=user,
                password=password.encode(),  # PyMySQL would encode text as latin1
                charset="utf8mb4",
                autocommit=True,
                connect_timeout=_CONNECT_SECONDS,
                read_timeout=_READ_SECONDS,
                ssl=context,
                ssl_disabled=context is None,
                init_command=_SESSION,
                program_name="whimbrel",
            )
        except (pymysql.err.MySQLError, OSError) as error:
            raise translate_sign_in(error, self.where, secret) from None
        except RuntimeError as error:
            raise _sign_in_method(error, self.where) from None

    def _tls(self) -> ssl.SSLContext | None:
        tls: Tls = self.spec.tls
        if tls.mode is TlsMode.DISABLED:
            return None
        reference = tls.ca_secret_ref
        path = self.secrets.path(reference.name, reference.key) if reference else None
        try:
            context = ssl.create_default_context(cafile=str(path) if path else None)
        except ssl.SSLError as error:
            raise _no_certificate(error, str(reference and reference.name)) from None
        # The authority that MySQL makes for itself lacks extensions that the strict mode of Python 3.13 asks for.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def _sign_in_method(error: RuntimeError, where: str) -> ConfigurationError:
    return ConfigurationError(
        "the account's sign-in method cannot be used",
        where=where,
        why=str(error)[:500],
        todo="give the account caching_sha2_password and switch TLS on",
    )


def _no_certificate(error: ssl.SSLError, secret: str) -> ConfigurationError:
    return ConfigurationError(
        "the authority's certificate cannot be read",
        where=f"Secret {secret}",
        why=error.reason or "no certificate in PEM form was found",
        todo="store the authority's certificate in PEM form under the key that tls.caSecretRef names",
    )


@contextlib.contextmanager
def guarded(where: str) -> Iterator[None]:
    """PyMySQL's errors in the block come out as the worker's own."""
    try:
        yield
    except (pymysql.err.MySQLError, OSError) as error:
        raise translate(error, where) from None


def query(connection: Connection, statement: str, arguments: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All rows of a small result."""
    with connection.cursor() as cursor:
        cursor.execute(statement, arguments or None)
        return list(cursor.fetchall())
