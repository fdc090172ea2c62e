"""What a server and an account lack for reading the log, each finding with its remedy. Nothing is made or changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from whimbrel_worker.endpoints.polardb.failures import REPLICATION_ADVICE, guarded
from whimbrel_worker.endpoints.polardb.slot import publication
from whimbrel_worker.endpoints.polardb.slot.publication import Qualified
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.libpq import Connection

_OLDEST: Final = 140_000
"""pg_logical_emit_message comes through pgoutput from version 14 on; PolarDB's kernel is 14."""
_LOOK: Final = """
SELECT current_setting('server_version_num')::integer, pg_is_in_recovery(), current_setting('wal_level'),
       r.rolreplication OR r.rolsuper, r.rolsuper,
       has_database_privilege(current_database(), 'CREATE'), pg_get_userbyid(d.datdba),
       current_setting('max_replication_slots')::bigint - (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::bigint - (SELECT count(*) FROM pg_stat_replication),
       pg_size_bytes(current_setting('max_slot_wal_keep_size'))
FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()
"""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the server says of itself and the account. `keep_bytes`: max_slot_wal_keep_size, negative for no limit."""

    version: int
    standby: bool
    wal_level: str
    may_replicate: bool
    superuser: bool
    may_create: bool
    owner: str
    slots_free: int
    senders_free: int
    keep_bytes: int


def read_facts(connection: Connection, where: str) -> ServerFacts:
    """Ask the server. Raises Transient or ConfigurationError."""
    with guarded(where):
        row = connection.execute(_LOOK).fetchone()
    return ServerFacts(*(row or ()))


def check_server(facts: ServerFacts, where: str, *, slot_there: bool = False) -> Iterator[Problem]:
    """Problems of settings and rights. `slot_there`: our slot is made already, so none needs to be free."""
    if facts.version < _OLDEST:
        yield Problem(
            "the source is too old",
            where=where,
            why=f"version {facts.version // 10_000}, needed is {_OLDEST // 10_000}",
            todo="upgrade it",
        )
    if facts.standby:
        yield Problem(
            "the source is a standby",
            where=where,
            why="slots that follow a failover are made on the primary",
            todo="name the primary endpoint in spec.source.polardb.host",
        )
    if facts.wal_level != "logical":
        yield Problem(
            "the source does not log what logical replication needs",
            where=where,
            why=f"wal_level is {facts.wal_level}",
            todo="set wal_level to logical and restart the server; on PolarDB it is a parameter of the cluster",
        )
    if not facts.may_replicate:
        yield Problem(
            "the account may not read the source's change log",
            where=where,
            why="it has not the attribute REPLICATION",
            todo=REPLICATION_ADVICE,
        )
    if not slot_there:
        yield from _room(facts, where)
    yield from _retention(facts, where)


def _room(facts: ServerFacts, where: str) -> Iterator[Problem]:
    for free, what, setting in (
        (facts.slots_free, "replication slot", "max_replication_slots"),
        (facts.senders_free, "replication connection", "max_wal_senders"),
    ):
        if free <= 0:
            yield Problem(
                f"the source has no {what} left",
                where=where,
                why=f"all of {setting} are taken",
                todo=f"drop slots that nobody reads (SELECT * FROM pg_replication_slots), or raise {setting}",
            )


def _retention(facts: ServerFacts, where: str) -> Iterator[Problem]:
    if facts.keep_bytes < 0:
        yield Problem(
            "a stopped reverse sync would let the source's log grow until its disk is full",
            where=where,
            why="max_slot_wal_keep_size is -1, no limit",
            todo="set it to what the disk can spare: a reader away for longer then loses the log, not the server",
            fatal=False,
        )


def check_creation(
    facts: ServerFacts, connection: Connection, only: Sequence[Qualified] | None, where: str
) -> Iterator[Problem]:
    """Problems of making a publication for these tables, or for all."""
    if only is None and not facts.superuser:
        yield Problem(
            "the account may not publish all tables",
            where=where,
            why="FOR ALL TABLES is for superusers",
            todo="name the tables in spec.tables, or let an administrator make the publication and set "
            "spec.createPublication to false",
        )
    if only is not None and not facts.may_create:
        yield Problem(
            "the account may not make a publication",
            where=where,
            why=f"it has no CREATE on the database, whose owner is {facts.owner}",
            todo="as the owner: GRANT CREATE ON DATABASE … TO the account, which must own the tables, too",
        )
    for table in publication.without_identity(connection, where):
        if only is None or table in only:
            yield Problem(
                "a table without a replica identity cannot be published",
                where=str(table),
                why="the server would refuse the application's updates and deletes of it",
                todo="give it a primary key or ALTER TABLE … REPLICA IDENTITY FULL, or leave it out in spec.tables",
            )
