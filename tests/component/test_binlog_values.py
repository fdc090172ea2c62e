"""Every decoded value against what SELECT prints, on a real server."""

from __future__ import annotations

import random
import struct
from contextlib import closing
from typing import Any

import pytest

from support.binlog import changes, executed, query, replay, rows_of
from whimbrel_testbed.mysql import MySQLServer
from whimbrel_worker.endpoints.mysql.binlog.charsets import SUPPORTED, transcoder

INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "bigint": 64}
FLOAT_CORNERS = [0.0, -0.0, 1.1, -1.1, 3.4028234663852886e38, 1.1754943508222875e-38, 1e-45, 16777217.0, 1 / 3]
DOUBLE_CORNERS = [0.0, -0.0, 0.1, 1.7976931348623157e308, 2.2250738585072014e-308, 5e-324, -1 / 3, 2.0**53 + 1]
TEXTS = ["", " ", "a", "trailing  ", "tab\tand\nline", "quote'\\\"", "ünïcödé", "😀𝄞", "\x01\x7f", "\\N", "x" * 60]
LATIN = ["", "café €", "ÿ", "trailing "]
BLOBS = [b"", b"\0", b"\0\0a\0", b"\xff\xfe", b"a" * 8, b"   ", bytes(range(8))]


def numbers(bits: int, *, unsigned: bool) -> list[int]:
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return [low, low + 1, -1 if not unsigned else 0, 0, 1, high - 1, high]


def decimal_values(chance: random.Random, precision: int, scale: int) -> list[str]:
    whole, fraction = "9" * (precision - scale) or "0", "9" * scale
    top = f"{whole}.{fraction}" if scale else whole
    digits = [str(chance.randrange(10**precision)).zfill(scale + 1) for _ in range(3)]
    some = [f"{d[: len(d) - scale]}.{d[len(d) - scale :]}" if scale else d for d in digits]
    return ["0", "-0.0", top, "-" + top, "1" if precision > scale else "0", *some, *("-" + one for one in some)]


def moments(digits: int) -> list[str]:
    tail = f".{'987654'[:digits]}" if digits else ""
    return [
        f"2024-02-29 23:59:59{tail}",
        "1000-01-01 00:00:00",
        f"9999-12-31 23:59:59{tail}",
        "0000-00-00 00:00:00",
        "2001-00-00 00:00:00",
        f"2024-01-31 12:34:56{tail}",
        "1999-12-31 00:00:00",
        f"0001-01-01 16:00:01{tail}",
    ]


def stamps(digits: int) -> list[str]:
    tail = f".{'999999'[:digits]}" if digits else ""
    return [
        "1970-01-01 00:00:01",
        f"2038-01-19 03:14:07{tail}",
        "0000-00-00 00:00:00",
        f"2024-02-29 23:00:00{tail}",
        f"2001-09-09 01:46:40{tail}",
    ]


def times(digits: int) -> list[str]:
    tail = f".{'000001'[6 - digits :]}" if digits else ""
    return [
        "-838:59:59",
        "838:59:59",
        "00:00:00",
        f"-00:00:00{tail}",
        f"00:00:01{tail}",
        f"-12:34:56{tail}",
        f"100:00:00{tail}",
        f"23:59:59{'.' + '9' * digits if digits else ''}",
    ]


def definitions(chance: random.Random) -> list[tuple[str, list[Any]]]:
    """Column types, each with its hostile values."""
    found: list[tuple[str, list[Any]]] = []
    for name, bits in INTEGERS.items():
        found += [(name, numbers(bits, unsigned=False)), (f"{name} unsigned", numbers(bits, unsigned=True))]
    found += [
        ("year", [0, 1901, 2155, 2024]),
        ("float", FLOAT_CORNERS),
        ("double", DOUBLE_CORNERS),
        ("date", ["2024-02-29", "0000-00-00", "2001-00-00", "1000-01-01", "9999-12-31"]),
    ]
    for precision, scale in [(65, 30), (65, 0), (30, 30), (10, 2), (9, 9), (18, 9), (1, 0), (19, 10), (20, 1)]:
        found.append((f"decimal({precision},{scale})", decimal_values(chance, precision, scale)))
    for digits in range(7):
        found += [
            (f"datetime({digits})", moments(digits)),
            (f"timestamp({digits}) NULL", stamps(digits)),
            (f"time({digits})", times(digits)),
        ]
    found += [
        (kind, TEXTS)
        for kind in (
            "char(63)",
            "char(255)",
            "varchar(63)",
            "varchar(300)",
            "tinytext",
            "text",
            "mediumtext",
            "longtext",
        )
    ]
    found += [
        (f"{kind} character set {charset}", LATIN)
        for kind in ("char(20)", "varchar(255)", "text")
        for charset in ("latin1", "utf8mb3")
    ]
    found += [("varchar(20) character set utf16", TEXTS[:8]), ("char(9) character set ascii", ["", "a b", "a "])]
    found += [
        (kind, BLOBS)
        for kind in ("binary(8)", "binary(255)", "varbinary(8)", "varbinary(300)", "tinyblob", "blob", "longblob")
    ]
    return found


def expected(kind: str, text: Any) -> Any:
    """A SELECTed text as the decoder's contract has it."""
    if text is None or isinstance(text, bytes):
        return text
    word = kind.split("(", maxsplit=1)[0].split(maxsplit=1)[0]
    if word in INTEGERS or word == "year":
        return int(text)
    if word in ("float", "double"):
        return struct.pack("<d", float(text))
    return text.encode()


def selected(mysql: MySQLServer, table: str, kinds: list[str]) -> dict[tuple[int], tuple[Any, ...]]:
    columns = [f"CAST(c{i} AS DOUBLE)" if kind == "float" else f"c{i}" for i, kind in enumerate(kinds)]
    found = query(mysql, f"SELECT id, {', '.join(columns)} FROM {table}", conv={})
    return {(int(row[0]),): (int(row[0]), *map(expected, kinds, row[1:])) for row in found}


def comparable(rows: dict[Any, Any]) -> dict[Any, Any]:
    """Floats by their bits, so that -0.0 counts."""
    return {key: tuple(struct.pack("<d", v) if isinstance(v, float) else v for v in row) for key, row in rows.items()}


def fill(mysql: MySQLServer, table: str, kinds: list[tuple[str, list[Any]]], chance: random.Random, count: int) -> None:
    """Insert rows of hostile values and NULLs, then change them, their keys too, and delete some."""
    marks = ", ".join(["%s"] * (len(kinds) + 1))
    names = ["id", *(f"c{i}" for i in range(len(kinds)))]

    def row(key: int) -> tuple[Any, ...]:
        if key == 1:
            return (key, *[None] * len(kinds))
        return (
            key,
            *(
                None if key > 20 and chance.random() < 0.2 else values[(key + i) % len(values)]
                for i, (_, values) in enumerate(kinds)
            ),
        )

    with closing(mysql.connect(sql_mode="")) as connection, connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO {table} VALUES ({marks})", [row(key) for key in range(1, count)])
        sets = ", ".join(f"{name} = %s" for name in names[1:])
        for key in chance.sample(range(1, count), count // 3):
            cursor.execute(f"UPDATE {table} SET {sets} WHERE id = %s", (*row(key + 1)[1:], key))
        cursor.execute(f"UPDATE {table} SET id = -id WHERE id % 7 = 0")
        cursor.execute(f"DELETE FROM {table} WHERE id % 5 = 0")


@pytest.mark.parametrize("seed", [1, 2])
def test_every_type_is_as_select_prints_it(mysql: MySQLServer, mysql_database: str, seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    kinds = definitions(chance)
    assert len(kinds) > 64
    if seed > 1:
        kinds = chance.sample(kinds, 9)
    table = f"`{mysql_database}`.`all types`"
    body = ", ".join(f"c{i} {kind}" for i, (kind, _) in enumerate(kinds))
    query(mysql, f"CREATE TABLE {table} (id int PRIMARY KEY, {body}) CHARACTER SET utf8mb4 ROW_FORMAT=DYNAMIC")
    start = executed(mysql)
    fill(mysql, table, kinds, chance, 120)
    found = comparable(replay(changes(mysql, start), "all types"))
    wanted = selected(mysql, table, [kind for kind, _ in kinds])
    assert found.keys() == wanted.keys()
    for key, row in wanted.items():
        for (kind, _), ours, theirs in zip([("id int", []), *kinds], found[key], row, strict=True):
            assert ours == theirs, (kind, key)


def test_every_shape_of_decimal(mysql: MySQLServer, mysql_database: str) -> None:
    chance = random.Random(7)
    shapes = [(p, s) for p in range(1, 66) for s in range(min(30, p) + 1)]
    table = f"`{mysql_database}`.d"
    for part in (shapes[n::8] for n in range(8)):
        query(mysql, f"DROP TABLE IF EXISTS {table}")
        body = ", ".join(f"c{i} decimal({p},{s})" for i, (p, s) in enumerate(part))
        query(
            mysql,
            f"CREATE TABLE {table} (id int PRIMARY KEY, {body})",
        )
        start = executed(mysql)
        rows = [[decimal_values(chance, p, s)[n] for p, s in part] for n in range(11)]
        with closing(mysql.connect()) as connection, connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} VALUES ({', '.join(['%s'] * (len(part) + 1))})",
                [(n, *row) for n, row in enumerate(rows)],
            )
        assert replay(changes(mysql, start), "d") == selected(mysql, table, ["decimal"] * len(part))


def test_a_row_of_twenty_megabytes(mysql: MySQLServer, mysql_database: str) -> None:
    blob = random.Random(3).randbytes(20_000_000)
    query(mysql, f"CREATE TABLE `{mysql_database}`.big (id int PRIMARY KEY, b longblob, c int)")
    start = executed(mysql)
    with closing(mysql.connect(max_allowed_packet=64 << 20)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        assert (cursor.fetchone() or [0])[0] > len(blob)
        cursor.execute(f"INSERT INTO `{mysql_database}`.big VALUES (1, _binary %s, 7), (2, 'x', 8)", (blob,))
        cursor.execute(f"UPDATE `{mysql_database}`.big SET c = 9 WHERE id = 1")
    state = replay(changes(mysql, start), "big")
    assert state[1,][1] == blob
    assert (state[1,][2], state[2,]) == (9, (2, b"x", 8))


def test_a_big_transaction_keeps_its_order(mysql: MySQLServer, mysql_database: str) -> None:
    table = f"`{mysql_database}`.many"
    query(mysql, f"CREATE TABLE {table} (id int PRIMARY KEY, s varchar(90))")
    start = executed(mysql)
    with closing(mysql.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET SESSION cte_max_recursion_depth = 1000000")
        cursor.execute("BEGIN")
        cursor.execute(
            f"INSERT INTO {table} WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 60000)"
            " SELECT i, REPEAT(i, 9) FROM n"
        )
        cursor.execute(f"UPDATE {table} SET s = NULL WHERE id % 3 = 0")
        cursor.execute("COMMIT")
    events = changes(mysql, start)
    assert [type(e).__name__ for e in events if type(e).__name__ != "RowsEvent"] == [
        "TransactionBegin",
        "TransactionEnd",
    ]
    assert sum(len(e.rows) for e in rows_of(events, "many")) == 80000
    assert replay(events, "many") == {(i,): (i, None if i % 3 == 0 else str(i).encode() * 9) for i in range(1, 60001)}


@pytest.mark.parametrize("charset", sorted(SUPPORTED))
def test_character_sets_are_converted_as_the_server_does(mysql: MySQLServer, charset: str) -> None:
    convert = transcoder(charset)
    assert convert is not None
    width = query(
        mysql, "SELECT maxlen FROM information_schema.character_sets WHERE character_set_name = %s", (charset,)
    )[0][0]
    codes = [bytes([n]) for n in range(256)]
    if width > 1:
        codes = (
            [n.to_bytes(2, "big") for n in range(65536)]
            if charset != "utf32"
            else [n.to_bytes(4, "big") for n in range(0x11000)]
        )
    wrong = []
    with closing(mysql.connect(conv={})) as connection, connection.cursor() as cursor:
        for at in range(0, len(codes), 8192):
            part = codes[at : at + 8192]
            table = "JSON_TABLE(%s, '$[*]' COLUMNS (h varchar(8) PATH '$')) AS t"
            cursor.execute(
                f"SELECT h, HEX(CONVERT(CONVERT(UNHEX(h) USING {charset}) USING utf8mb4)) FROM {table}",
                ("[" + ",".join(f'"{c.hex()}"' for c in part) + "]",),
            )
            for given, theirs in cursor.fetchall():
                raw = bytes.fromhex(given)
                try:
                    ours = convert(raw).hex().upper()
                except UnicodeDecodeError:
                    continue
                if theirs is not None and ours != theirs:
                    wrong.append((given, ours, theirs))
    assert not wrong, (len(wrong), wrong[:20])
