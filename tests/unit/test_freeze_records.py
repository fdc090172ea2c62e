"""What a second look at the shards tells of writes after the freeze: in which tables, and how many."""

import random
from dataclasses import replace

from support.memory_shards import MemorySource, MemoryStore
from whimbrel_worker.engine.shard_ports import Holder
from whimbrel_worker.engine.shards.stillness import Stillness


def look(source: MemorySource, store: MemoryStore) -> dict[str, int]:
    now = [0.0]

    def wait(seconds: float) -> None:
        now[0] += max(seconds, 0.05)

    tables = {table.name: table for table in source.tables}
    stillness = Stillness(source, store, tables, wait, lambda: now[0])  # type: ignore[arg-type]
    stillness.until_quiet(1.0, lambda _: None)
    return stillness.records()


def test_records_after_what_the_stream_has_applied_are_counted_by_table() -> None:
    source, store = MemorySource(random.Random(1), ["a", "b", "c"], page=2), MemoryStore()
    store.add(source.capture(source.tables))
    for table in ("a", "b"):
        source.write(table, "k1")
    for live in (live for lives in source.lives.values() for live in lives if live.records):
        row = store.rows[live.ref]
        store.claim(row, Holder(0, 1))
        store.commit(replace(row, position=live.records[-1].sequence), Holder(0, 1))
    assert look(source, store) == {}
    for key in ("k1", "k2", "k3"):
        source.write("b", key)
    source.write("c", "k1")
    assert look(source, store) == {"b": 3, "c": 1}
