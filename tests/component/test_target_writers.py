"""Who else may write to the target, asked of real catalogues: direct, by groups, PUBLIC, ownership, hostile names."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from support.moves import Move
from support.targets import ITEMS, TargetCase, prepared
from whimbrel_api.cutover import TargetWriters
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.postgres import postgres_server
from whimbrel_worker.endpoints.postgres import server as plain_server
from whimbrel_worker.endpoints.postgres.connector import open_connection
from whimbrel_worker.endpoints.postgres.target import PostgresTarget
from whimbrel_worker.libpq import Connection
from whimbrel_worker.values.columns import Table
from whimbrel_worker.writers import quoted

_NUMBERS = itertools.count(1)
HOSTILE = ('o"ff; DROP', "a%s{b}", "PUBLIC", "line\nbreak", "back\\slash\t'q'", "Ünï cödé", "$1")


@dataclass
class Roles:
    """Roles with names of this test's own, dropped after it with all that they hold."""

    case: TargetCase
    made: list[str] = field(default_factory=list)

    def new(self, name: str = "role", *, options: str = "LOGIN") -> str:
        whole = f"{name}_{os.getpid()}_{next(_NUMBERS)}"
        self.made.append(whole)
        self.case.change(f"CREATE ROLE {quoted(whole)} {options}")
        return whole

    def drop(self) -> None:
        names = ", ".join(quoted(name) for name in self.made)
        if names:
            self.case.change(f"DROP OWNED BY {names} CASCADE")
            self.case.change(f"DROP ROLE {names}")


@pytest.fixture
def roles(case: TargetCase) -> Iterator[Roles]:
    made = Roles(case)
    yield made
    made.drop()


@pytest.fixture
def target(case: TargetCase) -> PostgresTarget:
    return prepared(case)


TABLE = sql.Identifier("shop", 'it"e%ms').as_string(None)


@dataclass
class Direct:
    """A connector by a connection string; `statements`: how many its connections were given."""

    conninfo: str
    where: str = "here"
    statements: int = 0

    def connect(self) -> Connection:
        connection = open_connection(self.where, conninfo=self.conninfo)
        execute = connection.execute

        def counted(*arguments: Any, **more: Any) -> Any:
            self.statements += 1
            return execute(*arguments, **more)

        connection.execute = counted  # type: ignore[method-assign]
        return connection

    def target(self) -> PostgresTarget:
        return PostgresTarget(self, plain_server.PROFILE, "default/case", 1)


@pytest.fixture
def mover(postgres_case: TargetCase) -> Iterator[str]:
    """An account for a migration that is no superuser; the tables are its own."""
    roles = Roles(postgres_case)
    prepared(postgres_case)
    name = roles.new("mover", options="LOGIN PASSWORD 'fine'")
    postgres_case.change(f"ALTER SCHEMA shop OWNER TO {quoted(name)}")
    postgres_case.change(f"ALTER TABLE {TABLE} OWNER TO {quoted(name)}")
    yield name
    roles.drop()


def places(tables: Sequence[Table]) -> set[tuple[str, str]]:
    return {(table.target_schema, table.target_name) for table in tables}


def as_mover(case: TargetCase, name: str) -> TargetWriters:
    return Direct(make_conninfo(case.direct, user=name, password="fine")).target().writers(places([ITEMS]), ())


def named(found: TargetWriters, *names: str) -> list[str]:
    """What is said of each of these roles, in this order."""
    starts = [f"{quoted(name)} " for name in names]
    return [each for start in starts for each in found.roles if each.startswith(start)]


def look(target: PostgresTarget, tables: Sequence[Table] = (ITEMS,), *allowed: str) -> TargetWriters:
    return target.writers(places(tables), allowed)


def test_nobody_but_the_account_itself_is_found_where_nobody_else_may(
    case: TargetCase, target: PostgresTarget, roles: Roles
) -> None:
    reader = roles.new("reader")
    case.change(f"GRANT USAGE ON SCHEMA shop TO {quoted(reader)}")
    case.change(f"GRANT SELECT, REFERENCES ON {TABLE} TO {quoted(reader)}")
    roles.new("idle")
    found = look(target)
    assert (found.roles, found.roles_total, found.remedies, found.tables) == ([], 0, [], 1)
    assert found.account == quoted("admin" if case.control is not None else "postgres")


@pytest.mark.parametrize("name", HOSTILE)
def test_a_role_that_may_write_is_named_and_the_sql_ends_it(
    case: TargetCase, target: PostgresTarget, roles: Roles, name: str
) -> None:
    role = roles.new(name)
    case.change(f"GRANT UPDATE, INSERT, SELECT ON {TABLE} TO {quoted(role)}")
    found = look(target)
    assert named(found, role) == [f'{quoted(role)} holds INSERT, UPDATE on 1 table of "shop"']
    assert found.remedies == [f'REVOKE INSERT, UPDATE ON ALL TABLES IN SCHEMA "shop" FROM {quoted(role)};']
    assert all(text.isprintable() for text in (*found.roles, *found.remedies))
    case.change(found.remedies[0])
    assert look(target).roles_total == 0


@pytest.mark.parametrize("right", ["DELETE", "TRUNCATE", "UPDATE (name)", "INSERT (id, name)"])
def test_each_right_to_write_counts_that_to_a_column_too(
    case: TargetCase, target: PostgresTarget, roles: Roles, right: str
) -> None:
    role = roles.new()
    case.change(f"GRANT {right} ON {TABLE} TO {quoted(role)}")
    found = look(target)
    assert named(found, role) == [f'{quoted(role)} holds {right.partition(" ")[0]} on 1 table of "shop"']
    case.change(found.remedies[0])
    assert look(target).roles_total == 0


@pytest.mark.parametrize("inherits", ["INHERIT", "NOINHERIT"])
def test_members_of_a_group_are_named_at_any_depth(
    case: TargetCase, target: PostgresTarget, roles: Roles, inherits: str
) -> None:
    group, middle = roles.new("group", options="NOLOGIN"), roles.new("middle", options=f"NOLOGIN {inherits}")
    member, stranger = roles.new("member", options=f"LOGIN {inherits}"), roles.new("stranger")
    case.change(f"GRANT {quoted(group)} TO {quoted(middle)}")
    case.change(f"GRANT {quoted(middle)} TO {quoted(member)}")
    case.change(f"GRANT INSERT ON {TABLE} TO {quoted(group)}")
    found = look(target)
    assert named(found, member) == [f'{quoted(member)} holds INSERT on 1 table of "shop" through {quoted(group)}']
    assert named(found, stranger, group, middle) == []
    assert found.roles_total == 1
    case.change(found.remedies[0])
    assert look(target).roles_total == 0


def test_what_public_may_is_told_as_that(case: TargetCase, target: PostgresTarget, roles: Roles) -> None:
    roles.new()
    case.change(f"GRANT INSERT, DELETE ON {TABLE} TO PUBLIC")
    found = look(target)
    assert found.roles == ['PUBLIC holds INSERT, DELETE on 1 table of "shop"']
    assert found.remedies == ['REVOKE INSERT, DELETE ON ALL TABLES IN SCHEMA "shop" FROM PUBLIC;']
    case.change(found.remedies[0])
    assert look(target).roles_total == 0


def test_an_owner_counts_though_nothing_is_granted(case: TargetCase, target: PostgresTarget, roles: Roles) -> None:
    owner, member = roles.new("owner"), roles.new("member")
    case.change(f"GRANT {quoted(owner)} TO {quoted(member)}")
    case.change(f"ALTER TABLE {TABLE} OWNER TO {quoted(owner)}")
    case.change(f"REVOKE ALL ON {TABLE} FROM {quoted(owner)}")
    found = look(target)
    assert named(found, owner, member) == [
        f'{quoted(owner)} owns 1 table of "shop"',
        f'{quoted(member)} owns 1 table of "shop" through {quoted(owner)}',
    ]
    assert f"ALTER TABLE {TABLE} OWNER TO {found.account};" in found.remedies
    assert f"REVOKE {quoted(owner)} FROM {quoted(member)};" in found.remedies
    for remedy in found.remedies:
        case.change(remedy)
    assert look(target).roles_total == 0


def test_superusers_and_those_that_may_write_everywhere(case: TargetCase, target: PostgresTarget, roles: Roles) -> None:
    root, deputy = roles.new("root", options="LOGIN SUPERUSER"), roles.new("deputy")
    everywhere = roles.new("everywhere")
    case.change(f"GRANT {quoted(root)} TO {quoted(deputy)}")
    case.change(f"GRANT pg_write_all_data TO {quoted(everywhere)}")
    found = look(target)
    assert quoted(root) in found.superusers
    assert named(found, root) == []
    assert named(found, deputy, everywhere) == [
        f"{quoted(deputy)} may act as superuser {quoted(root)}",
        f'{quoted(everywhere)} may act as "pg_write_all_data"',
    ]
    for remedy in found.remedies:
        case.change(remedy)
    assert look(target).roles_total == 0


@pytest.fixture
def beside(postgres_case: TargetCase, mover: str) -> Iterator[Roles]:
    """Roles that go before the mover, in whose rights they may have a part."""
    made = Roles(postgres_case)
    yield made
    made.drop()


def test_who_may_act_as_the_account_itself_is_named(postgres_case: TargetCase, mover: str, beside: Roles) -> None:
    member = beside.new("member")
    postgres_case.change(f"GRANT {quoted(mover)} TO {quoted(member)}")
    found = as_mover(postgres_case, mover)
    assert found.account == quoted(mover)
    assert named(found, member) == [f"{quoted(member)} may act as {quoted(mover)}, the migration's own account"]
    assert '"postgres"' in found.superusers
    postgres_case.change(found.remedies[0])
    assert as_mover(postgres_case, mover).roles_total == 0


def test_what_opens_later_tables_is_noted_and_counts_nobody(
    postgres_case: TargetCase, mover: str, beside: Roles
) -> None:
    later, maker = beside.new("later"), beside.new("maker")
    opens = f"ALTER DEFAULT PRIVILEGES FOR ROLE {quoted(mover)} IN SCHEMA shop GRANT INSERT ON TABLES TO"
    postgres_case.change(f"{opens} {quoted(later)}")
    postgres_case.change(f"GRANT CREATE ON SCHEMA shop TO {quoted(maker)}")
    found = as_mover(postgres_case, mover)
    assert found.roles_total == 0
    opened, made = sorted(found.notes, key=lambda note: "may make" in note)
    assert made == f'{quoted(maker)} may make tables of its own in "shop"'
    assert opened.startswith(f"tables made later are open to {quoted(later)}: ALTER DEFAULT PRIVILEGES")
    postgres_case.change(opened.partition(": ")[2])
    assert as_mover(postgres_case, mover).notes == [made]


def test_the_task_that_inspects_the_target_reports_it_where_it_is_asked(
    postgres_move: Move, mysql: MySQLServer, mysql_database: str
) -> None:
    with closing(mysql.connect(mysql_database)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE items (id INT PRIMARY KEY)")
    postgres_move.prepare()
    postgres_move.look(f'GRANT INSERT ON "{mysql_database}".items TO PUBLIC')
    code, report = postgres_move.run("inspect", writers={"look": True})
    assert code == 0, report.last_error
    assert report.record is not None
    assert report.writers is not None
    assert report.writers.roles == [f'PUBLIC holds INSERT on 1 table of "{mysql_database}"']
    assert postgres_move.run("inspect")[1].writers is None


def test_who_is_allowed_is_noted_and_not_counted(case: TargetCase, target: PostgresTarget, roles: Roles) -> None:
    role, other = roles.new("app"), roles.new("other")
    case.change(f"GRANT INSERT ON {TABLE} TO {quoted(role)}, {quoted(other)}")
    found = look(target, (ITEMS,), role)
    assert (found.roles_total, named(found, role)) == (1, [])
    assert f"{quoted(role)} may write, as spec.cutover.allowedWriters says" in found.notes


def test_only_tables_of_this_migration_count(case: TargetCase, target: PostgresTarget, roles: Roles) -> None:
    role = roles.new()
    case.change("CREATE TABLE shop.other (id bigint PRIMARY KEY)")
    case.change(f"GRANT INSERT ON shop.other TO {quoted(role)}")
    assert look(target).roles_total == 0
    assert look(target, ()).roles_total == 0


def test_a_thousand_tables_and_many_roles_take_the_same_few_statements(postgres_case: TargetCase) -> None:
    prepared(postgres_case)
    roles = Roles(postgres_case)
    tables = [replace(ITEMS, source_name=f"t{number}", target_name=f"t{number}") for number in range(1000)]
    counted = Direct(postgres_case.direct)
    try:
        for start in range(0, 1000, 100):
            made = "; ".join(f"CREATE TABLE shop.t{number} (id int)" for number in range(start, start + 100))
            postgres_case.change(made)
        many = [roles.new("app") for _ in range(25)]
        postgres_case.change(f"GRANT INSERT ON ALL TABLES IN SCHEMA shop TO {', '.join(map(quoted, many))}")
        found = counted.target().writers(places(tables), ())
        assert counted.statements == 4
        assert (found.tables, found.roles_total, len(found.roles), len(found.remedies)) == (1000, 25, 10, 10)
        assert found.roles[0].endswith('holds INSERT on 1000 tables of "shop"')
        assert found.remedies[-1] == "and 16 more"
    finally:
        roles.drop()


def test_an_administrator_of_a_role_that_may_not_use_it_is_not_counted() -> None:
    """From version 16 on such a membership is what CREATEROLE gives to whoever makes a role."""
    with postgres_server(major=16) as server, server.connect() as connection:
        connection.execute("CREATE TABLE t (id int); CREATE ROLE grp; CREATE ROLE app LOGIN; CREATE ROLE adm LOGIN")
        connection.execute("GRANT grp TO app; GRANT grp TO adm WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
        connection.execute("GRANT INSERT ON t TO grp")
        table = replace(ITEMS, target_schema="public", target_name="t")
        found = Direct(server.conninfo).target().writers(places([table]), ())
        assert found.roles == ['"app" holds INSERT on 1 table of "public" through "grp"']
