"""Lives of migrations with a way back, in memory: the spec that asks for one, and what tests ask of such a life."""

from typing import Any

from support.life import Life
from whimbrel_api.base import SecretRef
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget, PolarDBSource, Source, Target
from whimbrel_api.migration import ReverseSyncPolicy
from whimbrel_api.tasks import TaskKind

POLARDB = PolarDBSource(host="pc-xyz", credentials_secret_ref=SecretRef(name="polardb"))
WITH_WAY_BACK: dict[str, Any] = {
    "source": Source(dynamodb=DynamoDBSource(region="us-east-1")),
    "target": Target(dynamodb=DynamoDBTarget(endpoint="http://pc:5432", credentials_secret_ref=SecretRef(name="dst"))),
    "reverse_sync": ReverseSyncPolicy(enabled=True, polardb=POLARDB),
}


def steps(found: Life) -> list[str]:
    """The milestones of the traffic in the journal."""
    return [entry.step for entry in found.world.record.journal if entry.step not in ("started", "indexes-ready")]


def forward(found: Life) -> bool:
    """Whether anything forward is at work."""
    states = (state for state, _ in found.runtime.instances.values())
    return any(state.running and state.kind in (TaskKind.STREAM, TaskKind.SNAPSHOT) for state in states)
