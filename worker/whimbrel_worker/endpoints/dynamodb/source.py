"""A DynamoDB service as the engine sees it: its parts over one client. Calls and judgements stand in them."""

import contextlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from whimbrel_api.migration import Mode, NewTables, TtlDeletes
from whimbrel_api.reports import TableAssessment
from whimbrel_api.tasks import TaskFile, TaskKind
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused, RightMissing
from whimbrel_worker.endpoints.dynamodb.calls.pace import Units
from whimbrel_worker.endpoints.dynamodb.items.scan import ScanReader
from whimbrel_worker.endpoints.dynamodb.kinesis.log import KinesisLog
from whimbrel_worker.endpoints.dynamodb.kinesis.streams import KinesisStreams
from whimbrel_worker.endpoints.dynamodb.logs import Logs
from whimbrel_worker.endpoints.dynamodb.preflight.checks import Trials, check, refused
from whimbrel_worker.endpoints.dynamodb.preflight.estimate import (
    STREAM_KEPT_SECONDS,
    assess,
    limits_of,
    too_long,
    total_seconds,
)
from whimbrel_worker.endpoints.dynamodb.preflight.kinesis import KinesisLook, look
from whimbrel_worker.endpoints.dynamodb.streams.shards import ShardLog
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import (
    NOT_FOUND,
    Catalogue,
    describe,
    each,
    read_catalogue,
    table_names,
)
from whimbrel_worker.endpoints.dynamodb.tables.definition import Described
from whimbrel_worker.endpoints.dynamodb.tables.discover import discover, selected
from whimbrel_worker.engine.ports import ChangeLog, Problem
from whimbrel_worker.engine.shard_ports import BEGINNING, Page, Shard, ShardRow, ShardState, ShardStore
from whimbrel_worker.errors import ConfigurationError, SourceLogLost, WorkerError
from whimbrel_worker.values import moments
from whimbrel_worker.values.behaviour import Behaviour
from whimbrel_worker.values.columns import Table

_log = logging.getLogger(__name__)

_ACCOUNT: Final = re.compile(r"arn:[^:]+:dynamodb:[^:]+:[^:]+")
"""A table's ARN as far as the account (Service Authorization Reference, "Resource types defined by DynamoDB")."""


class DynamoDBSource:
    """Implements shard_ports.ShardedSource. `store` gives the shards in the control table; None where there is none."""

    def __init__(
        self, client: Client, behaviour: Behaviour, file: TaskFile, store: Callable[[], ShardStore] | None
    ) -> None:
        self.client, self.behaviour = client, behaviour
        self._file, self._store = file, store
        self._logs = _logs(client, file)
        self._known: dict[str, Described] = {}
        self._looked: Catalogue | None = None
        self._assessed: list[Described] = []
        self._identity = ""
        self._rate = self._read_rate()
        self._units = Units(self._rate)

    # --- what it is ---

    def identity(self) -> str:
        """Account and region by a table's ARN, such as arn:aws:dynamodb:us-east-1:000000000000; else the endpoint."""
        if not self._identity:
            self._identity = self._identify()
        return self._identity

    def version(self) -> str:
        """The service and its region."""
        return f"DynamoDB {self._region}"

    def clock(self) -> float:
        """The service's clock now, in seconds since 1970."""
        return self.client.clock()

    # --- before ---

    def check(self) -> list[Problem]:
        """Permissions, streams and the time that the copy takes. The look at the tables is kept for `discover`."""
        self._looked = self._look()
        trials = Trials(self.client, self._logs.own.streams, self.behaviour, self._file, self._logs.by_kinesis)
        kinesis = self._look_at_kinesis(trials, self._looked.tables)
        seconds = total_seconds(self._looked.tables, limits_of(self._file))
        long = list(too_long(self._looked.tables, self._file, self._kept(kinesis, self._looked.tables)))
        if long and self._has_begun():
            long = [replace(problem, fatal=False, todo="nothing now: the copy has begun") for problem in long]
        return [*check(trials, self._looked.tables), *kinesis.judged(seconds), *long]

    def _look_at_kinesis(self, trials: Trials, tables: Sequence[Described]) -> KinesisLook:
        follows = self._file.mode is Mode.SNAPSHOT_AND_STREAM
        return look(self._logs.kinesis, trials, tables if follows else ())

    def _kept(self, kinesis: KinesisLook, tables: Sequence[Described]) -> float:
        """For how many seconds the streams of all tables keep a change."""
        only_kinesis = all(self._logs.by_kinesis(table.name) for table in tables)
        longest = STREAM_KEPT_SECONDS if kinesis.kept is None else kinesis.kept
        return longest if only_kinesis else min(longest, STREAM_KEPT_SECONDS)

    def discover(self) -> tuple[list[Table], list[Problem]]:
        """The wanted tables that can be carried, and all problems."""
        found, self._looked = self._looked or self._look(), None
        tables, problems = discover(found.tables, self._file.tables, self._file.mode)
        return tables, [*problems, *refused(found.refusals)]

    def table_names(self) -> list[str]:
        """The wanted tables that are there now, whether they can be carried or not."""
        return selected(list(table_names(self.client, self.behaviour.table_page_limit)), self._file.tables)

    def assessment(self) -> list[TableAssessment]:
        """The largest tables with what they are like, as last seen."""
        if not self._assessed:
            self._looked = self._look()
        return assess(self._assessed, limits_of(self._file), self._logs.kinesis.streams.named)

    def _has_begun(self) -> bool:
        """Whether an earlier run has kept where the shards stood: what it began is not refused for its length."""
        try:
            return self._store is not None and bool(self._store().all())
        except Refused as refusal:
            if refusal.code != NOT_FOUND:
                raise
            return False

    def _look(self) -> Catalogue:
        found = read_catalogue(self.client, self.table_names(), self._known if self._wants_details() else None)
        if self._wants_details():
            self._known = {described.identifier: described for described in found.tables}
        for name in found.gone:
            _log.warning("table %s was deleted while the tables were looked at", name, extra={"table": name})
        self._assessed = found.tables
        return found

    def _wants_details(self) -> bool:
        """Whether this task makes tables, or tells of them: only it needs time to live and tags."""
        makes = (TaskKind.PREFLIGHT, TaskKind.SCHEMA, TaskKind.FENCE)
        adds = self._file.task is TaskKind.STREAM and self._file.stream.new_tables is NewTables.ADD
        return self._file.task in makes or adds

    # --- positions ---

    def position(self) -> str:
        """Now: everything that was created before."""
        return moments.moment_text(self.clock())

    def covers(self, position: str, other: str) -> bool:
        """Whether `position` is not before `other`."""
        return moments.covers(position, other)

    def least(self, positions: Sequence[str]) -> str:
        """The earliest of these moments."""
        return moments.least(positions)

    def check_log(self, since: str) -> None:
        """Raise SourceLogLost unless the streams still have all that is not read yet.

        The control table's shards say what that is; `since` counts where there are none yet. A table that was deleted
        has no log to lose; whoever reads it stops it alone. With a spool, records may lie on its volume, where only the
        stream's workers can look: they find what is missing.
        """
        rows = self._store().all() if self._store is not None else []
        unfinished = [row for row in self._wanted(rows) if row.state is not ShardState.DONE]
        streams = sorted({(row.ref.table, row.ref.stream) for row in unfinished})
        there = {
            stream
            for stream, known in zip(streams, each(lambda known: self._logs.has_stream(*known), streams), strict=True)
            if known
        }
        unfinished = [row for row in unfinished if (row.ref.table, row.ref.stream) in there]
        if self._file.stream.spool is not None:
            return
        each(self._logs.verify, [row for row in unfinished if not self._is_young(row)])
        if not rows:
            self._require_young(since)
        self._warn_of_age(unfinished)

    def _wanted(self, rows: Sequence[ShardRow]) -> list[ShardRow]:
        names = set(selected([row.ref.table for row in rows], self._file.tables))
        return [row for row in rows if row.ref.table in names]

    def _is_young(self, row: ShardRow) -> bool:
        """Whether a copy need not ask for this shard yet: a stream keeps what is younger than a day.

        A copier asks every half minute, for which DynamoDB lists too few streams a second; whoever reads the shard, or
        looks before a start, asks in any case.
        """
        age = self.clock() - row.skip_before
        kept = row.position == BEGINNING and age < self._logs.kept(row.ref) * self._file.stream.retention_guard
        return kept and self._file.task is TaskKind.SNAPSHOT

    def _require_young(self, since: str) -> None:
        if since and self.clock() - moments.seconds_of(since) > STREAM_KEPT_SECONDS:
            raise SourceLogLost(
                "the streams no longer hold all changes since the copy began",
                where=self.client.where,
                why=f"it began at {since}, no shard's position is kept, and streams keep changes for 24 hours",
                todo="empty the target's tables and begin a new migration",
            )

    def _warn_of_age(self, rows: Sequence[ShardRow]) -> None:
        now, guard = self.clock(), self._file.stream.retention_guard
        proven = {row.ref: row.read_to or row.skip_before for row in rows}
        old = {ref: at for ref, at in proven.items() if at and now - at > guard * self._logs.kept(ref)}
        if old:
            oldest = min(old, key=lambda ref: old[ref])
            _log.warning(
                "%d shards are close to the time that streams keep; table %s shard %s: nothing after %s is proven "
                "to be in the target", len(old), oldest.table, oldest.shard, moments.moment_text(old[oldest]),
            )  # fmt: skip

    def retention(self) -> float | None:
        """For how long the shortest of the change logs keeps a record.

        DynamoDB Streams: 24 hours (Amazon DynamoDB Developer Guide, "DynamoDB Streams"); Kinesis says it itself.
        """
        if self._store is None or not self._logs.kinesis.streams.wanted:
            return STREAM_KEPT_SECONDS
        rows = self._wanted(self._store().all())
        return min((self._logs.kept(row.ref) for row in rows), default=STREAM_KEPT_SECONDS)

    # --- reading ---

    @contextlib.contextmanager
    def reader(self) -> Iterator[ScanReader]:
        """Reads items; connections are the client's."""
        yield ScanReader(self.client, self.behaviour, self._file.tables, self._rate, self._units)

    def changes(self, since: str, tables: Sequence[Table]) -> ChangeLog:
        """There is no single log; shards are read by `read`."""
        raise WorkerError(
            "DynamoDB has no single change log to read",
            where=self.client.where,
            why=f"its changes after {since} lie in the shards of {len(tables)} streams",
            todo="report this: the task should have read shards",
        )

    def moment(self, at: float) -> str:
        """The position "everything created before this moment"; seconds since 1970, source clock."""
        return moments.moment_text(at)

    def prepare_streams(self, tables: Sequence[Table], before: Callable[[Sequence[str]], None]) -> list[str]:
        """Enable streams where they are missing, wait until they are active. Returns the tables that had none."""
        names = [table.source_name for table in tables]
        if lacking := self._logs.lacking(names):
            before(lacking)
        return self._logs.enable(names)

    def enabled_streams(self, tables: Sequence[str]) -> dict[str, str]:
        """The ARN of the stream of each of these tables that has one now."""
        described = zip(tables, each(lambda name: describe(self.client, name), tables), strict=True)
        return {name: found.stream for name, found in described if found is not None and found.stream}

    def restore_streams(self, tables: Sequence[str]) -> None:
        """Disable the streams of these tables again."""
        self._logs.disable(tables)

    def capture(self, tables: Sequence[Table]) -> list[ShardRow]:
        """All shards of the tables' streams with positions not after this moment; before the first read."""
        return self._logs.capture(tables)

    def shards(self, table: Table) -> list[Shard]:
        """The shards of the table's stream now. Raises SourceLogLost when there is no stream any more."""
        return self._logs.shards(table)

    def read(self, table: Table, row: ShardRow) -> Iterator[Page]:
        """Pages after the row's position, one a request, for ever until `ended`; renews what expires."""
        return self._logs.read(table, row)

    # --- parts ---

    @property
    def _region(self) -> str:
        return self._file.source.dynamodb.region if self._file.source.dynamodb else ""

    def _read_rate(self) -> float | None:
        """This worker's share of the read units a second."""
        limit = self._file.snapshot.capacity_limit
        units = limit.read_units_per_second if limit else None
        return units / max(1, self._file.workers) if units else None

    def _identify(self) -> str:
        refusal: RightMissing | None = None
        if not self.behaviour.arns:
            return self._host()
        for name in self.table_names():
            try:
                described = describe(self.client, name)
            except RightMissing as failure:
                refusal = refusal or failure
                continue
            if described is not None:
                account = _ACCOUNT.match(str(described.description.get("TableArn", "")))
                return account[0] if account else self._host()
        raise refusal or ConfigurationError(
            "the source has no table to move",
            where=self.client.where,
            why="ListTables shows none that tables.include and tables.exclude select",
            todo="check the region, the account and the patterns",
        )

    def _host(self) -> str:
        endpoint = self._file.source.dynamodb.endpoint if self._file.source.dynamodb else None
        return urlsplit(endpoint).netloc if endpoint else self._region


def _logs(client: Client, file: TaskFile) -> Logs:
    """The change logs that the manifest names."""
    wanted = file.source.dynamodb.kinesis_streams if file.source.dynamodb else []
    streams = KinesisStreams(client, client.kinesis(), wanted)
    keep_ttl = file.stream.ttl_deletes is not TtlDeletes.SKIP
    return Logs(ShardLog(client, client.streams()), KinesisLog(streams, keep_ttl))
