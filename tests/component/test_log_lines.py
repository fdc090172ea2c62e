"""What real workers log at every level over both pairs of servers: whose line it is; no Secret, no row, no flood."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.item_moves import ItemMove
from support.moves import Move, Tasks, order
from support.patience import PATIENCE, eventually
from whimbrel_api.tasks import ExitCode
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.mysql import MySQLServer

pytestmark = pytest.mark.timeout(240)
ROW = "a-value-of-a-row-"
STEPS = ("preflight", "schema", "snapshot", "stream", "check", "fence")
MOST = 15
"""Lines of one task's whole life at INFO and above, where nothing goes wrong."""


def lived(move: Tasks, change: Callable[[], object], same: Callable[[], bool]) -> None:
    """Each task as a process of its own; the stream until it has brought a change over."""
    for kind in STEPS:
        options: dict[str, Any] = {"fence": {"step": "switched", "detail": "here"}} if kind == "fence" else {}
        process = move.start(kind, **options)
        if kind == "stream":
            change()
            eventually(same, lambda: move.log("stream"))
            order(move.task("stream"), retire=True)
        assert process.wait(PATIENCE) == ExitCode.DONE, move.log(kind)


def secrets(move: Tasks) -> list[str]:
    """Whatever nobody may see; names of accounts may be told."""
    files = [path for folder in move.secrets.values() for path in Path(folder).iterdir()]
    found = [path.read_text() for path in files if path.name not in ("username", "ca.crt", "accessKeyId")]
    assert found
    return found


def hold_what_must(move: Tasks) -> None:
    logs = {kind: move.log(kind) for kind in STEPS}
    whole = "\n".join(logs.values())
    assert ROW not in whole
    assert [value for value in secrets(move) if value in whole] == []
    assert "Authorization" not in whole


def _mysql(move: Move, mysql: MySQLServer, database: str) -> None:
    def execute(*statements: str) -> None:
        with mysql.connect(database) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    execute("CREATE TABLE t (id INT PRIMARY KEY, v TEXT)", f"INSERT INTO t VALUES (1, '{ROW}1'), (2, '{ROW}2')")
    lived(
        move,
        lambda: execute(f"INSERT INTO t VALUES (3, '{ROW}3')", f"UPDATE t SET v = '{ROW}4' WHERE id = 1"),
        lambda: move.differences([f"{database}.t"]) == [],
    )


def _items(move: ItemMove) -> str:
    table, client = move.table("orders"), client_of(move.origin)

    def put(*numbers: int) -> None:
        for number in numbers:
            item: dict[str, Any] = {"pk": {"S": f"k{number}"}, "sk": {"N": "1"}, "v": {"S": f"{ROW}{number}"}}
            client.put_item(TableName=table, Item=item)

    put(1, 2)
    lived(move, lambda: put(3), lambda: move.differences(table) == [])
    return table


@pytest.mark.parametrize("form", ["json", "plain"])
@pytest.mark.parametrize("pair", ["dsql_move", "moving"])
def test_each_line_says_whose_it_is_and_none_a_secret(
    pair: str, form: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHIMBREL_LOG_FORMAT", form)
    monkeypatch.setenv("WHIMBREL_LOG_LEVEL", "DEBUG")
    move = request.getfixturevalue(pair)
    if isinstance(move, ItemMove):
        _items(move)
    else:
        _mysql(move, request.getfixturevalue("mysql"), request.getfixturevalue("mysql_database"))
    hold_what_must(move)
    for kind in STEPS:
        lines = move.log(kind).splitlines()
        assert lines
        (_json if form == "json" else _plain)(move.migration, kind, lines)


def _json(migration: str, kind: str, lines: list[str]) -> None:
    told = [json.loads(line) for line in lines]
    assert {(each["migration"], each["task"], each["index"]) for each in told} == {(migration, kind, 0)}
    assert {list(each)[-1] for each in told} == {"message"}
    if kind not in ("preflight", "schema"):
        assert told[-1]["epoch"] >= 1, told[-1]
    assert (told[0]["message"], told[-1]["message"]) == ("begins", "done")
    steps = [each for each in told if each["level"] != "debug"]
    assert len(steps) <= MOST, steps
    assert [each for each in steps if each["level"] in ("warning", "error")] == []


def _plain(migration: str, kind: str, lines: list[str]) -> None:
    head = re.compile(rf"^[\d-]+ [\d:,]+ (DEBUG|INFO) \[{migration} {kind}-0( epoch \d+)?( [\w.-]+)?\] [\w-]+ [\w.]+: ")
    assert [line for line in lines if not head.match(line)] == []
