"""A PostgreSQL-speaking target as the engine sees it: its parts over one connector. Statements stand in them."""

import contextlib
from collections.abc import Iterator, Sequence, Set

import psycopg

from whimbrel_api.cutover import TargetWriters
from whimbrel_worker.endpoints.postgres.connector import Connector
from whimbrel_worker.endpoints.postgres.control import PostgresControlStore
from whimbrel_worker.endpoints.postgres.failures import guarded, translate
from whimbrel_worker.endpoints.postgres.reader import PostgresReader
from whimbrel_worker.endpoints.postgres.schema import PostgresSchema
from whimbrel_worker.endpoints.postgres.session import FencedSession
from whimbrel_worker.engine.ports import Identity, Profile, Tally
from whimbrel_worker.engine.retry import retrying
from whimbrel_worker.grants import Grants, read_grants
from whimbrel_worker.libpq import lost
from whimbrel_worker.writers import judge

_PROBE_ARRAYS = "SELECT count(*) FROM unnest('{1,2}'::bigint[], '{a,NULL}'::text[]) AS probe (a, b)"
_PROBE_COPY = "COPY whimbrel.workers (migration, task, idx) FROM STDIN"


class PostgresTarget:
    """Implements ports.Target; `epoch` is the one the operator gave this worker."""

    def __init__(self, connector: Connector, profile: Profile, migration: str, epoch: int) -> None:
        self.profile = profile
        self.tally = Tally()
        self._connector, self._migration, self._epoch = connector, migration, epoch
        self._write_path: str | None = None

    def check_sign_in(self) -> str:
        """Connect and return the server's version."""
        with contextlib.closing(self._connector.connect()) as connection, guarded(self._connector.where):
            found = connection.execute("SELECT version()").fetchone()
        return str(found[0]) if found else ""

    def probe_write_path(self) -> str:
        """`copy`, `unnest` or `values`: the fastest way of writing that this server takes. Asked once."""
        if self._write_path is None:
            self._write_path = self._probe()
        return self._write_path

    def control(self) -> PostgresControlStore:
        """The control tables."""
        return PostgresControlStore(self._connector, self._migration, self.profile.connection_max_age)

    def schema(self) -> PostgresSchema:
        """The tables."""
        return PostgresSchema(self._connector, self.profile)

    def session(self, task: str, index: int) -> FencedSession:
        """A connection with a control row for a task's worker or lane."""
        return FencedSession(
            self._connector,
            self.profile,
            Identity(self._migration, task, index),
            epoch=self._epoch,
            write_path=self.probe_write_path(),
            tally=self.tally,
        )

    def writers(self, places: Set[tuple[str, str]], allowed: Sequence[str]) -> TargetWriters:
        """Who else may write to the tables at these places (schema, name). Raises ConfigurationError or Transient."""

        def read() -> Grants:
            with contextlib.closing(self._connector.connect()) as connection, guarded(self._connector.where):
                return read_grants(connection, sorted({schema for schema, _ in places}))

        return judge(retrying(read), places, allowed=allowed, administrators=self.profile.administrators)

    @contextlib.contextmanager
    def reader(self) -> Iterator[PostgresReader]:
        """A reading session."""
        reader = PostgresReader(self._connector, self.profile.connection_max_age)
        try:
            yield reader
        finally:
            reader.close()

    def _probe(self) -> str:
        with contextlib.closing(self._connector.connect()) as connection:
            if not self._takes(connection, _PROBE_ARRAYS):
                return "values"
            return "copy" if self._takes_copy(connection) else "unnest"

    def _takes(self, connection: psycopg.Connection[tuple[object, ...]], statement: str) -> bool:
        try:
            connection.execute(statement.encode())
        except psycopg.Error as error:
            return self._refused(error)
        return True

    def _takes_copy(self, connection: psycopg.Connection[tuple[object, ...]]) -> bool:
        try:
            with connection.cursor() as cursor, cursor.copy(_PROBE_COPY.encode()):
                pass
        except psycopg.Error as error:
            return self._refused(error)
        return True

    def _refused(self, error: psycopg.Error) -> bool:
        if lost(error) or error.sqlstate in {"40001", "42501"}:
            raise translate(error, self._connector.where) from None
        return False
