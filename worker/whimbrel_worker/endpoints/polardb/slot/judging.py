"""What keeps a way back from being armed, or from going on: server, rights, slot, publication, tables, layout.

Everything is found at once, nothing is made or changed. Single findings of the server stand in checks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from whimbrel_api.layout import OnLimit
from whimbrel_api.tasks import ReverseOptions
from whimbrel_worker.endpoints.polardb.log.relations import describe
from whimbrel_worker.endpoints.polardb.rows.items import KeyAttribute
from whimbrel_worker.endpoints.polardb.rows.layout import ItemLayout, table_layout
from whimbrel_worker.endpoints.polardb.slot import publication, slots
from whimbrel_worker.endpoints.polardb.slot.arming import Names
from whimbrel_worker.endpoints.polardb.slot.checks import ServerFacts, check_creation, check_server, read_facts
from whimbrel_worker.endpoints.polardb.slot.publication import Qualified
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.errors import ConfigurationError, WorkerError
from whimbrel_worker.libpq import Connection
from whimbrel_worker.values.columns import Table


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be read. `listed`: the publication names its tables, instead of carrying all there are."""

    names: Names
    options: ReverseOptions
    layout: ItemLayout
    tables: Sequence[Table]
    listed: bool

    def places(self) -> list[Qualified]:
        """The tables on the server."""
        return [Qualified(*self.layout.place(table.name)) for table in self.tables]

    def only(self) -> list[Qualified] | None:
        """The tables for the publication; None for all."""
        return self.places() if self.listed else None


def key_attributes(table: Table) -> list[KeyAttribute]:
    """A table's key as the layout wants it."""
    return [KeyAttribute(column.name, column.target_type) for column in table.key_columns]


def judge(connection: Connection, plan: Plan, where: str, *, armed: bool) -> Iterator[Problem]:
    """All problems. `armed`: a position is kept, so slot and publication are not made; whoever reads checks them."""
    facts = read_facts(connection, where)
    slot_there = armed or slots.look(connection, plan.names.slot, where) is not None
    yield from check_server(facts, where, slot_there=slot_there)
    yield from _guard(facts, plan.options, where)
    yield from _tables(connection, plan, where)
    if not armed and plan.options.create_publication:
        yield from check_creation(facts, connection, plan.only(), where)
    elif not armed:
        yield from _published(connection, plan, where)


def _guard(facts: ServerFacts, options: ReverseOptions, where: str) -> Iterator[Problem]:
    guard = options.guard
    if guard.on_limit is OnLimit.DROP_SLOT and 0 <= facts.keep_bytes < guard.limit_bytes:
        yield Problem(
            "the source gives the slot up before the guard acts",
            where=where,
            why=f"max_slot_wal_keep_size is {facts.keep_bytes} bytes, spec.guard.limitBytes {guard.limit_bytes}",
            todo="raise the one or lower the other, so that the guard's warning comes first",
            fatal=False,
        )


def _tables(connection: Connection, plan: Plan, where: str) -> Iterator[Problem]:
    if not plan.tables:
        yield Problem(
            "there is no table to write to",
            where=where,
            why="DynamoDB has no table that spec.tables selects",
            todo="check region, account and the patterns under spec.tables",
        )
    there = describe(connection, [plan.layout.place(table.name) for table in plan.tables], where)
    for table in plan.tables:
        place = plan.layout.place(table.name)
        if place not in there:
            yield _absent(table, place, fatal=plan.listed)
            continue
        try:
            table_layout(there[place], table.name, key_attributes(table), plan.options.layout)
        except WorkerError as error:
            yield Problem(error.what, error.where, error.why, error.todo)


def _absent(table: Table, place: tuple[str, str], *, fatal: bool) -> Problem:
    rule = "correct spec.layout.tableRule if it is called otherwise"
    return Problem(
        f"the source has no table {'.'.join(place)}",
        where=table.name,
        why="that is where the items of the DynamoDB table are to be found by the configured layout",
        todo=f"{rule}; else make the table, or exclude it under spec.tables" if fatal else f"{rule}; else nothing",
        fatal=fatal,
    )


def _published(connection: Connection, plan: Plan, where: str) -> Iterator[Problem]:
    there = describe(connection, [plan.layout.place(table.name) for table in plan.tables], where)
    wanted = [place for place in plan.places() if (place.schema, place.name) in there]
    try:
        publication.check(connection, plan.names.publication, wanted, where)
    except ConfigurationError as error:
        yield Problem(error.what, error.where, error.why, error.todo)
