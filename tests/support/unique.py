"""Brings a copy to where unique indexes may be made, and makes them, as the operator's phases do."""

from __future__ import annotations

from collections.abc import Sequence

from support.streams import Lab, WorkerProcess
from whimbrel_api.tasks import SchemaStage, TaskKind


def follow_with_indexes(lab: Lab, tables: Sequence[str]) -> WorkerProcess:
    """Snapshot, stream, drain, indexes: the stream that goes on then."""
    copier = lab.snapshot()
    assert copier.ended() == 0, copier.log()
    worker = lab.stream(checkpoint="60s")
    lab.drain(worker)
    builder = lab.start(lab.file(TaskKind.SCHEMA, schema_stage=SchemaStage.INDEXES))
    assert builder.ended() == 0, builder.log()
    for table in tables:
        where = f"schemaname = '{lab.database}' AND tablename = '{table}'"
        found = lab.look(f"SELECT count(*) FROM pg_indexes WHERE {where}")
        assert found[0][0] > 1, f"{table} has its secondary indexes"
    return worker
