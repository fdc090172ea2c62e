"""A Migration of items with a way back on a real cluster: what tests look at on the API server and on both servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import kubernetes
import psycopg

from support.cluster_run import NAME, WAIT_SECONDS, MigrationRun
from support.item_moves import ItemMove
from support.patience import eventually
from whimbrel_api.base import GROUP, VERSION
from whimbrel_api.cutover import CutoverState
from whimbrel_api.migration import MigrationStatus
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_operator.domain.conditions import find
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster
from whimbrel_testbed.polardb.server import PolarDBServer

CUTOVER_SECONDS = 300.0
"""For whatever holds a dozen pods, one after the other, on a machine that is busy."""
GATES = {"lag": "30s", "samples": 1}


class WayBackRun(MigrationRun):
    """One Migration `shop` that leaves a way back, and its ReverseSync once that is there."""

    def __init__(
        self, cluster: KubernetesCluster, namespace: str, move: ItemMove, polardb: PolarDBServer, **spec: Any
    ) -> None:
        access = polardb.postgres
        move.secret("polardb", username=access.user, password=access.password)
        server = {
            "host": access.host, "port": access.port, "database": access.database,
            "credentialsSecretRef": {"name": "polardb"}, "tls": {"mode": "Disabled"},
        }  # fmt: skip
        back = {"enabled": True, "polardb": server}
        super().__init__(cluster, namespace, move, reverseSync=back, thresholds=GATES, **spec)
        self.items_move, self.server = move, polardb

    def back_object(self) -> dict[str, Any] | None:
        """The ReverseSync of the Migration's name as the API server has it; None where there is none."""
        try:
            told = (GROUP, VERSION, self.namespace, "reversesyncs", NAME)
            return cast(dict[str, Any], self._api.get_namespaced_custom_object(*told))
        except kubernetes.client.ApiException as error:
            if error.status != 404:
                raise
            return None

    def back(self) -> ReverseSync | None:
        """The same, read."""
        found = self.back_object()
        return ReverseSync.model_validate(found) if found is not None else None

    def ready(self) -> tuple[str, str, str]:
        """`RollbackReady`: its status, reason and message."""
        return self.said("RollbackReady")

    def said(self, kind: str) -> tuple[str, str, str]:
        """A condition of the Migration; empty before it is there."""
        found = find(self.status().conditions, kind)
        return (found.status, found.reason, found.message) if found is not None else ("", "", "")

    def until_ready(self) -> None:
        eventually(lambda: self.ready()[0] == "True", self.told, seconds=WAIT_SECONDS)

    def until_state(self, state: CutoverState) -> MigrationStatus:
        return self.until(lambda status: status.cutover.state is state, CUTOVER_SECONDS)

    def until_said(self, kind: str, status: str, reason: str) -> str:
        """Wait until a condition of the Migration says so; its message."""
        eventually(lambda: self.said(kind)[:2] == (status, reason), self.told, seconds=CUTOVER_SECONDS)
        return self.said(kind)[2]

    def until_back(self, holds: Callable[[ReverseSync], bool], seconds: float = WAIT_SECONDS) -> ReverseSync:
        """Wait for a ReverseSync that is so."""

        def look() -> ReverseSync | None:
            found = self.back()
            return found if found is not None and holds(found) else None

        found: ReverseSync = eventually(look, self.told, seconds=seconds)
        return found

    def until_it_is_gone(self) -> None:
        """The Migration, and all that was ever made for it and its way back, on the cluster and on the server."""
        eventually(lambda: not self.items("migrations"), self.story, seconds=CUTOVER_SECONDS)
        self.until_nothing_is_left(CUTOVER_SECONDS)
        self.until_server_is_clean()

    def roll_back(self, asked: bool = True) -> None:
        self.patch(cutover={"rollback": asked})

    def sql(self, statement: str) -> list[Any]:
        """The first column of what PolarDB's own server answers."""
        with self.server.backend.connect(self.server.postgres.database) as connection:
            cursor = connection.execute(statement.encode())
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    @contextmanager
    def nothing_arms(self) -> Iterator[None]:
        """No slot comes to be ready: it waits for the end of every transaction that was open before it."""
        with self.server.backend.connect(self.server.postgres.database) as connection:
            connection.autocommit = False
            connection.execute("SELECT pg_current_xact_id()")
            yield
            connection.rollback()

    def slots(self) -> list[str]:
        return self.sql("SELECT slot_name FROM pg_replication_slots")

    def publications(self) -> list[str]:
        return self.sql("SELECT pubname FROM pg_publication")

    def until_server_is_clean(self) -> None:
        eventually(lambda: (self.slots(), self.publications()) == ([], []), self.told, seconds=WAIT_SECONDS)

    def until_equal(self, *tables: str) -> None:
        """No traffic any more: both sides become the same, by a comparison that shares no code with the product."""
        eventually(lambda: self.items_move.differences(*tables) == [], self.told, seconds=WAIT_SECONDS)

    def told(self) -> object:
        found = self.back()
        if not self.items("migrations"):
            return f"{found}\n{self.story()}"
        return f"{self.status().phase} {self.status().cutover}\n{self.ready()}\n{found}\n{self.story()}"

    def left(self) -> list[str]:
        """As before, with ways back and their roles, without the operator's own account."""
        names = [f"ReverseSync {each['metadata']['name']}" for each in self.items("reversesyncs")]
        return names + [each for each in super().left() if not each.endswith(" whimbrel-operator")]

    def clean_server(self) -> None:
        """Take away what a test that failed has left on PolarDB's server."""
        self.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active")
        for slot in self.slots():
            with suppress(psycopg.errors.ObjectInUse):
                self.sql(f"SELECT pg_drop_replication_slot('{slot}')")
        for name in self.publications():
            self.sql(f'DROP PUBLICATION IF EXISTS "{name}"')


def awaiting(status: MigrationStatus) -> bool:
    return status.cutover.state is CutoverState.AWAITING_APPROVAL
