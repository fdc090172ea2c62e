"""Stops the writes to a MySQL server and lets them go on again: by super_read_only, or by locking accounts.

What was so before is told as text, for a journal that is written first; only what was changed here is put back.
MySQL 8.4 Reference Manual: "Server System Variables" (read_only, super_read_only), "ALTER USER Statement".
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import pymysql

from whimbrel_api.cutover import FreezeMethod, FreezePolicy
from whimbrel_worker.endpoints.mysql.checks import is_granted, missing_privilege
from whimbrel_worker.endpoints.mysql.connect import Connection, MySQLConnector, guarded, query
from whimbrel_worker.endpoints.mysql.failures import code_and_message
from whimbrel_worker.engine.ports import Problem
from whimbrel_worker.errors import ConfigurationError, Transient

_log = logging.getLogger(__name__)
_LOCK_SECONDS: Final = 5
"""While SET GLOBAL super_read_only waits, nobody else can begin to write; without a bound it would be a year."""
_END_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.1
_LOCK_TIMEOUT, _NO_SUCH_THREAD = 1205, 1094
_DENIED: Final = frozenset({1044, 1142, 1143, 1227})
_NEEDED: Final = {
    FreezeMethod.SUPER_READ_ONLY: (("SYSTEM_VARIABLES_ADMIN", "SUPER"),),
    FreezeMethod.LOCK_ACCOUNTS: (("CREATE USER",), ("PROCESS",), ("CONNECTION_ADMIN", "SUPER")),
}
_HOLDERS: Final = (
    "SELECT DISTINCT t.PROCESSLIST_ID, t.PROCESSLIST_USER, t.PROCESSLIST_HOST"
    " FROM performance_schema.metadata_locks AS l JOIN performance_schema.threads AS t"
    " ON t.THREAD_ID = l.OWNER_THREAD_ID WHERE l.OBJECT_TYPE IN ('GLOBAL', 'COMMIT')"
    " AND l.LOCK_STATUS = 'GRANTED' AND t.PROCESSLIST_ID <> CONNECTION_ID()"
)


@dataclass(frozen=True, slots=True, order=True)
class Account:
    """A MySQL account. Written `user@host`; without a host it is `%`, as MySQL has it."""

    user: str
    host: str

    @classmethod
    def parse(cls, text: str) -> "Account":
        """From a manifest's text; a user's name may hold an @ itself."""
        user, at, host = text.rpartition("@")
        return cls(user, host.lower()) if at else cls(text, "%")

    def __str__(self) -> str:
        return f"{self.user}@{self.host}"


@dataclass(frozen=True, slots=True)
class Former:
    """How the server was before: by which method it is frozen, and what of it was open. As JSON in the journal."""

    method: FreezeMethod
    read_only: bool = False
    super_read_only: bool = False
    asked: tuple[Account, ...] = ()
    unlocked: tuple[Account, ...] = ()

    def detail(self) -> str:
        """The text for the journal."""
        if self.method is FreezeMethod.SUPER_READ_ONLY:
            return _json(method=self.method, readOnly=self.read_only, superReadOnly=self.super_read_only)
        return _json(method=self.method, accounts=_texts(self.asked), unlockedBefore=_texts(self.unlocked))

    @classmethod
    def parse(cls, detail: str) -> "Former":
        """From the journal's text."""
        found = json.loads(detail)
        method = FreezeMethod(found["method"])
        if method is FreezeMethod.SUPER_READ_ONLY:
            return cls(method, bool(found["readOnly"]), bool(found["superReadOnly"]))
        return cls(method, asked=_accounts(found["accounts"]), unlocked=_accounts(found["unlockedBefore"]))

    def by_hand(self) -> str:
        """The SQL with which an administrator undoes it; empty where nothing was changed."""
        if self.method is FreezeMethod.SUPER_READ_ONLY:
            variable = "super_read_only" if self.read_only else "read_only"
            return "" if self.super_read_only else f"SET GLOBAL {variable} = OFF"
        return (
            f"ALTER USER {', '.join(_quoted(account) for account in self.unlocked)} ACCOUNT UNLOCK"
            if self.unlocked
            else ""
        )


def _json(**fields: Any) -> str:
    return json.dumps(fields, sort_keys=True)


def _texts(accounts: Sequence[Account]) -> list[str]:
    return [str(account) for account in accounts]


def _accounts(texts: Sequence[str]) -> tuple[Account, ...]:
    return tuple(sorted({Account.parse(text) for text in texts}))


def _quoted(account: Account) -> str:
    """For a person to read; statements are quoted by the driver."""
    return "@".join("'" + part.replace("\\", "\\\\").replace("'", "''") + "'" for part in (account.user, account.host))


@dataclass(slots=True)
class MySQLFreezing:
    """Implements engine.freezing.Freezing over connections of its own. `wait` may raise to end the task."""

    connector: MySQLConnector
    wait: Callable[[float], None] = field(default=time.sleep)

    def problems(self, policy: FreezePolicy) -> list[Problem]:
        """Why the writes could not be stopped: missing privileges, accounts that are not there or are our own."""
        if policy.method not in _NEEDED:
            return [_other_method(policy.method)]
        with self._connected() as connection:
            found = list(_privileges(connection, policy.method))
            if policy.method is FreezeMethod.LOCK_ACCOUNTS and not found:
                found = list(_account_problems(connection, _accounts(policy.accounts)))
        return found

    def former(self, policy: FreezePolicy) -> str:
        """How it is now, for the journal. Raises ConfigurationError for the first of the problems; changes nothing."""
        for problem in self.problems(policy):
            raise ConfigurationError(problem.what, where=problem.where, why=problem.why, todo=problem.todo)
        with self._connected() as connection:
            if policy.method is FreezeMethod.SUPER_READ_ONLY:
                return Former(policy.method, *_read_only(connection)).detail()
            asked = _accounts(policy.accounts)
            return Former(policy.method, asked=asked, unlocked=_unlocked(connection, asked)).detail()

    def is_for(self, detail: str, policy: FreezePolicy) -> bool:
        """Whether what stands in the journal is what the policy asks for."""
        former = Former.parse(detail)
        asked = _accounts(policy.accounts) if former.method is FreezeMethod.LOCK_ACCOUNTS else ()
        return former.method is policy.method and former.asked == asked

    def stop(self, detail: str) -> None:
        """Stop the writes; what is stopped already stays so. Raises Transient, naming who keeps it from being done."""
        former = Former.parse(detail)
        with self._connected() as connection, _allowed(self.connector.where):
            if former.method is FreezeMethod.SUPER_READ_ONLY:
                self._shut(connection)
            else:
                self._lock(connection, former.asked)

    def holds(self, detail: str) -> bool:
        """Whether the writes are stopped now."""
        former = Former.parse(detail)
        with self._connected() as connection:
            if former.method is FreezeMethod.SUPER_READ_ONLY:
                return _read_only(connection) == (True, True)
            return not _unlocked(connection, former.asked) and not _connections(connection, former.asked)

    def undo(self, detail: str) -> None:
        """Put back what was so before, as far as it is not so already. Raises an error with the SQL to run by hand."""
        former = Former.parse(detail)
        try:
            with self._connected() as connection:
                if former.method is FreezeMethod.SUPER_READ_ONLY:
                    _open(connection, former)
                else:
                    _unlock(connection, former.unlocked)
        except (ConfigurationError, Transient) as error:
            by_hand = former.by_hand() or "nothing is left to undo"
            raise type(error)(
                "the writes to the source could not be let go on",
                where=error.where or self.connector.where,
                why=f"{error.what}: {error.why}",
                todo=f"as an administrator of the source: {by_hand}; it is tried again by itself",
            ) from None

    def _shut(self, connection: Connection) -> None:
        """Running statements and commits end first; an open transaction cannot be committed any more."""
        if _read_only(connection) == (True, True):
            return
        query(connection, "SET SESSION lock_wait_timeout = %s", (_LOCK_SECONDS,))
        try:
            query(connection, "SET GLOBAL super_read_only = ON")
        except pymysql.err.MySQLError as error:
            if code_and_message(error)[0] != _LOCK_TIMEOUT:
                raise
            raise _kept_from(self.connector.where, _holders(connection)) from None

    def _lock(self, connection: Connection, asked: Sequence[Account]) -> None:
        """Lock first, so that nobody comes back; then end the connections, and with them their transactions."""
        unlocked = _unlocked(connection, asked)
        if unlocked:
            _alter(connection, unlocked, "LOCK")
        deadline = time.monotonic() + _END_SECONDS
        while left := _connections(connection, asked):
            if time.monotonic() > deadline:
                raise _still_there(self.connector.where, left)
            for each in left:
                _kill(connection, each)
            self.wait(_POLL_SECONDS)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        with contextlib.closing(self.connector.connect()) as connection, guarded(self.connector.where):
            yield connection


@contextlib.contextmanager
def _allowed(where: str) -> Iterator[None]:
    """What the server refuses is said with what would help: an account with SYSTEM_USER asks for the same of us."""
    try:
        yield
    except pymysql.err.MySQLError as error:
        code, message = code_and_message(error)
        if code not in _DENIED:
            raise
        raise ConfigurationError(
            "the account of the migration may not stop the writes to the source",
            where=where,
            why=message,
            todo="as an administrator: GRANT the privilege that is named ON *.* TO that account; it is tried again",
        ) from None


@dataclass(frozen=True, slots=True)
class _Client:
    """A connection of somebody else."""

    number: int
    user: str
    host: str

    def __str__(self) -> str:
        return f"connection {self.number} of {self.user} from {self.host}"


def _read_only(connection: Connection) -> tuple[bool, bool]:
    row = query(connection, "SELECT @@GLOBAL.read_only, @@GLOBAL.super_read_only")[0]
    return bool(row[0]), bool(row[1])


def _open(connection: Connection, former: Former) -> None:
    """read_only = OFF takes super_read_only with it; super_read_only = ON had brought read_only along."""
    read_only, super_read_only = _read_only(connection)
    if not former.read_only and read_only:
        query(connection, "SET GLOBAL read_only = OFF")
    elif not former.super_read_only and super_read_only:
        query(connection, "SET GLOBAL super_read_only = OFF")


def _unlock(connection: Connection, accounts: Sequence[Account]) -> None:
    """One that was dropped meanwhile cannot be unlocked."""
    states = _lock_states(connection, accounts)
    for gone in (account for account in accounts if account not in states):
        _log.warning("the account %s is gone from the source; it is not unlocked", gone)
    if locked := [account for account, is_locked in states.items() if is_locked]:
        _alter(connection, locked, "UNLOCK")


def _alter(connection: Connection, accounts: Sequence[Account], what: str) -> None:
    """One statement, so that either all or none change. The names are quoted by the driver.

    It does not wait for long: given up by its client, it would be carried out whenever the locks are free.
    """
    query(connection, "SET SESSION lock_wait_timeout = %s", (_LOCK_SECONDS,))
    marks = ", ".join(["%s@%s"] * len(accounts))
    names = tuple(part for account in accounts for part in (account.user, account.host))
    query(connection, f"ALTER USER {marks} ACCOUNT {what}", names)


def _lock_states(connection: Connection, accounts: Sequence[Account]) -> dict[Account, bool]:
    """Which of these accounts there are, and whether they are locked."""
    found = _namesakes(connection, accounts)
    return {account: found[account] for account in accounts if account in found}


def _namesakes(connection: Connection, accounts: Sequence[Account]) -> dict[Account, bool]:
    """All accounts of these users' names, from whatever host, and whether they are locked."""
    if not accounts:
        return {}
    marks = ", ".join(["%s"] * len(accounts))
    users = tuple(account.user for account in accounts)
    rows = query(connection, f"SELECT User, Host, account_locked FROM mysql.user WHERE User IN ({marks})", users)
    return {Account(_text(user), _text(host).lower()): _text(locked) == "Y" for user, host, locked in rows}


def _unlocked(connection: Connection, accounts: Sequence[Account]) -> tuple[Account, ...]:
    return tuple(sorted(account for account, locked in _lock_states(connection, accounts).items() if not locked))


def _connections(connection: Connection, accounts: Sequence[Account]) -> list[_Client]:
    """Connections that signed in by these users' names; a server does not tell as which account."""
    users = {account.user for account in accounts}
    rows = query(connection, "SHOW PROCESSLIST")
    return [_Client(int(row[0]), str(row[1]), str(row[2])) for row in rows if str(row[1]) in users]


def _kill(connection: Connection, client: _Client) -> None:
    try:
        query(connection, "KILL CONNECTION %s", (client.number,))
    except pymysql.err.MySQLError as error:
        if code_and_message(error)[0] != _NO_SUCH_THREAD:
            raise


def _holders(connection: Connection) -> str:
    """Who holds the locks, in words, as far as this account may see it."""
    if not query(connection, "SELECT @@GLOBAL.performance_schema")[0][0]:
        return "which connections is not to be seen, because performance_schema is off; see SHOW PROCESSLIST"
    try:
        rows = query(connection, _HOLDERS)
    except pymysql.err.MySQLError as error:
        if code_and_message(error)[0] not in _DENIED:
            raise
        return "which connections is not to be seen: GRANT SELECT ON performance_schema.* shows it"
    clients = [str(_Client(int(number), str(user), str(host))) for number, user, host in rows if number is not None]
    return f"held by {', '.join(clients[:10])}" if clients else "whoever held the locks has let go meanwhile"


def _kept_from(where: str, holders: str) -> Transient:
    return Transient(
        f"super_read_only could not be switched on within {_LOCK_SECONDS} s",
        where=where,
        why=f"tables are locked, or statements that write are running; {holders}",
        todo="it is tried again by itself; end those connections (KILL <number>) where they do not end by themselves",
    )


def _still_there(where: str, left: Sequence[_Client]) -> Transient:
    named = ", ".join(str(client) for client in left[:10])
    return Transient(
        f"{len(left)} connections of the locked accounts have not ended within {_END_SECONDS:g} s",
        where=where,
        why=f"they were killed, and may be rolling back: {named}",
        todo="it is tried again by itself",
    )


def _other_method(method: FreezeMethod) -> Problem:
    return Problem(
        f"Whimbrel cannot stop the writes to a MySQL source by {method}",
        where="spec.cutover.freeze.method",
        why="that is for DynamoDB",
        todo=f"set it to {FreezeMethod.SUPER_READ_ONLY} or {FreezeMethod.LOCK_ACCOUNTS}",
    )


def _privileges(connection: Connection, method: FreezeMethod) -> Iterator[Problem]:
    """Privileges that SHOW GRANTS does not list, those of the active roles among them."""
    account = _text(query(connection, "SELECT CURRENT_USER()")[0][0])
    roles = _text(query(connection, "SELECT CURRENT_ROLE()")[0][0])
    using = "" if roles == "NONE" else f" USING {roles}"  # quoted by the server itself
    grants = [_text(row[0]) for row in query(connection, f"SHOW GRANTS FOR CURRENT_USER(){using}")]
    for names in _NEEDED[method]:
        if not any(is_granted(grants, name) for name in names):
            why = f"cutover.sourceFreeze: Operator with freeze.method: {method} needs it"
            yield missing_privilege(account, names[0], why)
    if method is FreezeMethod.LOCK_ACCOUNTS:
        yield from _accounts_unreadable(connection, account)


def _accounts_unreadable(connection: Connection, account: str) -> Iterator[Problem]:
    try:
        query(connection, "SELECT User, Host, account_locked FROM mysql.user LIMIT 0")
    except pymysql.err.MySQLError as error:
        code, message = code_and_message(error)
        if code not in _DENIED:
            raise
        user, _, host = account.rpartition("@")
        yield Problem(
            f"the account {account} may not see which accounts are locked",
            where="mysql.user",
            why=message,
            todo=f"as an administrator: GRANT SELECT ON mysql.user TO {_quoted(Account(user, host))}",
        )


def _account_problems(connection: Connection, accounts: Sequence[Account]) -> Iterator[Problem]:
    where = "spec.cutover.freeze.accounts"
    if not accounts:
        yield Problem(
            "no account is named whose writes are to be stopped",
            where=where,
            why="spec.cutover.freeze.method is LockAccounts",
            todo="name the application's accounts, such as app@%",
        )
    own = Account.parse(_text(query(connection, "SELECT CURRENT_USER()")[0][0]))
    there = _namesakes(connection, accounts)
    yield from _left_out(there, accounts, own, where)
    for account in accounts:
        if account.user == own.user:
            yield Problem(
                f"the account {account} cannot be locked: the migration itself signs in as {own}",
                where=where,
                why="its own connections would be ended with those of the application",
                todo="give the migration an account of its own, with another name",
            )
        elif not account.user:
            yield Problem(
                f"the anonymous account {account} cannot be locked by Whimbrel",
                where=where,
                why="its connections carry whatever name they were given, so nobody can tell which to end",
                todo="drop it, or set spec.cutover.freeze.method to SuperReadOnly",
            )
        elif account not in there:
            yield Problem(
                f"the account {account} does not exist on the source",
                where=where,
                why="mysql.user has no such row; no account is locked",
                todo="write it as SELECT User, Host FROM mysql.user shows it, user@host",
            )


def _left_out(
    there: Mapping[Account, bool], accounts: Sequence[Account], own: Account, where: str
) -> Iterator[Problem]:
    """Connections are told apart by the user's name alone: those of a namesake would be ended, and come back."""
    open_ones = (account for account, locked in there.items() if not locked)
    for account in sorted(set(open_ones) - set(accounts)):
        if account.user and account.user != own.user:
            yield Problem(
                f"the account {account} has the name of one that is to be locked, and is not named itself",
                where=where,
                why="nobody can tell their connections apart: its own would be ended, too, and could write again",
                todo=f"name {account} as well, or drop it, or set spec.cutover.freeze.method to SuperReadOnly",
            )


def _text(cell: object) -> str:
    return cell.decode() if isinstance(cell, bytes) else str(cell)
