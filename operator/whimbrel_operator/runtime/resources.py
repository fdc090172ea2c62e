"""What a person's tools need of the place where resources are kept: a folder or a cluster. No place stands here."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from whimbrel_api.migration import Migration
from whimbrel_api.reports import WorkerReport
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.validation import Validation
from whimbrel_operator.runtime.events import RecordedEvent
from whimbrel_operator.runtime.port import Key

Resource = Migration | Validation | ReverseSync


class Resources(Protocol):
    """Resources to look at and to steer. Every method raises OperatorError where the place cannot answer."""

    def get(self, key: Key) -> Resource:
        """The resource with its status. Raises NotFound."""

    def list(self, kind: str | None = None, namespace: str | None = None) -> Sequence[Key]:
        """All resources, sorted."""

    def find(self, name: str, *, namespace: str = "default", kind: str = "Migration") -> Key:
        """The key of a resource by name. Raises NotFound."""

    def patch_spec(self, key: Key, patch: Mapping[str, Any]) -> None:
        """Change the spec by a merge patch in camelCase. Raises NotFound, and what forbids the change."""

    def events(self, key: Key, limit: int = 50) -> Sequence[RecordedEvent]:
        """The last events, oldest first."""

    def reports(self, key: Key) -> Mapping[str, WorkerReport]:
        """The newest report of each worker, by the worker's name."""

    def log_tail(self, key: Key, lines: int = 50) -> Mapping[str, Sequence[str]]:
        """The last lines that each worker wrote, by the worker's name."""
