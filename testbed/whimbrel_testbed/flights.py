"""The flights of 2013 from New York in MySQL: five tables of real data, and how they are loaded."""

from __future__ import annotations

import itertools
import tempfile
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymysql.cursors import Cursor

from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.mysql import MySQLAccess, MySQLServer
from whimbrel_testbed.provision import flights_directory

_FLIGHTS = """
  id bigint NOT NULL AUTO_INCREMENT PRIMARY KEY, year smallint unsigned NOT NULL, month tinyint unsigned NOT NULL,
  day tinyint unsigned NOT NULL, dep_time smallint unsigned, sched_dep_time smallint unsigned NOT NULL,
  dep_delay smallint, arr_time smallint unsigned, sched_arr_time smallint unsigned NOT NULL, arr_delay smallint,
  carrier varchar(8) NOT NULL, flight int unsigned NOT NULL, tailnum varchar(16), origin char(3) NOT NULL,
  dest char(3) NOT NULL, air_time smallint unsigned, distance mediumint unsigned NOT NULL,
  hour tinyint unsigned NOT NULL, minute tinyint unsigned NOT NULL, time_hour datetime NOT NULL"""
_WEATHER = """
  origin varchar(3) NOT NULL, year smallint unsigned NOT NULL, month tinyint unsigned NOT NULL,
  day tinyint unsigned NOT NULL, hour tinyint unsigned NOT NULL, temp decimal(6,2), dewp decimal(6,2),
  humid decimal(5,2), wind_dir smallint unsigned, wind_speed double, wind_gust double, precip float,
  pressure decimal(6,1), visib float, time_hour datetime NOT NULL, PRIMARY KEY (origin, time_hour)"""
_PLANES = """
  tailnum varchar(16) NOT NULL PRIMARY KEY, year smallint unsigned, type varchar(64) NOT NULL,
  manufacturer varchar(255) NOT NULL, model varchar(255) NOT NULL, engines tinyint unsigned NOT NULL,
  seats smallint unsigned NOT NULL, speed smallint unsigned, engine varchar(64) NOT NULL"""
_AIRPORTS = """
  faa varchar(8) NOT NULL PRIMARY KEY, name varchar(255) NOT NULL, lat decimal(20,16) NOT NULL, lon double NOT NULL,
  alt int NOT NULL, tz tinyint NOT NULL, dst char(1) NOT NULL, tzone varchar(64)"""
_AIRLINES = "carrier varchar(8) NOT NULL PRIMARY KEY, name varchar(255) NOT NULL"


@dataclass(frozen=True)
class _Table:
    name: str
    definition: str
    nullable: frozenset[str]


_TABLES = (
    _Table("airlines", _AIRLINES, frozenset()),
    _Table("airports", _AIRPORTS, frozenset({"tzone"})),
    _Table("planes", _PLANES, frozenset({"year", "speed"})),
    _Table(
        "weather", _WEATHER,
        frozenset(["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"]),
    ),
    _Table("flights", _FLIGHTS, frozenset(["dep_time", "dep_delay", "arr_time", "arr_delay", "tailnum", "air_time"])),
)  # fmt: skip

TABLE_NAMES = tuple(table.name for table in _TABLES)


def load_flights(
    mysql: MySQLAccess | MySQLServer, database: str = "flights", *, rows: int | None = None
) -> dict[str, int]:
    """Make the database and its five tables anew and load them; return the number of rows a table.

    `rows` bounds every table (the first rows of the data are taken). The account needs CREATE, DROP and INSERT
    there, and
    the server local_infile. Raises TestbedError where the server warned about a value or took another number of rows
    than sent.
    """
    name = f"`{database.replace('`', '``')}`"
    with closing(mysql.connect(local_infile=True)) as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {name}")
        cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        cursor.execute(f"USE {name}")
        cursor.execute("SET foreign_key_checks = 0, unique_checks = 0")
        with tempfile.TemporaryDirectory(prefix="whimbrel-flights-") as scratch:
            return {table.name: _load(cursor, table, _csv(table.name, Path(scratch), rows)) for table in _TABLES}


def _csv(table: str, scratch: Path, rows: int | None) -> Path:
    """Write the table's data, or its first rows, as a plain file; the cached original stays as it was fetched."""
    packed, plain = flights_directory() / f"{table}.csv.zip", flights_directory() / f"{table}.csv"
    target = scratch / f"{table}.csv"
    if packed.exists():
        with zipfile.ZipFile(packed) as archive:
            text = archive.read(f"{table}.csv").decode("utf-8")
    else:
        text = plain.read_text(encoding="utf-8")
    lines = text.splitlines(keepends=True)
    target.write_text("".join(itertools.islice(lines, None if rows is None else rows + 1)), encoding="utf-8")
    return target


def _load(cursor: Cursor, table: _Table, path: Path) -> int:
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    columns = header.split(",")
    cursor.execute(f"CREATE TABLE `{table.name}` ({table.definition})")
    fields = ", ".join(f"@{column}" for column in columns)
    values = ", ".join(f"`{column}` = {_expression(table, column)}" for column in columns)
    cursor.execute(
        f"LOAD DATA LOCAL INFILE %s INTO TABLE `{table.name}` CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' "
        f"OPTIONALLY ENCLOSED BY '\"' LINES TERMINATED BY '\\n' IGNORE 1 LINES ({fields}) SET {values}",
        [str(path)],
    )
    loaded, warnings = int(cursor.rowcount), _warnings(cursor)
    if warnings or loaded != len(lines):
        raise TestbedError(f"Loading {table.name}: {loaded} rows of {len(lines)} were taken; warnings: {warnings}")
    return loaded


def _expression(table: _Table, column: str) -> str:
    if column == "time_hour":
        return "LEFT(REPLACE(@time_hour, 'T', ' '), 19)"
    return f"NULLIF(@{column}, 'NA')" if column in table.nullable else f"@{column}"


def _warnings(cursor: Cursor) -> list[Any]:
    cursor.execute("SHOW WARNINGS LIMIT 3")
    return list(cursor.fetchall())
