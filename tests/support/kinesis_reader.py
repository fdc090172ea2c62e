"""A reader of Kinesis shards in memory, as workers follow them. What it must end with, tests say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from support.memory_kinesis import World
from whimbrel_worker.endpoints.dynamodb.kinesis.log import KinesisLog
from whimbrel_worker.engine.ports import Delete
from whimbrel_worker.engine.shard_ports import Page, ShardRef, ShardRow
from whimbrel_worker.engine.shards.batch import writes_of
from whimbrel_worker.engine.shards.lag import EmptyRun, advanced
from whimbrel_worker.engine.shards.lineage import inherited, is_open, newcomers, parents_of, readable
from whimbrel_worker.values.columns import Row


@dataclass
class Reader:
    """Follows a world's stream as workers do: rows that are committed, pages that may be lost on the way."""

    world: World
    log: KinesisLog = field(init=False)
    rows: dict[ShardRef, ShardRow] = field(default_factory=dict)
    items: dict[str, dict[Row, Row]] = field(init=False)
    pages: dict[ShardRef, Iterator[Page]] = field(default_factory=dict)
    runs: dict[ShardRef, EmptyRun] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = self.world.log()
        tables = list(self.world.tables.values())
        self.rows = self.rows or {row.ref: row for row in self.log.capture(tables)}
        self.items = {
            name: {key: (*key, item) for key, item in items.items()} for name, items in self.world.items.items()
        }

    def ready(self) -> list[ShardRow]:
        return readable(self.rows.values())

    def list(self) -> None:
        for name, table in self.world.tables.items():
            rows = [row for row in self.rows.values() if row.ref.table == name]
            for generation in newcomers(name, rows, self.log.shards(table)):
                self.rows |= {row.ref: row for row in generation}

    def step(self, ref: ShardRef, *, crash: str = "") -> Page:
        """One page; `crash` ends the reader before the writing, or before the commit."""
        row = self.rows[ref]
        assert all(not is_open(parent) for parent in parents_of(row, self.rows))
        table = self.world.tables[ref.table]
        if ref not in self.pages:
            row = replace(row, read_to=max(row.read_to, inherited(row, self.rows)))
            self.pages[ref] = self.log.read(table, row)
        page = next(self.pages[ref])
        if crash != "before writing":
            self.write(ref.table, page, row)
        if crash:
            del self.pages[ref]
            return page
        self.rows[ref], self.runs[ref] = advanced(row, page, self.runs.get(ref, EmptyRun()), len(page.changes))
        return page

    def write(self, name: str, page: Page, row: ShardRow) -> None:
        batch = writes_of(self.world.tables[name], page.changes, skip_before=row.skip_before, keep_ttl=True)
        for write in batch.writes:
            if isinstance(write, Delete):
                for key in write.keys:
                    self.items[name].pop(tuple(key), None)
            else:
                self.items[name] |= {tuple(write.table.key_of(each)): each for each in write.rows}

    def finish(self) -> None:
        """Read all there is."""
        for _ in range(1000):
            self.list()
            pages = [self.step(row.ref) for row in self.ready()]
            if not any(page.changes or page.behind or page.ended for page in pages):
                return
        raise AssertionError("the stream never came to its end")

    def agrees(self) -> bool:
        return all(
            {key: row[1] for key, row in self.items[name].items()} == items for name, items in self.world.items.items()
        )

    def only(self, table: str = "t") -> ShardRow:
        (row,) = [row for row in self.rows.values() if row.ref.table == table]
        return row


def written(world: World, *keys: str) -> None:
    for key in keys:
        world.write("t", key)


def first_of(world: World) -> str:
    """An iterator at the beginning of the first shard."""
    shard = world.kinesis.ask("ListShards", {"StreamARN": world.arn})["Shards"][0]["ShardId"]
    place = {"StreamARN": world.arn, "ShardId": shard, "ShardIteratorType": "TRIM_HORIZON"}
    return str(world.kinesis.ask("GetShardIterator", place)["ShardIterator"])
