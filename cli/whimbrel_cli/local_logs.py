"""The logs that workers of this machine write into files. Which lines are wanted stands in logbook."""

from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path

from whimbrel_cli.logbook import Speaker
from whimbrel_operator.errors import NotFound
from whimbrel_operator.runtime.instances import Instance
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.store import LocalStore


class LocalLogs:
    """The logs of one resource's processes; a time in them is that of this machine."""

    zone: tzinfo | None = None

    def __init__(self, store: LocalStore, key: Key) -> None:
        self._store = store
        self._key = key

    def speakers(self) -> Sequence[Speaker]:
        """Every process that has been started."""
        known = ((each.name, each.known()) for each in self._store.instances(self._key))
        return sorted(Speaker(name, found.task_id, found.kind) for name, found in known if found is not None)

    def last(self, speaker: Speaker, lines: int | None) -> Sequence[str]:
        """The last lines of its file; for None all of it, with what was put aside. Raises NotFound."""
        found = self._instance(speaker)
        if lines is not None:
            return found.log_tail(lines) if lines else ()
        return [line for path in (found.former_log, found.log_file) for line in _lines(path)]

    def _instance(self, speaker: Speaker) -> Instance:
        found = next((each for each in self._store.instances(self._key) if each.name == speaker.name), None)
        if found is None:
            raise NotFound(f"no worker {speaker.name} any more", where=str(self._key))
        return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
