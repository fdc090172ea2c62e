"""Makes slot and publication of one reverse sync, and takes away what it made. Each step is safe to repeat.

A slot carries no mark of its own. It is ours where its name is one that only we make, or where our mark, on a
publication that we made while no such slot was there, names it. The publication comes first: changes are read through
the publications of their own time. The slot goes first: its mark is on the publication.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from whimbrel_api.layout import own_name
from whimbrel_worker.endpoints.polardb.slot import publication, slots
from whimbrel_worker.endpoints.polardb.slot.publication import Mark, Qualified
from whimbrel_worker.errors import ConfigurationError
from whimbrel_worker.libpq import Connection


@dataclass(frozen=True, slots=True)
class Names:
    """What belongs to one reverse sync; `owner` tells it from all others, such as namespace/name/uid."""

    owner: str
    slot: str
    publication: str

    @property
    def mark(self) -> Mark:
        """The mark of its publication."""
        return Mark(self.owner, self.slot)


@dataclass(frozen=True, slots=True)
class Armed:
    """Where the slot begins: every commit after `position` is sent. `made`: this call made the slot."""

    position: int
    made: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """What was dropped, and what is there and was left, for it is somebody else's."""

    slot: bool = False
    publication: bool = False
    left: tuple[str, ...] = ()


def chosen_names(owner: str, slot: str, publication_name: str) -> Names:
    """The names that were asked for; where one is empty, one that only this owner has."""
    own = own_name(owner)
    return Names(owner, slot or own, publication_name or own)


def arm(
    connection: Connection, names: Names, only: Sequence[Qualified] | None, where: str, *, prove: Callable[[], None]
) -> Armed:
    """Make publication and slot. `only`: the tables; None for all.

    `prove` raises where a successor holds the control row, and is called right before a slot is dropped or made: a
    worker that stood still since it looked would drop the slot that its successor reads.

    Raises ConfigurationError where one of them is somebody else's, or a right is missing; Transient where it can be
    tried again.
    """
    if not _is_marked(connection, names, where):
        _refuse_foreign_slot(connection, names, where)
        # Ours, but older than the publication will be: what it holds could not be read. A reader that goes on from a
        # position sees that the slot is another one.
        prove()
        slots.drop(connection, names.slot, where, terminate=True)
        publication.create(connection, names.publication, names.mark, only, where)
    return _slot(connection, names, where, prove)


def arm_beside(
    connection: Connection, names: Names, wanted: Sequence[Qualified], where: str, *, prove: Callable[[], None]
) -> Armed:
    """The same with somebody else's publication, which must carry the wanted tables. The slot alone is made."""
    publication.check(connection, names.publication, wanted, where)
    _refuse_foreign_slot(connection, names, where)
    return _slot(connection, names, where, prove)


def disarm(
    connection: Connection, names: Names, where: str, *, slot: bool = True, published: bool = True, made: bool = False
) -> Cleared:
    """Drop what is ours of both, if asked for; ends the process that still reads the slot. Raises Transient.

    `made`: it is known otherwise that this owner made the slot, as beside somebody else's publication.
    """
    health = slots.look(connection, names.slot, where)
    ours = made or names.slot == own_name(names.owner) or _is_marked(connection, names, where)
    left = [f"slot {names.slot}"] if health is not None and not (ours and slot) else []
    slot_gone = ours and slot and slots.drop(connection, names.slot, where, terminate=True)
    gone = published and publication.drop(connection, names.publication, names.owner, where)
    if not gone and publication.look(connection, names.publication, where) is not None:
        left.append(f"publication {names.publication}")
    return Cleared(slot_gone, gone, tuple(left))


def _slot(connection: Connection, names: Names, where: str, prove: Callable[[], None]) -> Armed:
    there = slots.look(connection, names.slot, where)
    if there is not None:
        return Armed(there.confirmed_lsn, made=False)
    prove()
    return Armed(slots.create(connection, names.slot, where), made=True)


def _is_marked(connection: Connection, names: Names, where: str) -> bool:
    there = publication.look(connection, names.publication, where)
    return there is not None and there.mark == names.mark


def _refuse_foreign_slot(connection: Connection, names: Names, where: str) -> None:
    if names.slot == own_name(names.owner) or slots.look(connection, names.slot, where) is None:
        return
    raise ConfigurationError(
        "the replication slot is there already",
        where=where,
        why=f"somebody else made a slot {names.slot}, or an earlier reverse sync left it",
        todo="name another one in spec.slotName, or if nobody needs it: "
        f"SELECT pg_drop_replication_slot('{names.slot}')",
    )
