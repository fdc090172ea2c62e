"""Stops the writes to a DynamoDB source and lets them go on again: by a statement in each table's policy.

Somebody else's statements are never changed, whether they were there before or came meanwhile. Time to live, and what
DynamoDB replicates from another region, are not stopped by any policy.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from whimbrel_api.cutover import FreezeMethod, FreezePolicy
from whimbrel_worker.endpoints.dynamodb.calls.client import Client
from whimbrel_worker.endpoints.dynamodb.calls.failures import Refused, RightMissing
from whimbrel_worker.endpoints.dynamodb.freeze.policies import Kept, Policies
from whimbrel_worker.endpoints.dynamodb.freeze.statements import (
    LARGEST,
    Denial,
    digest,
    principals_of,
    removed,
    sid_of,
)
from whimbrel_worker.endpoints.dynamodb.tables.catalogue import describe, each
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.errors import ConfigurationError, Transient

_log = logging.getLogger(__name__)
_LONGEST: Final = 8000
"""Characters of a journal entry's detail: a report carries up to a hundred of them."""
_TRIED: Final = 100
"""Tables on which the rights are tried."""
_YOURSELF: Final = (
    "or set spec.cutover.sourceFreeze to User, and stop the writers yourself when the cutover asks for it"
)


@dataclass(frozen=True, slots=True)
class Former:
    """Whose writes go on, and how the tables' policies were before: by name a digest, empty where there was none.

    `tables` is None where they are too many for the journal: they are those that the manifest selects.
    """

    own: tuple[str, ...]
    asked: tuple[str, ...]
    tables: Mapping[str, str] | None

    def detail(self) -> str:
        """The text for the journal, as JSON."""
        fields = {"method": FreezeMethod.DENY_POLICY, "own": self.own, "exceptPrincipals": self.asked}
        told = json.dumps(fields | {"policiesBefore": self.tables}, sort_keys=True)
        return told if len(told) <= _LONGEST else json.dumps(fields | {"policiesBefore": None}, sort_keys=True)

    @classmethod
    def parse(cls, detail: str) -> "Former":
        """From the journal's text."""
        found = json.loads(detail)
        return cls(tuple(found["own"]), tuple(found["exceptPrincipals"]), found["policiesBefore"])

    def denial(self, sid: str) -> Denial:
        """The statement of this freeze."""
        return Denial(sid, (*self.own, *(each for each in self.asked if each not in self.own)))


@dataclass(slots=True)
class DynamoDBFreezing:
    """Implements engine.freezing.Freezing. `names` gives the tables that the manifest selects, as there are now.

    `wait` may raise to end the task.
    """

    client: Client
    names: Callable[[], Sequence[str]]
    migration: str
    wait: Callable[[float], None]
    _policies: Policies = field(init=False)
    _sid: str = field(init=False)

    def __post_init__(self) -> None:
        self._policies, self._sid = Policies(self.client, self.wait), sid_of(self.migration)

    def problems(self, policy: FreezePolicy) -> list[Problem]:
        """Why the writes could not be stopped: rights, policies that are full, an endpoint that has none."""
        return self._look(policy)[1]

    def former(self, policy: FreezePolicy) -> str:
        """How it is now, for the journal. Raises ConfigurationError for the first of the problems; changes nothing."""
        former, problems = self._look(policy)
        for problem in problems:
            if problem.fatal:
                raise ConfigurationError(problem.what, where=problem.where, why=problem.why, todo=problem.todo)
        return former.detail()

    def is_for(self, detail: str, policy: FreezePolicy) -> bool:
        """Whether what stands in the journal is what the policy asks for."""
        return Former.parse(detail).asked == tuple(policy.except_principals)

    def stop(self, detail: str) -> None:
        """Add our statement to the policy of every table. `holds` has to be asked later on: reads may be old."""
        former = Former.parse(detail)
        denial, tables = former.denial(self._sid), self._tables(former)
        try:
            self._policies.change(tables, lambda table, policy: denial.added(policy, table), proven=False)
        except RightMissing as failure:
            raise _not_allowed(failure) from None
        except Refused as refusal:
            raise ConfigurationError(
                "a table's policy could not be changed", where=refusal.where, why=_reason(refusal), todo=_YOURSELF
            ) from None

    def holds(self, detail: str) -> bool:
        """Whether every table has our statement, as far as an eventually consistent read tells."""
        former = Former.parse(detail)
        denial = former.denial(self._sid)

        def stands(table: str) -> bool:
            found = self._policies.read(table)
            return found is None or denial.stands(found.policy, table)

        return all(each(stands, list(self._tables(former).values())))

    def undo(self, detail: str) -> None:
        """Take our statement, and nothing else, out of every policy; a policy of nothing else goes."""
        former = Former.parse(detail)
        tables = self._tables(former)
        before = {arn: (former.tables or {}).get(name) for name, arn in tables.items()}

        def without(table: str, policy: str | None) -> str | None:
            left = removed(policy, self._sid)
            if left != policy and before[table] not in (None, digest(left)):
                _log.warning(
                    "the policy of %s was changed by somebody else meanwhile; that is left as it is",
                    table,
                    extra={"table": table},
                )
            return left

        try:
            self._policies.change(tables, without, proven=True)
        except (ConfigurationError, Transient, Refused) as error:
            kind = Transient if isinstance(error, Transient) else ConfigurationError
            raise kind(
                "the writes to the source could not be let go on",
                where=error.where or self.client.where,
                why=f"{error.what}: {error.why}",
                todo=f"as an administrator: take the statement {self._sid} out of the policy of each of the tables "
                f"{', '.join(list(tables)[:10])}{' and more' if len(tables) > 10 else ''} (aws dynamodb "
                "get-resource-policy, put-resource-policy, or delete-resource-policy where no other is left); it is "
                "tried again by itself",
            ) from None

    def _tables(self, former: Former) -> dict[str, str]:
        """ARNs by name, of the tables that are there."""
        return self._arns(list(former.tables) if former.tables is not None else self.names())

    def _arns(self, names: Sequence[str]) -> dict[str, str]:
        described = each(lambda name: describe(self.client, name), names)
        return {found.name: str(found.description["TableArn"]) for found in described if found is not None}

    def _look(self, policy: FreezePolicy) -> tuple[Former, list[Problem]]:
        asked = tuple(policy.except_principals)
        if policy.method is not FreezeMethod.DENY_POLICY:
            return Former((), asked, {}), [_other_method(policy.method)]
        try:
            own = tuple(principals_of(self.client.principal()))
            tables = self._arns(self.names())
            found = zip(tables, each(self._policies.read, list(tables.values())), strict=True)
            kept = {name: policy for name, policy in found if policy is not None}
        except RightMissing as failure:
            error = _not_allowed(failure)
            return Former((), asked, {}), [Problem(error.what, error.where, error.why, error.todo)]
        except Refused as refusal:
            return Former((), asked, {}), [_no_policies(refusal)]
        former = Former(own, asked, {name: digest(found.policy) for name, found in kept.items()})
        return former, [*self._too_large(former, tables, kept), *self._rights(former, tables)]

    def _too_large(self, former: Former, tables: Mapping[str, str], kept: Mapping[str, Kept]) -> Iterator[Problem]:
        denial = former.denial(self._sid)
        for name, found in kept.items():
            size = len(denial.added(found.policy, tables[name]).encode())
            if size > LARGEST:
                yield Problem(
                    "the table's policy has no room for a statement that stops the writes",
                    where=name,
                    why=f"it would have {size} bytes with it, and DynamoDB takes {LARGEST}",
                    todo=f"make it shorter, {_YOURSELF}",
                )

    def _rights(self, former: Former, tables: Mapping[str, str]) -> Iterator[Problem]:
        denial = former.denial(self._sid)

        def lacking(table: str) -> ConfigurationError | None:
            try:
                self._policies.try_rights(table, denial.added(None, table))
            except RightMissing as failure:
                return _not_allowed(failure, table)
            return None

        tried = list(tables.values())[:_TRIED]
        for error in each(lacking, tried):
            if error is not None:
                yield Problem(error.what, error.where, error.why, error.todo)
        if len(tables) > _TRIED:
            yield Problem(f"the right to change policies was tried on {_TRIED} of {len(tables)} tables", fatal=False)


def _not_allowed(failure: RightMissing, where: str = "") -> ConfigurationError:
    return ConfigurationError(
        failure.what, where=where or failure.where, why=failure.why, todo=f"{failure.todo}; {_YOURSELF}"
    )


def _reason(refusal: Refused) -> str:
    return f"{refusal.what}: {refusal.why}"


def _no_policies(refusal: Refused) -> Problem:
    return Problem(
        "the tables' resource-based policies cannot be read at this endpoint",
        where=refusal.where,
        why=f"{_reason(refusal)}; cutover.sourceFreeze: Operator needs them",
        todo=_YOURSELF.removeprefix("or "),
    )


def _other_method(method: FreezeMethod) -> Problem:
    return Problem(
        f"Whimbrel cannot stop the writes to a DynamoDB source by {method}",
        where="spec.cutover.freeze.method",
        why="that is for MySQL",
        todo=f"set it to {FreezeMethod.DENY_POLICY}, {_YOURSELF}",
    )
