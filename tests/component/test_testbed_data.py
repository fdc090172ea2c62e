"""The flights data, the bench table, the traffic and the independent comparison, on real servers."""

from __future__ import annotations

import random
import time
from contextlib import closing
from typing import Any

import pytest

from whimbrel_testbed.bench_table import load_bench_rows
from whimbrel_testbed.compare import independent_compare
from whimbrel_testbed.flights import TABLE_NAMES, load_flights
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.postgres import PostgresServer
from whimbrel_testbed.traffic import Traffic, TrafficCounts, read_plan

COLUMNS = {
    "airlines": "carrier text, name text",
    "airports": "faa text, name text, lat numeric, lon float8, alt int, tz int, dst char(1), tzone text",
    "weather": (
        "origin text, year int, month int, day int, hour int, temp numeric, dewp numeric, humid numeric, wind_dir int, "
        "wind_speed float8, wind_gust float8, precip real, pressure numeric, visib real, time_hour timestamp"
    ),
}


def rows_of(mysql: MySQLServer, statement: str) -> list[tuple[Any, ...]]:
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def copy_by_hand(mysql: MySQLServer, database: str, postgres: PostgresServer, target: str) -> list[tuple[str, str]]:
    """Copy the small tables with plain drivers; return the pairs to compare."""
    with postgres.connect(target) as connection:
        for table, columns in COLUMNS.items():
            connection.execute(f"CREATE TABLE {table} ({columns})")
            names = [column.split()[0] for column in columns.split(", ")]
            wanted = ", ".join(f"{name} + 0e0" if name in ("precip", "visib") else name for name in names)
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for row in rows_of(mysql, f"SELECT {wanted} FROM `{database}`.{table}"):
                    copy.write_row(row)
    return [(f"{database}.{table}", f"public.{table}") for table in COLUMNS]


def test_flights_are_loaded_with_their_nulls(mysql: MySQLServer, mysql_database: str) -> None:
    counts = load_flights(mysql, mysql_database, rows=1000)
    assert counts == {"airlines": 16, "airports": 1000, "planes": 1000, "weather": 1000, "flights": 1000}
    assert tuple(counts) == TABLE_NAMES
    ((missing,),) = rows_of(mysql, f"SELECT COUNT(*) FROM `{mysql_database}`.flights WHERE dep_time IS NULL")
    assert missing == 4
    first = rows_of(mysql, f"SELECT carrier, flight, tailnum, time_hour FROM `{mysql_database}`.flights WHERE id = 1")
    assert str(first) == "[('UA', 1545, 'N14228', datetime.datetime(2013, 1, 1, 10, 0))]"


def test_bench_rows_follow_from_the_seed(mysql: MySQLServer, mysql_database: str) -> None:
    def digest(seed: int) -> list[tuple[Any, ...]]:
        assert load_bench_rows(mysql, f"{mysql_database}.rows", 2000, seed=seed) == 2000
        return rows_of(mysql, f"CHECKSUM TABLE `{mysql_database}`.`rows`")

    first = digest(1)
    assert digest(1) == first
    assert digest(2) != first
    assert load_bench_rows(mysql, f"{mysql_database}.rows", 100_300) == 100_300
    last = rows_of(mysql, f"SELECT MAX(id), COUNT(DISTINCT c_datetime) > 100290 FROM `{mysql_database}`.`rows`")
    assert last == [(100_300, 1)]
    columns = rows_of(mysql, f"SELECT * FROM `{mysql_database}`.`rows` LIMIT 1")
    assert len(columns[0]) == 16


def test_damage_is_found_exactly(
    mysql: MySQLServer, mysql_database: str, postgres: PostgresServer, postgres_database: str
) -> None:
    load_flights(mysql, mysql_database, rows=500)
    pairs = copy_by_hand(mysql, mysql_database, postgres, postgres_database)
    conninfo = postgres.conninfo_for(postgres_database)
    assert independent_compare(mysql.admin, conninfo, pairs) == []
    with postgres.connect(postgres_database) as connection:
        connection.execute("UPDATE airports SET name = name || ' ' WHERE faa = '04G'")
        connection.execute("DELETE FROM airlines WHERE carrier = 'UA'")
        connection.execute("INSERT INTO airlines VALUES ('ZZ', '')")
        connection.execute("UPDATE weather SET precip = '-0' WHERE time_hour = '2013-01-01 06:00:00'")
        connection.execute("UPDATE weather SET wind_gust = 0 WHERE time_hour = '2013-01-01 07:00:00'")
    found = "\n".join(independent_compare(mysql.admin, conninfo, pairs))
    assert "1 extra (or twice) in the target, 1 missing in the target" in found
    assert "airlines (carrier='ZZ'): only in the target" in found
    assert "airlines (carrier='UA'): only in the source" in found
    assert "(faa='04G'): name: source 'Lansdowne Airport', target 'Lansdowne Airport '" in found
    assert "precip: source 0.0, target '-0.0'" in found
    assert "wind_gust: source None, target 0.0" in found
    assert found.count("\n") == 7


def test_a_table_or_column_that_is_missing_is_said(
    mysql: MySQLServer, mysql_database: str, postgres: PostgresServer, postgres_database: str
) -> None:
    load_flights(mysql, mysql_database, rows=5)
    conninfo = postgres.conninfo_for(postgres_database)
    with postgres.connect(postgres_database) as connection:
        connection.execute("CREATE TABLE airlines (carrier text)")
    pairs = [(f"{mysql_database}.airlines", "public.airlines"), (f"{mysql_database}.planes", "public.planes")]
    columns, table = independent_compare(mysql.admin, conninfo, pairs)
    assert "columns differ" in columns
    assert "the target has no table public.planes" in table


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_planned_statement_changes_exactly_one_row(mysql: MySQLServer, mysql_database: str, seed: int) -> None:
    load_flights(mysql, mysql_database, rows=300)
    from pymysql.constants import CLIENT

    options = {"autocommit": False, "client_flag": CLIENT.FOUND_ROWS}
    with closing(mysql.connect(mysql_database, **options)) as connection, connection.cursor() as cursor:
        plan = read_plan(cursor, random.Random(seed))
        for _ in range(400):
            transaction = plan.next_transaction()
            for kind, statement, parameters in transaction.statements:
                assert cursor.execute(statement, parameters) == 1, (seed, kind, statement, parameters)
            (connection.commit if transaction.commit else connection.rollback)()
        cursor.execute("SELECT id FROM flights ORDER BY id")
        assert [key for (key,) in cursor.fetchall()] == sorted(plan.ids)


def test_traffic_runs_until_stopped_and_does_everything(mysql: MySQLServer, mysql_database: str) -> None:
    load_flights(mysql, mysql_database, rows=300)
    before = rows_of(mysql, f"SELECT COUNT(*) FROM `{mysql_database}`.flights")
    with Traffic(mysql.admin, mysql_database, seed=5, rate=5000) as traffic:
        deadline = time.monotonic() + 30
        while traffic.counts.transactions < 200:
            assert time.monotonic() < deadline, traffic.counts
            time.sleep(0.05)
    counts: TrafficCounts = traffic.stop()
    assert min(counts.inserts, counts.updates, counts.deletes, counts.key_changes, counts.rolled_back) > 0
    ((after,),) = rows_of(mysql, f"SELECT COUNT(*) FROM `{mysql_database}`.flights")
    assert after == before[0][0] + counts.inserts - counts.deletes
    assert counts.reconnects == 0
