"""The logs of a resource's pods, by the API server. Which lines are wanted stands in logbook."""

from collections.abc import Sequence
from datetime import UTC, tzinfo
from typing import Final

from whimbrel_cli.logbook import Speaker
from whimbrel_operator.runtime.cluster_store import ClusterStore
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.specs.names import TASK

_KIND: Final = "app.kubernetes.io/component"


class ClusterLogs:
    """The logs of one resource's pods; containers write their times in UTC."""

    zone: tzinfo | None = UTC

    def __init__(self, store: ClusterStore, key: Key) -> None:
        self._store = store
        self._key = key

    def speakers(self) -> Sequence[Speaker]:
        """Every pod that is still there. Hooks' pods run images of others and are not among them."""
        pods = self._store.owned(self._key, "pods")
        labelled = ((pod["metadata"]["name"], pod["metadata"].get("labels") or {}) for pod in pods)
        return sorted(Speaker(name, found[TASK], found.get(_KIND, "")) for name, found in labelled if TASK in found)

    def last(self, speaker: Speaker, lines: int | None) -> Sequence[str]:
        """The last lines; for None all that its node keeps. Raises NotFound, Refused."""
        return self._store.log(self._key.namespace, speaker.name, lines)
