"""Events of a resource in a bounded file of JSON lines. Which events there are stands in the domain."""

import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path

from whimbrel_operator.domain.decision import Event
from whimbrel_operator.errors import StateUnreadable
from whimbrel_operator.runtime.files import write_whole

MOST_EVENTS = 500


@dataclass(frozen=True)
class RecordedEvent:
    """An event with the time when it last happened, and how often."""

    at: datetime
    type: str
    reason: str
    message: str
    count: int = 1


def read_events(path: Path) -> list[RecordedEvent]:
    """The events kept, oldest first. Raises StateUnreadable."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [_parsed(line) for line in lines]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise StateUnreadable(
            "the events are damaged", where=str(path), why=str(error), todo="delete the file"
        ) from error


def record_event(path: Path, event: Event, at: datetime) -> None:
    """Add an event; one that was seen before only counts, and becomes the newest."""
    kept = read_events(path)
    same = [
        each for each in kept if (each.type, each.reason, each.message) == (event.type, event.reason, event.message)
    ]
    count = same[-1].count + 1 if same else 1
    others = [each for each in kept if each not in same]
    newest = RecordedEvent(at, event.type, event.reason, event.message, count)
    lines = [
        json.dumps(asdict(replace(each)) | {"at": each.at.isoformat()}) for each in (*others, newest)[-MOST_EVENTS:]
    ]
    write_whole(path, ("\n".join(lines) + "\n").encode())


def _parsed(line: str) -> RecordedEvent:
    value = json.loads(line)
    return RecordedEvent(**(value | {"at": datetime.fromisoformat(value["at"])}))
