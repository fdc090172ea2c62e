"""The control rows of chunks on a DynamoDB target: planned, claimed, advanced, given back. How a chunk is copied is
the engine's matter.

A done chunk stays done, so each reader of many chunks begins at the first that it does not know as done (`ChunkBook`),
and never reads a long table's finished part again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from whimbrel_worker.endpoints.dynamodb.control.control_rows import ControlTable, Entry
from whimbrel_worker.engine.ports import Chunk, ChunkProgress, Identity
from whimbrel_worker.errors import FencedOut

FREE: Final = "free"
CLAIMED: Final = "claimed"
DONE: Final = "done"
_CLAIMABLE: Final = "#state = :free OR (#state = :claimed AND #owner = :index AND #ownerAttempt <= :attempt)"
_SEEN: Final = 16


def chunk_prefix(table: str) -> str:
    """What the keys of a table's chunks begin with."""
    return f"chunk#{table}#"


def chunk_entry(table: str, number: int) -> str:
    """A chunk's key in the control table; six digits keep the order of numbers."""
    return f"{chunk_prefix(table)}{number:06d}"


def chunk_of(entry: Entry) -> Chunk:
    """A chunk from its control row."""
    low, high, resume = (_bound(entry.text(name)) for name in ("low", "high", "resumeAfter"))
    return Chunk(entry.text("table"), entry.number("number"), low, high, resume, entry.number("copied"))


def _bound(text: str) -> tuple[str, ...] | None:
    found = json.loads(text or "null")
    return None if found is None else tuple(found)


@dataclass(slots=True)
class _Progress:
    """What is known of a table: chunks 0 to `done` - 1 are done, with `copied` rows."""

    done: int = 0
    copied: int = 0


@dataclass(frozen=True, slots=True)
class Tallied:
    """A table's chunks in figures, rows copied among them."""

    total: int
    done: int
    copied: int


@dataclass(slots=True)
class ChunkBook:
    """Reads chunks of many tables without reading those again that it knows as done."""

    control: ControlTable
    _known: dict[str, _Progress] = field(default_factory=dict)

    def unfinished(self, table: str, page: int = 1000) -> Iterator[Entry]:
        """Chunks from the first on that is not known as done; done ones may be among them."""
        known = self._known.setdefault(table, _Progress())
        for entry in self.control.entries(chunk_prefix(table), start=chunk_entry(table, known.done), page=page):
            if entry.text("state") == DONE and entry.number("number") == known.done:
                known.done += 1
                known.copied += entry.number("copied")
            else:
                yield entry

    def touched(self, table: str) -> Iterator[Entry]:
        """The same up to where nobody has claimed any chunk yet, which spares reading a long table's rest.

        Workers choose among the first 16 that they may claim, so behind 16 that nobody ever held all are so.
        """
        pristine = 0
        for entry in self.unfinished(table, 4 * _SEEN):
            yield entry
            pristine += entry.text("state") == FREE and not entry.has("ownerAttempt")
            if pristine == _SEEN:
                return

    def tallied(self, table: str, planned: int) -> Tallied:
        """A table's chunks in figures. `planned`: how many there are; 0 while more are being added."""
        entries = self.touched(table) if planned else self.unfinished(table)
        later = [(entry.text("state") == DONE, entry.number("copied")) for entry in entries]
        known = self._known[table]
        return Tallied(
            total=planned or known.done + len(later),
            done=known.done + sum(done for done, _ in later),
            copied=known.copied + sum(copied for _, copied in later),
        )

    def finished(self, table: str, planned: int) -> bool:
        """Whether as many chunks as were planned are done; one that is not seen counts as not done."""
        if any(entry.text("state") != DONE for entry in self.unfinished(table, _SEEN)):
            return False
        return self.tallied(table, planned).done >= planned

    def claimable(self, table: str, index: int, attempt: int) -> list[Entry]:
        """Some chunks that nobody holds, and those that this worker holds without knowing it.

        A worker asks only when it works on none: what it holds then is a claim whose reply was lost, or one that a
        former attempt made after its end.
        """
        found: list[Entry] = []
        for entry in self.unfinished(table, 4 * _SEEN):
            ours = entry.text("state") == CLAIMED and _held_before(entry, index, attempt + 1)
            if entry.text("state") == FREE or ours:
                found.append(entry)
            if len(found) == _SEEN:
                break
        return found

    def held(self, table: str, index: int, before_attempt: int) -> list[Entry]:
        """Chunks that earlier attempts of a worker hold."""
        return [
            entry
            for entry in self.touched(table)
            if entry.text("state") == CLAIMED and _held_before(entry, index, before_attempt)
        ]


def _held_before(entry: Entry, index: int, before_attempt: int) -> bool:
    return entry.number("owner", -1) == index and entry.number("ownerAttempt") < before_attempt


def insert_chunks(control: ControlTable, chunks: Sequence[Chunk]) -> None:
    """Add planned chunks; repeated ones stay as they are. Raises FencedOut where another planner cut them otherwise.

    Chunks of two planners would leave gaps between them, so each must find exactly its own bounds.
    """
    for chunk in chunks:
        added = control.update(
            chunk_entry(chunk.table, chunk.number),
            "SET #table = :table, #number = :number, #low = :low, #high = :high,"
            " #state = if_not_exists(#state, :free), #copied = if_not_exists(#copied, :zero)",
            where="attribute_not_exists(#low) OR (#low = :low AND #high = :high)",
            values={"table": chunk.table, "number": chunk.number, "low": json.dumps(chunk.low),
                    "high": json.dumps(chunk.high), "free": FREE, "zero": 0},
        )  # fmt: skip
        if added is None:
            raise FencedOut(
                f"another worker plans the chunks of {chunk.table} now",
                where=f"chunk {chunk.number}",
                why="this worker was silent for so long that its planning was given to another",
                todo="nothing: it is started again and takes on other work",
            )


def claim(control: ControlTable, entry: Entry, index: int, attempt: int) -> Chunk | None:
    """Claim a claimable chunk, with its progress as it is now; None when somebody else was faster."""
    claimed = control.update(
        entry.key,
        "SET #state = :claimed, #owner = :index, #ownerAttempt = :attempt",
        where=_CLAIMABLE,
        values={"free": FREE, "claimed": CLAIMED, "index": index, "attempt": attempt},
    )
    return None if claimed is None else chunk_of(claimed)


def give_back(control: ControlTable, entry: Entry, index: int, before_attempt: int) -> bool:
    """Give back a chunk that an earlier attempt of a worker holds."""
    freed = control.update(
        entry.key,
        "SET #state = :free REMOVE #owner",
        where="#state = :claimed AND #owner = :index AND #ownerAttempt < :before",
        values={"free": FREE, "claimed": CLAIMED, "index": index, "before": before_attempt},
    )
    return freed is not None


def update_chunk(control: ControlTable, identity: Identity, attempt: int, progress: ChunkProgress) -> None:
    """Record progress, after the data. Raises FencedOut when the chunk went to somebody else. Safe to repeat.

    Progress never goes back, so that a copy of this call that arrives late changes nothing.
    """
    chunk, held = progress.chunk, "#state = :claimed"
    if progress.done:
        held = "(#state = :claimed OR #state = :state)"
    updated = control.update(
        chunk_entry(chunk.table, chunk.number),
        "SET #resumeAfter = :resume, #copied = :copied, #state = :state, #ownerAttempt = :attempt",
        where=f"{held} AND #owner = :index AND #ownerAttempt <= :attempt AND #copied <= :copied",
        values={"resume": json.dumps(progress.resume_after), "copied": progress.rows, "index": identity.index,
                "state": DONE if progress.done else CLAIMED, "claimed": CLAIMED, "attempt": attempt},
    )  # fmt: skip
    if updated is None:
        raise FencedOut(
            f"chunk {chunk.number} is no longer this worker's", where=f"{chunk.table}, worker {identity.index}"
        )


def planned(control: ControlTable, table: str) -> int:
    """How many chunks there are, by the number of the last."""
    last = next(control.entries(chunk_prefix(table), newest_first=True, most=1), None)
    return 0 if last is None else last.number("number") + 1
