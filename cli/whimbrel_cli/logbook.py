"""Lines of workers' logs: whose they are, when they were written, which are wanted, what has come since the last look.

They are read by local_logs and cluster_logs.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Final, Protocol

from whimbrel_operator.errors import NotFound, Refused

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?")
_KEPT: Final = 200
_GAP: Final = "(the lines above and below may not join: the log was put aside, or a new one begun)"
_OLDEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, order=True)
class Speaker:
    """A worker that writes: the name of its process or pod, its task's id, and the kind of the task."""

    name: str
    task: str
    kind: str

    def does(self, wanted: str) -> bool:
        """Whether it is meant by a task's id or kind, or by its own name; everybody is where nothing is said."""
        return not wanted or wanted in (self.name, self.task, self.kind)


@dataclass(frozen=True)
class Line:
    """One line, and who wrote it."""

    speaker: Speaker
    text: str


class LogSource(Protocol):
    """The logs of one resource's workers. Methods raise OperatorError where the place cannot answer."""

    zone: tzinfo | None
    """In which zone a time without one is; None: that of this machine."""

    def speakers(self) -> Sequence[Speaker]:
        """Every worker whose log is still there, sorted."""

    def last(self, speaker: Speaker, lines: int | None) -> Sequence[str]:
        """The last lines of a log; for None all of it. Raises NotFound and Refused where there is none yet, or now."""


def written_at(text: str, zone: tzinfo | None) -> datetime | None:
    """When a line was written: the time that it begins with, or `time` of a JSON object; None where it has none."""
    said = _member(text) if text.startswith("{") else text
    found = _TIME.match(said)
    if found is None:
        return None
    day, clock, part, offset = found.groups()
    fraction = f".{part[:6]}" if part else ""
    moment = datetime.fromisoformat(f"{day}T{clock}{fraction}{offset or ''}")
    return moment if moment.tzinfo else moment.replace(tzinfo=zone) if zone else moment.astimezone()


def _member(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return ""
    return str(value.get("time", "")) if isinstance(value, dict) else ""


class Since:
    """Lets lines through that were written since a moment; one without a time goes with the line before it."""

    def __init__(self, moment: datetime | None, zone: tzinfo | None) -> None:
        self._moment = moment
        self._zone = zone
        self._open: dict[Speaker, bool] = {}

    def wants(self, line: Line) -> bool:
        """Whether it is to be shown. Lines of one worker must come in their order."""
        if self._moment is None:
            return True
        at = written_at(line.text, self._zone)
        if at is not None:
            self._open[line.speaker] = at >= self._moment
        return self._open.get(line.speaker, False)


def together(logs: Mapping[Speaker, Iterable[str]], zone: tzinfo | None) -> list[Line]:
    """The lines of several workers in the order of their times; what has none stays behind the line before it."""
    dated: list[tuple[datetime, int, Line]] = []
    for number, (speaker, lines) in enumerate(logs.items()):
        at = _OLDEST
        for text in lines:
            # A clock that was set back must not part a line from the one before it.
            at = max(at, written_at(text, zone) or at)
            dated.append((at, number, Line(speaker, text)))
    return [line for _, _, line in sorted(dated, key=lambda each: each[:2])]


def after(shown: Sequence[str], again: Sequence[str]) -> tuple[Sequence[str], bool]:
    """What of a log's end, read again, comes after the lines that were shown, and whether that is certain.

    The longest end of `shown` that stands in `again` counts. Where not even the last line does, something is missing.
    """
    if not shown:
        return again, True
    ends = [number for number, text in enumerate(again, start=1) if text == shown[-1]]
    best = max(ends, key=lambda end: (_alike(shown, again[:end]), end), default=0)
    return again[best:], best > 0


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines at the end of both are the same."""
    count = 0
    for left, right in zip(reversed(one), reversed(other), strict=False):
        if left != right:
            return count
        count += 1
    return count


class Following:
    """Logs that are looked at again and again, each time for what has come since.

    It asks for the ends of the logs anew, so that neither a broken connection nor a worker that starts again needs a
    thought. Where two looks do not join, it is said.
    """

    def __init__(self, source: LogSource, wanted: str, first: int | None) -> None:
        self._source = source
        self._wanted = wanted
        self._first = first
        self._shown: dict[Speaker, Sequence[str]] = {}

    def look(self) -> tuple[list[Line], list[str]]:
        """The lines that have come, by their times, and why logs of some workers cannot be read."""
        fresh: dict[Speaker, Sequence[str]] = {}
        silent: list[str] = []
        for speaker in self._source.speakers():
            try:
                fresh[speaker] = self._of(speaker) if speaker.does(self._wanted) else ()
            except (NotFound, Refused) as error:
                silent.append(f"{speaker.name}: its log cannot be read: {error}")
        return together(fresh, self._source.zone), silent

    def _of(self, speaker: Speaker) -> Sequence[str]:
        shown = self._shown.get(speaker)
        if shown is None:
            return self._begun(speaker)
        found = self._new(speaker, shown)
        self._shown[speaker] = [*shown, *found][-_KEPT:]
        return found

    def _begun(self, speaker: Speaker) -> Sequence[str]:
        """The first lines that are wanted. One is read in any case: what comes later has to join something."""
        found = self._source.last(speaker, None if self._first is None else max(1, self._first))
        self._shown[speaker] = found[-_KEPT:]
        return found if self._first is None else found[max(0, len(found) - self._first) :]

    def _new(self, speaker: Speaker, shown: Sequence[str]) -> Sequence[str]:
        """What comes after the lines shown: looked for in the last lines, then in all of the log."""
        for lines in (_KEPT, None) if shown else (None,):
            found, joins = after(shown, self._source.last(speaker, lines))
            if joins:
                return found
        return [_GAP, *found] if found else ()


def printable(text: str) -> str:
    """A line that cannot steer a terminal; blanks and tabs stay as they are."""
    return "".join(char if char.isprintable() or char == "\t" else " " for char in text)
