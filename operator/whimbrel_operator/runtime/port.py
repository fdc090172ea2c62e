"""What a runtime must do for the reconciler: read once, act idempotently, report under a version. No runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from whimbrel_api.migration import MigrationStatus
from whimbrel_api.reverse_sync import ReverseSync, ReverseSyncStatus
from whimbrel_api.validation import ValidationStatus
from whimbrel_operator.domain.decision import Event, WantedTask, WantedWayBack
from whimbrel_operator.domain.hook_jobs import WantedHook
from whimbrel_operator.domain.observed import Memory, Observed, ObservedReverseSync, ObservedValidation

Status = MigrationStatus | ValidationStatus | ReverseSyncStatus
Observation = Observed | ObservedValidation | ObservedReverseSync


@dataclass(frozen=True, order=True)
class Key:
    """A resource: its namespace, kind and name."""

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"


class Runtime(Protocol):
    """Local processes, a cluster, or a test's memory. Every act may be repeated and then changes nothing."""

    async def observe(self, key: Key, memory: Memory) -> Observation | None:
        """All that belongs to a resource, read once; None when it is gone."""

    async def apply(self, key: Key, wanted: Sequence[WantedTask]) -> None:
        """See to it that exactly these instances of one task are there, indexes from 0 on.

        Missing ones are started if they may start, running ones get their orders, those too many are told to stop. A
        running one that would do something else (another fingerprint) is stopped, and started anew once it is gone.
        """

    async def remove(self, key: Key, task_id: str) -> None:
        """Tell all instances of a task to stop, and forget them once they are gone. Does not wait."""

    async def make_way_back(self, key: Key, wanted: WantedWayBack) -> None:
        """Make a ReverseSync that belongs to this Migration, and goes when it does. One of that name stays as it is."""

    async def end_way_back(self, key: Key, found: ReverseSync) -> None:
        """Delete this very ReverseSync. Does not wait: it goes once it has taken away what it made."""

    async def run_hook(self, key: Key, wanted: WantedHook) -> None:
        """Start a hook or switch that may start and has no Job. One that has any Job is left alone."""

    async def end_hook(self, key: Key, run_id: str) -> None:
        """Take away the Job of a hook that runs. Does not wait."""

    async def report(self, key: Key, status: Status, resource_version: str) -> None:
        """Write the status. Raises StatusConflict when it was written since that version was read."""

    async def event(self, key: Key, event: Event) -> None:
        """Make an event known."""
