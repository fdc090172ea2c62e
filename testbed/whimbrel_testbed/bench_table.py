"""A big table of mixed columns in MySQL for the benchmarks: about 200 bytes a row, the same for the same seed."""

from __future__ import annotations

from contextlib import closing

from pymysql.cursors import Cursor

from whimbrel_testbed.cache import TestbedError
from whimbrel_testbed.mysql import MySQLAccess, MySQLServer

_SLICE = 100_000

DEFINITION = """
  id bigint NOT NULL PRIMARY KEY, c_int int NOT NULL, c_uint int unsigned NOT NULL, c_small smallint,
  c_ubig bigint unsigned NOT NULL, c_decimal decimal(18,4) NOT NULL, c_double double NOT NULL, c_float float,
  c_varchar varchar(64) NOT NULL, c_text text, c_binary varbinary(32) NOT NULL, c_date date NOT NULL,
  c_datetime datetime(6) NOT NULL, c_timestamp timestamp NULL, c_time time NOT NULL, c_year year"""

# h is 32 hexadecimal digits that depend on seed and id alone; each column takes some of them.
_ROW = """
  id, CAST(CONV(SUBSTR(h, 1, 7), 16, 10) AS SIGNED) - 134217728, CONV(SUBSTR(h, 2, 8), 16, 10),
  IF(MOD(id, 11) = 0, NULL, CAST(CONV(SUBSTR(h, 4, 4), 16, 10) AS SIGNED) - 32768), CONV(SUBSTR(h, 9, 16), 16, 10),
  CAST(CONV(SUBSTR(h, 3, 10), 16, 10) AS DECIMAL(18,4)) / 10000, CONV(SUBSTR(h, 5, 12), 16, 10) / 65536e0,
  IF(MOD(id, 13) = 0, NULL, CONV(SUBSTR(h, 6, 6), 16, 10) / 4096e0), CONCAT('customer ', LEFT(h, 6)),
  IF(MOD(id, 7) = 0, NULL, CONCAT(LEFT(h, 3), ' ünï ', id)),
  UNHEX(LEFT(h, 16)), DATE '2000-01-01' + INTERVAL CONV(SUBSTR(h, 8, 3), 16, 10) DAY,
  TIMESTAMP '2001-02-03 04:05:06.000000' + INTERVAL CONV(SUBSTR(h, 10, 11), 16, 10) MICROSECOND,
  IF(MOD(id, 17) = 0, NULL, FROM_UNIXTIME(1000000000 + CONV(SUBSTR(h, 12, 7), 16, 10))),
  SEC_TO_TIME(CONV(SUBSTR(h, 14, 4), 16, 10)),
  IF(MOD(id, 19) = 0, NULL, 1901 + MOD(CONV(SUBSTR(h, 16, 2), 16, 10), 200))"""


# The first slice is hashed; the others are made from it by arithmetic on their number, which is much cheaper.
_COPY = """
  id + %(offset)s, c_int + %(number)s, c_uint ^ %(number)s, c_small, c_ubig ^ %(number)s, c_decimal + %(number)s,
  c_double + %(number)s, c_float, INSERT(c_varchar, 10, 3, LPAD(%(number)s, 3, '0')), c_text, c_binary,
  c_date + INTERVAL %(number)s DAY, c_datetime + INTERVAL %(number)s MICROSECOND,
  c_timestamp + INTERVAL %(number)s SECOND, c_time, c_year"""


def load_bench_rows(
    mysql: MySQLAccess | MySQLServer,
    table: str = "bench.rows",
    rows: int = 2_000_000,
    *,
    seed: int = 1,
    logged: bool = False,
) -> int:
    """Make the table `database.name` anew with ids 1 to `rows`; return the number of rows.

    Unless `logged`, the rows are kept out of the binlog, which needs an administrator's account.
    """
    database, _, name = (part.replace("`", "``") for part in table.partition("."))
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET SESSION sql_log_bin = {int(logged)}")
        cursor.execute("SET SESSION unique_checks = 0, cte_max_recursion_depth = 1000000, time_zone = '+00:00'")
        cursor.execute(f"CREATE DATABASE IF NOT EXISTS `{database}` CHARACTER SET utf8mb4")
        cursor.execute(f"USE `{database}`")
        cursor.execute(f"DROP TABLE IF EXISTS `{name}`")
        cursor.execute(f"CREATE TABLE `{name}` ({DEFINITION})")
        loaded = _fill(cursor, f"`{name}`", rows, seed)
    if loaded != rows:
        raise TestbedError(f"{table}: {loaded} rows of {rows} were made.")
    return loaded


def _fill(cursor: Cursor, table: str, rows: int, seed: int) -> int:
    numbers = "WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < %s)"
    hashed = "SELECT id, LEFT(SHA2(CONCAT(%s, ':', id), 256), 32) AS h FROM n"
    cursor.execute(f"INSERT INTO {table} {numbers} SELECT {_ROW} FROM ({hashed}) AS hashed", [min(_SLICE, rows), seed])
    loaded = cursor.rowcount
    for number, offset in enumerate(range(_SLICE, rows, _SLICE), start=1):
        parameters = {"number": number, "offset": offset, "last": min(_SLICE, rows - offset)}
        cursor.execute(f"INSERT INTO {table} SELECT {_COPY} FROM {table} WHERE id <= %(last)s", parameters)
        loaded += cursor.rowcount
    return loaded
