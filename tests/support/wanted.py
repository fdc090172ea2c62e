"""Wanted tasks of a MySQL → Aurora DSQL migration with TLS, as the builders take them."""

from collections.abc import Sequence
from dataclasses import replace

from whimbrel_api.base import SecretKeyRef, SecretRef, Tls
from whimbrel_api.endpoints import (
    AuroraDSQLTarget,
    Dialect,
    DynamoDBTarget,
    MySQLSource,
    PolarDBSource,
    Source,
    Target,
)
from whimbrel_api.layout import Layout
from whimbrel_api.migration import RateLimit, Snapshot, Tables
from whimbrel_api.tasks import CheckOptions, FenceOptions, Orders, ReverseOptions, TaskKind
from whimbrel_operator.domain.decision import WantedTask, Work
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.specs.names import Owner
from whimbrel_operator.specs.settings import PodSettings

OWNER = Owner("Migration", "shop-prod", "shop", "5f0c6c3e-53f0-4f2b-9d0e-6a2b6f1c7d01")
SETTINGS = PodSettings(image="registry.example/whimbrel:0.1.0")


def work(owner: Owner = OWNER) -> Work:
    """All ends with Secrets: two for credentials, one authority for both servers."""
    tls = Tls(ca_secret_ref=SecretKeyRef(name="shop-ca"))
    mysql = MySQLSource(host="mysql.shop.svc", credentials_secret_ref=SecretRef(name="mysql.source"), tls=tls)
    dsql = AuroraDSQLTarget(
        endpoint="abc.dsql.us-east-1.on.aws",
        region="us-east-1",
        credentials_secret_ref=SecretRef(name="dsql-target"),
        tls=tls,
    )
    return Work(
        migration=f"{owner.namespace}/{owner.name}",
        source=Source(mysql=mysql),
        target=Target(auroraDSQL=dsql),
        tables=Tables(include=["shop.*"], exclude=["shop.tmp_*"]),
        snapshot=Snapshot(workers=3, rate_limit=RateLimit(rows_per_second=20000)),
    )


def work_back(owner: Owner = OWNER) -> Work:
    """The way back from PolarDB to DynamoDB."""
    polardb = PolarDBSource(host="pc-xyz.shop.svc", credentials_secret_ref=SecretRef(name="polardb"))
    items = DynamoDBTarget(
        dialect=Dialect.AWS, region="us-east-1", credentials_secret_ref=SecretRef(name="dynamodb-source")
    )
    return Work(
        migration=f"{owner.namespace}/{owner.name}",
        source=Source(polardb=polardb),
        target=Target(dynamodb=items),
        tables=Tables(include=["orders"]),
    )


def instances(task: WantedTask, count: int) -> tuple[WantedTask, ...]:
    """That many instances of a task."""
    refs = [TaskRef(task.ref.task_id, index) for index in range(count)]
    return tuple(replace(task, ref=ref, workers=count) for ref in refs)


def usual(owner: Owner = OWNER) -> dict[str, Sequence[WantedTask]]:
    """The tasks of the golden files, by name."""
    told = work(owner)

    def one(kind: TaskKind, task_id: str = "") -> WantedTask:
        return WantedTask(kind, TaskRef(task_id or kind.value), told, epoch=7, generation=3)

    options = ReverseOptions(owner=f"{owner.namespace}/{owner.name}/{owner.uid}", layout=Layout(document_column="doc"))
    final = CheckOptions(since="p1", through="p2")
    return {
        "preflight": [one(TaskKind.PREFLIGHT)],
        "snapshot": instances(replace(one(TaskKind.SNAPSHOT), orders=Orders(rows_per_second=20000)), 3),
        "stream": [replace(one(TaskKind.STREAM), again=True, orders=Orders(drain_to="uuid:1-77"))],
        "check": instances(replace(one(TaskKind.CHECK, "check-19c0ffee00"), check=final), 2),
        "reverse": [
            replace(one(TaskKind.REVERSE), work=work_back(owner), again=True, reverse=options, orders=Orders(hold=True))
        ],
        "fence": [replace(one(TaskKind.FENCE, "fence-switched"), fence=FenceOptions(detail="uuid:1-77"))],
    }
