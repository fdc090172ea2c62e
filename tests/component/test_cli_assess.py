"""`whimbrel assess` with real endpoints: what it shows of the tables, what is in the way, and that it makes nothing."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from support.item_moves import ItemMove, fill
from whimbrel_cli.exits import Exit
from whimbrel_cli.main import invoke
from whimbrel_testbed.dynamodb.client import delete_tables
from whimbrel_testbed.dynamodb.compare import Endpoint, client_of

ITEMS = 40
UNITS = {"ReadCapacityUnits": 7, "WriteCapacityUnits": 9}
CONTROL = "whimbrel-control"
WRONG = "n0t-the-secret"


@dataclass
class Assessed:
    """A move with one table of items, and what both ends looked like before anybody assessed it."""

    move: ItemMove
    table: str
    capsys: pytest.CaptureFixture[str]

    def __post_init__(self) -> None:
        self.before = self.ends()

    def ends(self) -> list[dict[str, dict[str, Any]]]:
        """The tables of each end with what matters of their descriptions: this test's, and the control table."""
        return [self._tables(end) for end in (self.move.origin, self.move.goal)]

    def _tables(self, end: Endpoint) -> dict[str, dict[str, Any]]:
        client = client_of(end)
        names = [name for page in client.get_paginator("list_tables").paginate() for name in page["TableNames"]]
        kept = [name for name in names if name.startswith((self.move.prefix, CONTROL))]
        described = {name: client.describe_table(TableName=name)["Table"] for name in kept}
        return {
            name: {key: table.get(key) for key in ("TableStatus", "CreationDateTime", "ItemCount", "LatestStreamArn")}
            for name, table in described.items()
        }

    def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output; both ends must be as they were."""
        file = self.move.directory / "items.yaml"
        file.write_text(self._manifest())
        code = invoke(["assess", str(file), "--secrets", str(self.move.directory), *arguments])
        assert self.ends() == self.before, "assess made something"
        shown = self.capsys.readouterr()
        return code, shown.out + shown.err

    def _manifest(self) -> str:
        spec = {"source": self.move.source(), "target": self.move.target, "tables": self.move.tables}
        migration = {"apiVersion": "whimbrel.dev/v1alpha1", "kind": "Migration", "metadata": {"name": "items"}}
        return yaml.safe_dump(migration | {"spec": spec})


@pytest.fixture
def assessed(moving: ItemMove, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Assessed:
    monkeypatch.setenv("COLUMNS", "200")
    delete_tables(client_of(moving.goal), CONTROL)
    table = moving.table("orders", BillingMode="PROVISIONED", ProvisionedThroughput=UNITS)
    fill(moving.origin, table, range(ITEMS))
    return Assessed(moving, table, capsys)


def test_the_tables_are_shown_and_nothing_is_made(assessed: Assessed) -> None:
    code, output = assessed.run()
    assert code == Exit.DONE, output
    (line,) = [line.split() for line in output.splitlines() if line.startswith(assessed.table)]
    assert line[1] == str(ITEMS)
    assert {"(S),", "(N)", "PROVISIONED", "7/9", "disabled"} <= set(line)
    assert f"dynamodb {assessed.move.origin.endpoint} → PolarDB {assessed.move.goal.endpoint}" in output
    assert "warning: streams are disabled" in output
    assert "Nothing stands in the way." in output
    assert assessed.ends()[1] == {}, "a table was made at the target"


def test_json_tells_the_same_and_nothing_is_made(assessed: Assessed) -> None:
    code, output = assessed.run("-o", "json")
    assert code == Exit.DONE, output
    (found,) = json.loads(output)
    (table,) = found["assessment"]
    assert (found["name"], found["namespace"], found["problem"]) == ("items", "default", None)
    assert [(each["name"], each["rowsTotal"]) for each in found["tables"]] == [(assessed.table, ITEMS)]
    assert (table["name"], table["items"], table["key"]) == (assessed.table, ITEMS, ["pk (S)", "sk (N)"])
    assert (table["billingMode"], table["readUnits"], table["writeUnits"]) == ("PROVISIONED", 7, 9)
    assert (table["stream"], table["ttlAttribute"], table["indexes"]) == ("disabled", "", [])
    assert table["sizeBytes"] > ITEMS
    (warning,) = found["warnings"]
    assert "streams are disabled" in warning
    assert assessed.ends()[1] == {}, "a table was made at the target"


def test_keys_that_are_not_accepted_are_in_the_way(assessed: Assessed) -> None:
    assessed.move.secret("target", secretAccessKey=WRONG)
    code, output = assessed.run()
    assert code == Exit.STALLED, output
    assert "in the way: the service does not accept the keys" in output
    assert "correct accessKeyId and secretAccessKey in Secret target" in output
    assert assessed.table in output, "the source is looked at all the same"
    assert "Nothing stands in the way" not in output
    assert WRONG not in output
    assert assessed.ends()[1] == {}, "a table was made at the target"


def test_json_tells_of_keys_that_are_not_accepted(assessed: Assessed) -> None:
    assessed.move.secret("target", secretAccessKey=WRONG)
    code, output = assessed.run("-o", "json")
    assert code == Exit.STALLED, output
    (found,) = json.loads(output)
    assert found["problem"]["category"] == "ConfigurationError"
    assert "the service does not accept the keys" in found["problem"]["what"]
    assert [table["name"] for table in found["assessment"]] == [assessed.table]
    assert WRONG not in output
    assert assessed.ends()[1] == {}, "a table was made at the target"
