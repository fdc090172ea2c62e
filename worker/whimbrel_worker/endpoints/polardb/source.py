"""PolarDB's log as the source of a way back: who it is, its slot and publication, and its changes as items.

Nothing is copied from here: rows are never read, the log alone is. Parts stand in the other modules.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, NoReturn

from whimbrel_api.cutover import TargetWriters
from whimbrel_api.endpoints import PolarDBSource
from whimbrel_api.migration import Tables
from whimbrel_api.tasks import ReverseOptions
from whimbrel_worker.endpoints.polardb.connect import PolarDBConnector
from whimbrel_worker.endpoints.polardb.failures import SlotInUse, guarded, publication_missing, slot_missing
from whimbrel_worker.endpoints.polardb.log.lsn import parse_lsn
from whimbrel_worker.endpoints.polardb.log.relations import describe
from whimbrel_worker.endpoints.polardb.log.replication import ReplicationStream, Wanted, identify
from whimbrel_worker.endpoints.polardb.reverse_log import LayoutLog
from whimbrel_worker.endpoints.polardb.rows.layout import ItemLayout
from whimbrel_worker.endpoints.polardb.rows.naming import parse_rule
from whimbrel_worker.endpoints.polardb.slot import publication, slots
from whimbrel_worker.endpoints.polardb.slot.arming import arm, arm_beside, chosen_names, disarm
from whimbrel_worker.endpoints.polardb.slot.judging import Plan, judge, key_attributes
from whimbrel_worker.endpoints.polardb.slot.publication import Qualified
from whimbrel_worker.endpoints.polardb.slot.slots import SlotHealth
from whimbrel_worker.endpoints.polardb.slot.standing import Sought, Standing, peek
from whimbrel_worker.engine.ports import ChangeLog, Problem, SourceReader
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.engine.reverse_ports import Kept, SlotState
from whimbrel_worker.errors import ConfigurationError, SourceLogLost, WorkerError
from whimbrel_worker.grants import read_grants
from whimbrel_worker.libpq import Connection
from whimbrel_worker.secrets import Secrets
from whimbrel_worker.values.columns import Table
from whimbrel_worker.values.selection import override_of
from whimbrel_worker.writers import judge as judge_writers

_LOG = logging.getLogger(__name__)
_EVICT: Final = """
SELECT pg_terminate_backend(r.pid) FROM pg_replication_slots s JOIN pg_stat_replication r ON r.pid = s.active_pid
WHERE s.slot_name = %s AND r.application_name = 'whimbrel'
"""
_NOW: Final = "SELECT pg_current_wal_lsn()::text, extract(epoch FROM clock_timestamp())::float8, version()"


class PolarDBLogSource:
    """Implements engine.ports.Source as far as a log goes, and what a way back needs. Safe for two threads.

    `tables`: the DynamoDB tables that are followed; `ignored`: whether changes of a DynamoDB table are passed over.
    """

    def __init__(
        self,
        spec: PolarDBSource,
        secrets: Secrets,
        options: ReverseOptions,
        *,
        wanted: Tables,
        tables: Callable[[], Sequence[Table]],
        ignored: Callable[[str], bool],
    ) -> None:
        self._connector = PolarDBConnector(spec, secrets)
        self._options, self._wanted, self._tables, self._ignored = options, wanted, tables, ignored
        self.names = chosen_names(options.owner, options.slot_name, options.publication_name)
        self.where = f"{self._connector.where}, slot {self.names.slot}"
        self._system = ""
        self._watch: Connection | None = None
        self._layout: ItemLayout | None = None

    # --- who it is ---

    def identity(self) -> str:
        """The database cluster by its system identifier, and the database: polardb:7392…/name."""
        if not self._system:
            self._system = self._ask_identity()
        return self._system

    def version(self) -> str:
        """What the server says of itself."""
        return str(self._now()[2])[:100]

    def clock(self) -> float:
        """The server's clock, in seconds since 1970."""
        return float(self._now()[1])

    def position(self) -> str:
        """The end of the server's log now."""
        return str(self._now()[0])

    def covers(self, position: str, other: str) -> bool:
        """Whether `position` is not before `other`."""
        return parse_lsn(position) >= parse_lsn(other)

    def least(self, positions: Sequence[str]) -> str:
        """The earliest of these."""
        return min(positions, key=parse_lsn)

    def retention(self) -> float | None:
        """The log of a slot is kept by its size, not by time."""
        return None

    # --- before ---

    def check(self) -> list[Problem]:
        """Everything that keeps it from being armed."""
        return self.judge(list(self._tables()), armed=False)

    def judge(self, tables: Sequence[Table], *, armed: bool) -> list[Problem]:
        """All problems with these tables. `armed`: slot and publication were made before."""
        with self._connector.connect() as connection:
            return list(judge(connection, self._plan(tables), self.where, armed=armed))

    def writers(self, tables: Sequence[Table], allowed: Sequence[str]) -> TargetWriters:
        """Who else may write to these tables. Raises ConfigurationError or Transient."""
        places = {(place.schema, place.name) for place in self._plan(tables).places()}
        with self._connector.connect() as connection, guarded(self._connector.where):
            grants = read_grants(connection, sorted({schema for schema, _ in places}))
        return judge_writers(grants, places, allowed=allowed)

    def discover(self) -> tuple[list[Table], list[Problem]]:
        """Nothing is copied from here; the tables that are followed are judged by `check`."""
        return [], []

    def check_log(self, since: str) -> None:
        """Raise SourceLogLost unless the slot still has everything after a position."""
        self.check_slot(parse_lsn(since))

    def reader(self) -> AbstractContextManager[SourceReader]:
        """There is none."""
        self._log_alone("rows")

    def changes(self, since: str, tables: Sequence[Table]) -> ChangeLog:
        """There are none of this form: see `open`."""
        self._log_alone(f"rows after {since} of {len(tables)} tables")

    # --- slot and publication ---

    def follows(self, table: str) -> bool:
        """Whether the changes of a DynamoDB table are wanted, be it there or not."""
        return not self._ignored(table)

    def arm(self, tables: Sequence[Table], prove: Callable[[], None]) -> int:
        """Make publication and slot, or find ours; where the slot begins. Safe to repeat. See arming."""
        plan = self._plan(tables)
        with self._connector.connect() as connection:
            if self._options.create_publication:
                return arm(connection, self.names, plan.only(), self.where, prove=prove).position
            there = self._there(connection, plan)
            return arm_beside(connection, self.names, there, self.where, prove=prove).position

    def log_mark(self) -> str:
        """What tells the publication from one of the same name that is made later."""
        with self._connector.connect() as connection:
            return self._mark(connection)

    def check_slot(self, position: int) -> SlotState:
        """The slot's state. Raises SourceLogLost unless it still has everything after a position."""
        with self._connector.connect() as connection:
            return self._checked(connection, position)

    def look(self, floor: Callable[[], int]) -> SlotState:
        """The same again and again, over a connection that is kept. `floor` only grows, in another thread, too.

        So the slot may not be beyond the floor of afterwards, and the log may not end before that of before.
        """
        connection, read = self._watching(), floor()
        health = self._health(connection)
        slots.check(health, self.names.slot, floor(), self._connector.spec.database, self.where, read=read)
        return _state(health)

    def beat(self, content: str) -> None:
        """Send a heartbeat through the log."""
        slots.beat(self._watching(), content, self.where)

    def peek(self, position: int, most: int) -> Standing:
        """What stands in the slot after a position; nothing is taken. In the thread that looks. See standing."""
        return self._peeked(self._watching(), position, most)

    def last_peek(self, position: int, most: int) -> Standing | None:
        """The same before the slot is dropped: whoever of ours still reads it is ended. None where there is no slot."""
        retry = Backoff(base=0.2, cap=1.0, attempts=10)
        return retrying(lambda: self._last_peek(position, most), backoff=retry)

    def drop_slot(self) -> None:
        """Drop the slot, whoever reads it: its log is given up for the server's sake."""
        with self._connector.connect() as connection:
            slots.drop(connection, self.names.slot, self.where, terminate=True)

    def disarm(self, *, made: bool) -> list[str]:
        """Take away what was made, as far as the options say. Returns what was left. `made`: the slot is known ours."""
        options = self._options
        with self._connector.connect() as connection:
            cleared = disarm(
                connection,
                self.names,
                self.where,
                slot=options.drop_slot,
                published=options.drop_publication,
                made=made,
            )
        return list(cleared.left)

    def by_hand(self) -> str:
        """The SQL that takes it away, for a person."""
        slot, published = self.names.slot.replace("'", "''"), self.names.publication.replace('"', '""')
        return (
            f"in database {self._connector.spec.database}: SELECT pg_drop_replication_slot('{slot}'); "
            f'DROP PUBLICATION IF EXISTS "{published}"'
        )

    # --- reading ---

    def open(self, kept: Kept, position: int, tables: Sequence[Table]) -> LayoutLog:
        """The log after a position. The caller holds the control row: whoever else of ours reads the slot is ended.

        Raises ConfigurationError where another server answers under this name.
        """
        self._same_server()
        plan = self._plan(tables)
        with self._connector.connect() as connection:
            self._checked(connection, position)
            if self._mark(connection) != kept.log:
                raise _publication_replaced(self.where, self.names.publication)
            publication.check(connection, self.names.publication, self._there(connection, plan), self.where)
        wanted = Wanted(self.names.slot, (self.names.publication,), position)
        try:
            return LayoutLog(ReplicationStream(self._connector, wanted), plan.layout)
        except SlotInUse:
            self._evict()
            raise

    def close(self) -> None:
        """End the kept connection."""
        if self._watch is not None:
            self._watch.close()

    # --- inside ---

    def _plan(self, tables: Sequence[Table]) -> Plan:
        keys = {table.name: key_attributes(table) for table in tables}
        rule = parse_rule(self._options.layout.table_rule)
        overrides = {name: override_of(name, self._wanted) for name in keys}
        renamed = {name: each.rename_to for name, each in overrides.items() if each is not None and each.rename_to}
        names = {rule.server_name(there): name for name, there in renamed.items()}
        layout = ItemLayout(self._options.layout, keys, names, self._ignored)
        return Plan(self.names, self._options, layout, tables, listed=bool(self._wanted.include))

    def _there(self, connection: Connection, plan: Plan) -> list[Qualified]:
        found = describe(connection, [plan.layout.place(table.name) for table in plan.tables], self.where)
        return [Qualified(*place) for place in found]

    def _mark(self, connection: Connection) -> str:
        there = publication.look(connection, self.names.publication, self.where)
        if there is None:
            raise publication_missing(self.where, f"there is no publication {self.names.publication}")
        return str(there.oid)

    def _health(self, connection: Connection) -> SlotHealth:
        health = slots.look(connection, self.names.slot, self.where)
        if health is None:
            raise slot_missing(self.where, self.names.slot)
        return health

    def _checked(self, connection: Connection, position: int) -> SlotState:
        health = self._health(connection)
        slots.check(health, self.names.slot, position, self._connector.spec.database, self.where)
        return _state(health)

    def _watching(self) -> Connection:
        if self._watch is None or self._watch.closed or self._watch.broken:
            self._watch = self._connector.connect()
        return self._watch

    def _last_peek(self, position: int, most: int) -> Standing | None:
        with self._connector.connect() as connection:
            if slots.look(connection, self.names.slot, self.where) is None:
                return None
            try:
                return self._peeked(connection, position, most)
            except SlotInUse:
                self._evict()
                raise

    def _peeked(self, connection: Connection, position: int, most: int) -> Standing:
        if self._layout is None:
            self._layout = self._plan(self._tables()).layout
        sought = Sought(self.names.slot, self.names.publication, position, self._layout.table_name, most)
        return peek(connection, sought, self.where)

    def _evict(self) -> None:
        """End a reader of ours that the server still takes for alive: one that hangs, or whose host is gone."""
        with self._connector.connect() as connection, guarded(self.where):
            if connection.execute(_EVICT, (self.names.slot,)).fetchone():
                _LOG.warning("the slot %s was read by an earlier worker; that one was ended", self.names.slot)

    def _ask_identity(self) -> str:
        return f"polardb:{identify(self._connector).identifier}/{self._connector.spec.database}"

    def _same_server(self) -> None:
        found = self._ask_identity()
        if found != self.identity():
            raise ConfigurationError(
                "another server answers under the source's name",
                where=self._connector.where,
                why=f"it is {found}, and the position is one of {self.identity()}",
                todo="lead the name back to the server that was read, or make a new reverse sync, of another name, "
                "after a full comparison",
            )

    def _now(self) -> tuple[str, float, str]:
        with self._connector.connect() as connection, guarded(self.where):
            row = connection.execute(_NOW).fetchone()
        return row or ("0/0", time.time(), "")

    def _log_alone(self, what: str) -> NoReturn:
        raise WorkerError(
            "PolarDB's server is read by its log alone",
            where=self._connector.where,
            why=f"a task asked for {what}",
            todo="report this: the task should have read the tables over the DynamoDB-compatible endpoint",
        )


def _state(health: SlotHealth) -> SlotState:
    return SlotState(health.name, health.active, health.wal_status, health.retained_bytes, health.end)


def _publication_replaced(where: str, name: str) -> SourceLogLost:
    return SourceLogLost(
        "the publication is not the one that was read before",
        where=where,
        why=f"{name} was dropped and made anew: what was changed in between is in no publication",
        todo="start the reverse sync anew after a full comparison",
    )
