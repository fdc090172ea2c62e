"""Lives of migrations with a way back, in memory: the spec that asks for one, and what tests ask of such a life."""

from typing import Any

from support.life import Life
from support.world import World
from whimbrel_api.base import SecretRef
from whimbrel_api.cutover import Cutover, CutoverMode, CutoverState
from whimbrel_api.endpoints import DynamoDBSource, DynamoDBTarget, PolarDBSource, Source, Target
from whimbrel_api.migration import MigrationStatus, Phase, ReverseSyncPolicy
from whimbrel_api.tasks import TaskKind

POLARDB = PolarDBSource(host="pc-xyz", credentials_secret_ref=SecretRef(name="polardb"))
WITH_WAY_BACK: dict[str, Any] = {
    "source": Source(dynamodb=DynamoDBSource(region="us-east-1")),
    "target": Target(dynamodb=DynamoDBTarget(endpoint="http://pc:5432", credentials_secret_ref=SecretRef(name="dst"))),
    "reverse_sync": ReverseSyncPolicy(enabled=True, polardb=POLARDB),
}
AUTOMATIC = Cutover(mode=CutoverMode.AUTOMATIC)
BACK = Cutover(mode=CutoverMode.AUTOMATIC, rollback=True)


def steps(found: Life) -> list[str]:
    """The milestones of the traffic in the journal."""
    return [entry.step for entry in found.world.record.journal if entry.step not in ("started", "indexes-ready")]


def forward(found: Life) -> bool:
    """Whether anything forward is at work."""
    states = (state for state, _ in found.runtime.instances.values())
    return any(state.running and state.kind in (TaskKind.STREAM, TaskKind.SNAPSHOT) for state in states)


def completed(world: World | None = None, **spec: Any) -> Life:
    """Cut over, with changes that flow back."""
    found = Life(world, **(WITH_WAY_BACK | {"cutover": AUTOMATIC} | spec))
    found.until_phase(Phase.COMPLETED)
    found.until(lambda _: found.said("RollbackReady")[0] == "True")
    return found


def going_back(**cutover: Any) -> Life:
    """A rollback has begun; nothing has come to rest yet."""
    found = completed()
    found.runtime.patch(cutover=BACK.model_copy(update=cutover))
    found.until_state(CutoverState.ROLLING_BACK)
    return found


def without_echo_until_following(found: Life) -> None:
    """Both directions are never at work at once."""

    def there(status: MigrationStatus) -> bool:
        assert not (forward(found) and found.runtime.ways_back), "what flows forward would come back"
        return status.phase is Phase.FOLLOWING

    found.until(there, 200)
