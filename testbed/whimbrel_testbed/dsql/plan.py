"""A unit of client messages (up to Sync, Flush or one Query) as steps to run one after the other; no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from whimbrel_testbed.dsql import sql, wire
from whimbrel_testbed.dsql.classify import Kind, Statement, classify
from whimbrel_testbed.dsql.refusals import Refusal

_ALONE = frozenset({Kind.DDL, Kind.COPY_IN, Kind.COPY_OUT, Kind.WAIT})
_NOTHING = Statement(Kind.READ, "")


@dataclass
class Local:
    """An answer the proxy gives by itself."""

    data: bytes


@dataclass
class Control:
    """BEGIN, COMMIT or ROLLBACK."""

    statement: Statement


@dataclass
class Refuse:
    """A refused statement; the rest of the unit is left out."""

    refusal: Refusal


@dataclass
class Work:
    """Messages for the backend; `statements` are those executed, in the order of their answers."""

    simple: bool = False
    alone: bool = False
    messages: list[bytes] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    parsed: list[str] = field(default_factory=list)
    written_bytes: int = 0
    takes_part: bool = False

    def add(self, message: bytes) -> None:
        """Add one message."""
        self.messages.append(message)

    def execute(self, statement: Statement) -> None:
        """Note that a statement is executed."""
        self.statements.append(statement)
        self.takes_part = self.takes_part or statement.takes_part

    def has(self, kind: Kind) -> bool:
        """Whether it executes a statement of that kind."""
        return any(statement.kind is kind for statement in self.statements)

    @property
    def copies(self) -> bool:
        """Whether it is a COPY."""
        return self.has(Kind.COPY_IN) or self.has(Kind.COPY_OUT)

    @property
    def payload(self) -> bytes:
        """What is sent: the messages and a Sync; a Query (COPY only) brings its own."""
        whole = b"".join(self.messages)
        return whole if self.simple and self.copies else whole + wire.SYNC_MESSAGE

    @property
    def replayable(self) -> bool:
        """Whether the same messages can be sent once more."""
        return not any(statement.kind in _ALONE for statement in self.statements)

    @property
    def changes(self) -> bool:
        """Whether a later step could see that it has run."""
        return (
            self.takes_part or any(statement.kind is Kind.SETTING for statement in self.statements) or bool(self.parsed)
        )


Step = Local | Control | Refuse | Work


class Planner:
    """Knows the session's prepared statements and portals, and makes steps of its messages."""

    def __init__(self) -> None:
        self._statements: dict[str, Statement] = {}
        self._portals: dict[str, Statement] = {}

    def query(self, text: str) -> list[Step]:
        """Return the steps of a simple Query: one or more for each statement in it."""
        steps: list[Step] = []
        for part in sql.split(text):
            statement = classify(part)
            if statement.refusal:
                return [*steps, Refuse(statement.refusal)]
            steps.append(Control(statement) if statement.control else self._simple(statement))
        return steps or [Local(wire.message(b"I"))]

    def _simple(self, statement: Statement) -> Work:
        self._statements.pop("", None)
        copy = statement.kind in {Kind.COPY_IN, Kind.COPY_OUT}
        query = [wire.message(b"Q", wire.text(statement.text))] if copy else wire.portal_messages(statement.text)
        work = Work(simple=True, alone=True, messages=query)
        work.execute(statement)
        if statement.kind is Kind.WRITE:
            work.written_bytes = len(statement.text)
        return work

    def extended(self, messages: list[bytes]) -> list[Step]:
        """Return the steps of messages of the extended protocol."""
        steps: list[Step] = []
        for message in messages:
            made = self._one(message, steps)
            if made is not None:
                steps.append(made)
            if isinstance(made, Refuse):
                break
        return steps

    def _one(self, message: bytes, steps: list[Step]) -> Step | None:
        kind, payload = message[0], message[5:]
        if kind == wire.PARSE:
            return self._parse(message, payload, steps)
        if kind == wire.BIND:
            return self._bind(message, payload, steps)
        if kind == wire.EXECUTE:
            return self._execute(message, payload, steps)
        return self._describe_or_close(message, payload, steps)

    def _parse(self, message: bytes, payload: bytes, steps: list[Step]) -> Step | None:
        (name, text), rest = wire.strings(payload, 2)
        statement = classify(text)
        if statement.refusal:
            return Refuse(statement.refusal)
        self._statements[name] = statement
        if statement.control:
            return Local(wire.PARSE_COMPLETE)
        work = _work(steps, statement)
        work.add(message if statement.text == text else wire.parse_message(name, statement.text, payload[rest:]))
        if name:
            work.parsed.append(name)
        return None

    def _bind(self, message: bytes, payload: bytes, steps: list[Step]) -> Step | None:
        (portal, name), _ = wire.strings(payload, 2)
        statement = self._statements.get(name, _NOTHING)
        self._portals[portal] = statement
        if statement.control:
            return Local(wire.BIND_COMPLETE)
        work = _work(steps, statement)
        work.add(message)
        if statement.kind is Kind.WRITE:
            work.written_bytes += len(message)
        return None

    def _execute(self, message: bytes, payload: bytes, steps: list[Step]) -> Step | None:
        (portal,), _ = wire.strings(payload, 1)
        statement = self._portals.get(portal, _NOTHING)
        if statement.control:
            return Control(statement)
        work = _work(steps, statement)
        work.add(message)
        work.execute(statement)
        return None

    def _describe_or_close(self, message: bytes, payload: bytes, steps: list[Step]) -> Step | None:
        table = self._statements if payload[:1] == b"S" else self._portals
        (name,), _ = wire.strings(payload[1:], 1)
        statement = table.get(name, _NOTHING)
        closing = message[0] == wire.CLOSE
        if closing:
            table.pop(name, None)
        if statement.control:
            described = wire.NO_PARAMETERS + wire.NO_DATA if payload[:1] == b"S" else wire.NO_DATA
            return Local(wire.CLOSE_COMPLETE if closing else described)
        _work(steps, statement).add(message)
        return None


def _work(steps: list[Step], statement: Statement) -> Work:
    """Return the step that a message of this statement belongs to: DDL, COPY and waiting stand alone."""
    last = steps[-1] if steps else None
    alone = statement.kind in _ALONE
    if not isinstance(last, Work) or last.alone != alone or (alone and last.statements):
        last = Work(alone=alone)
        steps.append(last)
    return last
