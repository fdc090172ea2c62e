"""An item migration deleted on its way on a real cluster: the streams that it enabled are off before it goes."""

from collections.abc import Iterator

import pytest

from support.cluster_run import NAME, MigrationRun
from support.item_moves import ItemMove, fill
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_testbed.dynamodb.compare import client_of
from whimbrel_testbed.kubernetes.cluster import KubernetesCluster

pytestmark = [pytest.mark.timeout(240), pytest.mark.slow]
SLOW_COPY = {"workers": 2, "chunkRows": 100, "rateLimit": {"rowsPerSecond": 20}}
STREAM = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}


@pytest.fixture
def run(cluster: KubernetesCluster, namespace: str, moving: ItemMove) -> Iterator[MigrationRun]:
    """A Migration that is not applied yet."""
    if not cluster.pids:
        pytest.skip("the pods of a cluster that the tests did not start are no processes of this machine")
    made = MigrationRun(cluster, namespace, moving, snapshot=SLOW_COPY)
    yield made
    made.operator.stop()


def copying(status: MigrationStatus) -> bool:
    return status.phase is Phase.SNAPSHOT and status.snapshot.rows_copied > 0


def streaming(move: ItemMove, *tables: str) -> list[bool]:
    described = (client_of(move.origin).describe_table(TableName=table)["Table"] for table in tables)
    return [bool(each.get("StreamSpecification", {}).get("StreamEnabled", False)) for each in described]


def journal(move: ItemMove) -> list[str]:
    items = client_of(move.goal).scan(TableName="whimbrel-control")["Items"]
    return [str(item["step"]["S"]) for item in items if "step" in item]


@pytest.mark.parametrize("cascade", ["background", "foreground"])
def test_a_deletion_in_the_copy_puts_its_streams_back(run: MigrationRun, moving: ItemMove, cascade: str) -> None:
    """In the foreground the garbage collector wants to take away what the last worker is made of."""
    mine, theirs = moving.table("orders"), moving.table("kept", StreamSpecification=STREAM)
    fill(moving.origin, mine, range(300))
    with run.begun():
        run.until(copying)
        assert streaming(moving, mine, theirs) == [True, True]
        run.kubectl("delete", "migration", NAME, f"--cascade={cascade}", "--timeout=90s")
        assert streaming(moving, mine, theirs) == [False, True]
        assert "cancelled" in journal(moving)
        run.until_nothing_is_left()
