"""The traffic on the Aurora DSQL stand-in, and the comparison of what was there before it began."""

import random
import time

import psycopg
import pytest

from support.patience import eventually
from whimbrel_testbed.compare import independent_compare
from whimbrel_testbed.dsql import DSQLServer
from whimbrel_testbed.dsql.traffic import Traffic
from whimbrel_testbed.flights import load_flights
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_testbed.traffic import TrafficCounts

TABLES = {
    "airlines": "carrier varchar(2) PRIMARY KEY, name text",
    "airports": "faa text PRIMARY KEY, name text, tzone text",
    "planes": "tailnum text PRIMARY KEY, year int, model text",
    "weather": "origin text, time_hour timestamp, temp float8, wind_gust float8, precip real, "
    "PRIMARY KEY (origin, time_hour)",
    "flights": "id bigint PRIMARY KEY, year int, month int, day int, dep_time int, sched_dep_time int, dep_delay int, "
    "arr_time int, sched_arr_time int, arr_delay int, carrier text, flight int, tailnum text, origin text, dest text, "
    "air_time int, distance int, hour int, minute int, time_hour timestamp",
}
KEYS = {"airlines": "carrier", "airports": "faa", "planes": "tailnum"}
ROWS = 40


@pytest.fixture
def schema(dsql: DSQLServer) -> str:
    """The five tables with a few rows, made as a client of the stand-in makes them."""
    name = f"flights_{random.randrange(10**9)}"
    with psycopg.connect(**dsql.conninfo(), autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"'.encode())
        for table, columns in TABLES.items():
            connection.execute(f'CREATE TABLE "{name}".{table} ({columns})'.encode())
        for table, key in KEYS.items():
            rows = ", ".join(f"('{number}')" for number in range(ROWS))
            connection.execute(f'INSERT INTO "{name}".{table} ({key}) VALUES {rows}'.encode())
        ids = ", ".join(f"({number})" for number in range(1, ROWS))
        connection.execute(f'INSERT INTO "{name}".flights (id) VALUES {ids}'.encode())
    return name


def test_it_writes_until_stopped_and_through_conflicts(dsql: DSQLServer, schema: str) -> None:
    dsql.control.set(conflict_rate=0.3, seed=3)
    began = time.monotonic()
    try:
        with Traffic(dsql, schema, seed=4, rate=3000) as traffic:
            eventually(lambda: traffic.counts.transactions > 100, lambda: traffic.counts)
    finally:
        dsql.control.set(conflict_rate=0)
    counts: TrafficCounts = traffic.stop()
    assert min(counts.inserts, counts.updates, counts.deletes, counts.key_changes) > 0
    with psycopg.connect(dsql.backend_conninfo) as connection:
        ((there,),) = connection.execute(f'SELECT count(*) FROM "{schema}".flights'.encode()).fetchall()
    assert there == ROWS - 1 + counts.inserts - counts.deletes
    assert counts.first_write is not None
    assert counts.last_write is not None
    assert began < counts.first_write < counts.last_write < time.monotonic()


def test_a_snapshot_is_compared_while_the_target_changes(
    mysql: MySQLServer, mysql_database: str, dsql: DSQLServer
) -> None:
    """What is written after the snapshot was taken is not seen; what was there before is."""
    load_flights(mysql, mysql_database, rows=30)
    name = f"snapshot_{random.randrange(10**9)}"
    pairs = [(f"{mysql_database}.airlines", f"{name}.airlines")]
    with mysql.connect(mysql_database) as source, source.cursor() as cursor:
        cursor.execute("SELECT carrier, name FROM airlines")
        airlines = cursor.fetchall()
    with psycopg.connect(dsql.backend_conninfo, autocommit=True) as connection:
        connection.execute(f'CREATE SCHEMA "{name}"'.encode())
        connection.execute(f'CREATE TABLE "{name}".airlines (carrier text PRIMARY KEY, name text)'.encode())
        connection.cursor().executemany(f'INSERT INTO "{name}".airlines VALUES (%s, %s)'.encode(), airlines)
        with psycopg.connect(dsql.backend_conninfo) as holder:
            holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            ((snapshot,),) = holder.execute("SELECT pg_export_snapshot()").fetchall()
            connection.execute(f"UPDATE \"{name}\".airlines SET name = 'later'".encode())
            assert independent_compare(mysql.admin, dsql.backend_conninfo, pairs, snapshot=snapshot) == []
        assert independent_compare(mysql.admin, dsql.backend_conninfo, pairs) != []
