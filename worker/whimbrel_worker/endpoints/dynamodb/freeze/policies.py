"""Reads and changes the resource-based policies of tables, each change conditional on what was read. What they say and
why: elsewhere.

Amazon DynamoDB API Reference, "PutResourcePolicy", "GetResourcePolicy", "DeleteResourcePolicy"; Developer Guide,
"Resource-based policy considerations". Reads are eventually consistent: only a conditional write of what was read, even
of the same text, proves that it is not old. That there is no policy cannot be proven so; there time has to do.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import NOT_FOUND, each
from whimbrel_worker.errors import Transient

_log = logging.getLogger(__name__)

NO_POLICY: Final = "NO_POLICY"
"""The revision that a table without a policy is expected to be at."""
_PROBE: Final = "whimbrel-permission-probe"
"""A revision that no policy has: a change that is conditional on it is refused, after the right to it was looked at."""
_POLICY_NOT_FOUND: Final = "PolicyNotFoundException"
_LATER: Final = frozenset({_POLICY_NOT_FOUND, "LimitExceededException", "ResourceInUseException"})
"""Another revision than was read; or the 15 seconds in which a policy is not changed again."""
_AGAIN_SECONDS: Final = 1.0
_ABSENT_SECONDS: Final = 10.0
"""For how long there has to be no policy, or one that cannot be written again, before that is believed.

The documentation says `a few seconds` of what a read may miss.
"""
_PATIENCE_SECONDS: Final = 60.0

Change = Callable[[str, str | None], str | None]
"""By a table's ARN and its policy: the policy that it is to have. None is none at all."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A table's policy as it was read; None where there is none."""

    policy: str | None
    revision: str = NO_POLICY


class _Outcome(Enum):
    DONE = auto()
    UNPROVEN = auto()
    LATER = auto()


@dataclass(slots=True)
class Policies:
    """The policies of one account's tables. `wait` may raise to end the work."""

    client: Client
    wait: Callable[[float], None] = field(default=time.sleep)

    def read(self, table: str) -> Kept | None:
        """The policy of the table of this ARN, maybe an old one; None where there is no such table."""
        try:
            answer = self.client.ask("GetResourcePolicy", {"ResourceArn": table})
        except Refused as refusal:
            if refusal.code == _POLICY_NOT_FOUND:
                return Kept(None)
            if refusal.code == NOT_FOUND:
                return None
            raise
        return Kept(str(answer["Policy"]), str(answer["RevisionId"]))

    def try_rights(self, table: str, policy: str) -> None:
        """Ask for both changes in a way that changes nothing. Raises RightMissing where one is not allowed."""
        for operation, more in (("PutResourcePolicy", {"Policy": policy}), ("DeleteResourcePolicy", {})):
            try:
                self.client.ask(operation, {"ResourceArn": table, "ExpectedRevisionId": _PROBE, **more})
            except Refused as refusal:
                _log.debug("the right to %s is there: %s", operation, refusal.code)

    def change(self, tables: Mapping[str, str], wanted: Change, *, proven: bool) -> None:
        """Bring the policies of tables (name → ARN) to what is wanted. Safe to repeat.

        `proven`: whether a read that shows what is wanted has to be proven, too. Raises Transient with the tables that
        are left, Refused, RightMissing.
        """

        def attempt(table: tuple[str, str]) -> _Outcome:
            return self._try(*table, wanted, proven=proven)

        left, began, since = tuple(tables.items()), time.monotonic(), time.monotonic()
        while True:
            outcomes = list(zip(left, each(attempt, left), strict=True))
            if len(left) > len(left := tuple(table for table, outcome in outcomes if outcome is not _Outcome.DONE)):
                since = time.monotonic()
            late = [name for (name, _), outcome in outcomes if outcome is _Outcome.LATER]
            if not left or (not late and time.monotonic() - began >= _ABSENT_SECONDS):
                return
            if late and time.monotonic() - since > _PATIENCE_SECONDS:
                raise _blocked(self.client.where, late)
            self.wait(_AGAIN_SECONDS)

    def _try(self, name: str, table: str, wanted: Change, *, proven: bool) -> _Outcome:
        found = self.read(table)
        if found is None:
            _log.warning("table %s is gone; nothing is done to its policy", name, extra={"table": name})
            return _Outcome.DONE
        policy = wanted(table, found.policy)
        if policy == found.policy and (policy is None or not proven):
            return _Outcome.UNPROVEN if proven else _Outcome.DONE
        try:
            self._write(table, found, policy)
        except Refused as refusal:
            if refusal.code in _LATER:
                return _Outcome.LATER
            if refusal.code == NOT_FOUND:
                return _Outcome.DONE
            if policy == found.policy:  # such as one that names a principal who is gone: it cannot be written again
                return _Outcome.UNPROVEN
            raise
        return _Outcome.DONE

    def _write(self, table: str, found: Kept, policy: str | None) -> None:
        where = {"ResourceArn": table, "ExpectedRevisionId": found.revision}
        if policy is None:
            self.client.ask("DeleteResourcePolicy", where)
        else:
            self.client.ask("PutResourcePolicy", where | {"Policy": policy})


def _blocked(where: str, names: list[str]) -> Transient:
    return Transient(
        f"the policies of {len(names)} tables could not be changed within {_PATIENCE_SECONDS:g} s",
        where=where,
        why=f"they are being changed by somebody else, or were changed less than 15 s ago: {', '.join(names[:10])}",
        todo="it is tried again by itself",
    )
