"""A DynamoDB target as the engine sees it: its parts over one client. Requests stand in them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from whimbrel_api.migration import Tables
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.calls.pace import Pace, Units
from whimbrel_worker.endpoints.dynamodb.control.control_rows import CONTROL_TABLE, ControlTable
from whimbrel_worker.endpoints.dynamodb.control.fence import Fence
from whimbrel_worker.endpoints.dynamodb.control.shard_store import DynamoDBShardStore
from whimbrel_worker.endpoints.dynamodb.control.store import DynamoDBControlStore
from whimbrel_worker.endpoints.dynamodb.items.reader import DynamoDBReader
from whimbrel_worker.endpoints.dynamodb.items.writer import BatchWriter
from whimbrel_worker.endpoints.dynamodb.session import ItemSession
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import read_catalogue, table_names
from whimbrel_worker.endpoints.dynamodb.tables.discover import item_table, selected
from whimbrel_worker.endpoints.dynamodb.tables.schema import DynamoDBSchema
from whimbrel_worker.engine.ports import Identity, Profile
from whimbrel_worker.engine.retry import Backoff, retrying
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.values.behaviour import Behaviour
from whimbrel_worker.values.columns import Table

_ITEMS_A_COMMIT: Final = 5_000
_BYTES_A_COMMIT: Final = 8 << 20
_MOST_AT_ONCE: Final = 16
"""Requests under way at once: more would only wait in a service that is busy."""
_ROUND_TRIPS: Final = 24 * 3600.0
_PROBING: Final = Backoff(attempts=5)
_TAKES_TRANSACTIONS: Final = frozenset({"TransactionCanceledException", "ResourceNotFoundException"})
"""What is answered by who knows the call: the check did not hold, or there is no control table yet."""


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """What the manifest says. `write_units_per_second` is this worker's share; `recreate` names target tables."""

    fenced_writes: bool = False
    recreate: frozenset[str] = frozenset()
    write_units_per_second: float | None = None


class DynamoDBTarget:
    """Implements engine.shard_ports.ShardedTarget; `epoch` is the one the operator gave this worker."""

    def __init__(
        self, client: Client, behaviour: Behaviour, options: TargetOptions, migration: str, epoch: int
    ) -> None:
        self.profile = profile_of(behaviour)
        self.tally = client.tally
        self._client, self._behaviour, self._options = client, behaviour, options
        self._migration, self._epoch = migration, epoch
        self._control = ControlTable(client, behaviour, migration)
        self._fence = Fence(self._control)
        self._writer: BatchWriter | None = None
        self._write_path: str | None = None

    def check_sign_in(self) -> str:
        """A signed call; what answers, for people. Raises ConfigurationError or Transient with what to do."""
        self._client.ask("ListTables", {"Limit": 1})
        return f"{self._behaviour.name}, {self._client.where}"

    def probe_write_path(self) -> str:
        """`batch`, or `transaction` where each write is to check the worker's row. Asked once.

        The control table need not be there yet. Raises ConfigurationError where transactions are wanted and the
        endpoint does not take them.
        """
        if self._write_path is None:
            self._write_path = self._probe()
        return self._write_path

    def control(self) -> DynamoDBControlStore:
        """The control table's rows."""
        return DynamoDBControlStore(self._control)

    def schema(self) -> DynamoDBSchema:
        """The tables."""
        return DynamoDBSchema(self._client, self._behaviour, self._control, self._options.recreate)

    def session(self, task: str, index: int, epoch: int | None = None) -> ItemSession:
        """A control row for a task's worker, and the writer that all sessions share.

        `epoch`: that of a migration which this worker has just registered; else the one the operator gave it.
        """
        identity, own = Identity(self._migration, task, index), self._epoch if epoch is None else epoch
        return ItemSession(self._control, self.writer(), self._fence, identity, epoch=own, tally=self.tally)

    def tables(self, wanted: Tables) -> list[Table]:
        """The tables that are here and selected, under their own names; ours are left out."""
        names = selected(list(table_names(self._client, self._behaviour.table_page_limit)), wanted)
        found = read_catalogue(self._client, names, None)
        if found.refusals.found:
            raise next(iter(found.refusals.found.values()))[0]
        return [item_table(described) for described in found.tables]

    @contextlib.contextmanager
    def reader(self) -> Iterator[DynamoDBReader]:
        """Reads; nothing is held open for it."""
        yield DynamoDBReader(self._client, self._behaviour)

    def shards(self, epoch: int | None = None) -> DynamoDBShardStore:
        """The shards in the control table; `epoch`: that of a migration which this worker has just registered."""
        return DynamoDBShardStore(self._control, self._epoch if epoch is None else epoch)

    def writer(self) -> BatchWriter:
        """Writes items; with fenced writes only while a session of this target holds its row."""
        if self._writer is None:
            fence = self._fence if self.probe_write_path() == "transaction" else None
            # Transactions that check one row at once would only make each other wait.
            pace = Pace(_MOST_AT_ONCE) if fence is None else Pace(1)
            units = Units(self._options.write_units_per_second)
            self._writer = BatchWriter(self._client, self._behaviour, pace, units, tally=self.tally, fence=fence)
        return self._writer

    def _probe(self) -> str:
        if not self._options.fenced_writes:
            return "batch"
        check = {"TableName": CONTROL_TABLE, "Key": self._control.key("probe")}
        check["ConditionExpression"] = "attribute_not_exists(entry)"
        try:
            # It writes nothing, so that a lost answer may simply be asked for again.
            request = {"TransactItems": [{"ConditionCheck": check}]}
            retrying(lambda: self._client.ask("TransactWriteItems", request), backoff=_PROBING)
        except Refused as refusal:
            if refusal.code not in _TAKES_TRANSACTIONS:
                raise ConfigurationError(
                    "the target takes no transactions, so writes cannot be fenced",
                    where=self._client.where,
                    why=refusal.what,
                    todo="set fencedWrites to false (spec.target.dynamodb, or spec.reverseSync for the way back); what "
                    "window remains stands in the document on this pair",
                ) from None
        return "transaction"


def profile_of(behaviour: Behaviour) -> Profile:
    """What such a target allows. There are no transactions to bound: these are what one commit speaks of."""
    return Profile(
        name=behaviour.name,
        rows_per_transaction=_ITEMS_A_COMMIT,
        bytes_per_transaction=_BYTES_A_COMMIT,
        connection_max_age=_ROUND_TRIPS,
        single_ddl=False,
    )
