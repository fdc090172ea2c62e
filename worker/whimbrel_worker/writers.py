"""Who besides the migration's own account may write to its tables on the target, in words and with the SQL. Pure.

A role counts that can log in and holds INSERT, UPDATE, DELETE or TRUNCATE on a table, or owns one, itself or by a role
whose rights it may use; USAGE of the schema is not asked for, as a single GRANT gives it. What a view, a rule or a
function lets others do is not seen.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from psycopg import sql

from whimbrel_api.cutover import WRITERS_NAMED, TargetWriters
from whimbrel_worker.grants import OWNER, PUBLIC, Grants

Place = tuple[str, str]
"""A table's schema and name."""
_RIGHTS: Final = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
_WRITES_ALL: Final = "pg_write_all_data"
_LENGTH: Final = 500


@dataclass(slots=True)
class _Hold:
    """What a role holds in one schema: rights, on which tables, and the tables that it owns."""

    rights: set[str] = field(default_factory=set)
    tables: set[str] = field(default_factory=set)
    owned: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Found:
    """What was found so far; remedies in order, none twice."""

    roles: list[str] = field(default_factory=list)
    remedies: dict[str, None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def judge(
    grants: Grants, places: Collection[Place], *, allowed: Collection[str], administrators: Collection[str] = ()
) -> TargetWriters:
    """Who may write to these tables. `administrators`: roles that always may, like superusers, whatever is granted."""
    return _Judge(grants, places, administrators).verdict(frozenset(allowed))


class _Judge:
    def __init__(self, grants: Grants, places: Collection[Place], administrators: Collection[str]) -> None:
        self._grants, self._roles = grants, grants.roles
        self._ours = {oid for oid, role in grants.roles.items() if role.ours}
        self._account = next((grants.roles[oid].name for oid in self._ours), "")
        self._always = {oid for oid, role in grants.roles.items() if role.superuser or role.name in administrators}
        self._everything = {oid for oid, role in grants.roles.items() if role.name == _WRITES_ALL}
        self._holds = self._held(places)

    def verdict(self, allowed: Collection[str]) -> TargetWriters:
        found = _Found()
        if PUBLIC in self._holds:
            self._tell(found, PUBLIC, {PUBLIC: PUBLIC})
        for oid, role in sorted(self._roles.items(), key=lambda item: item[1].name):
            if not role.can_login or oid in self._ours or oid in self._always:
                continue
            reached = self._reached(oid)
            if role.name in allowed:
                if any(self._writes(holder) for holder in reached):
                    found.notes.append(f"{quoted(role.name)} may write, as spec.cutover.allowedWriters says")
            else:
                self._tell(found, oid, reached)
        found.notes += self._later()
        always = [self._roles[oid] for oid in self._always - self._ours]
        superusers = sorted(quoted(role.name) for role in always if role.can_login)
        return TargetWriters(
            account=quoted(self._account) if self._account else "",
            tables=len({(schema, name) for schema, name in self._seen}),
            roles=_cut(found.roles),
            roles_total=len(found.roles),
            remedies=_counted(list(found.remedies)),
            superusers=superusers[:WRITERS_NAMED],
            superusers_total=len(superusers),
            notes=_counted(found.notes),
        )

    def _held(self, places: Collection[Place]) -> dict[int, dict[str, _Hold]]:
        wanted, holds = frozenset(places), dict[int, dict[str, _Hold]]()
        self._seen: set[Place] = set()
        for each in self._grants.held:
            if (each.schema, each.table) not in wanted:
                continue
            self._seen.add((each.schema, each.table))
            if each.holder in self._ours:
                continue
            hold = holds.setdefault(each.holder, {}).setdefault(each.schema, _Hold())
            if each.right == OWNER:
                hold.owned.add(each.table)
            else:
                hold.rights.add(each.right)
                hold.tables.add(each.table)
        return holds

    def _writes(self, oid: int) -> bool:
        return oid in self._holds or oid in self._ours | self._always | self._everything

    def _reached(self, start: int) -> dict[int, int]:
        """All roles whose rights a role may use, itself first; each with the one through which it was reached."""
        reached, next_up = {start: start}, [start]
        while next_up:
            at = next_up.pop(0)
            for role in sorted(self._grants.members.get(at, ())):
                if role not in reached:
                    reached[role] = at
                    next_up.append(role)
        return reached

    def _tell(self, found: _Found, oid: int, reached: Mapping[int, int]) -> None:
        """Add what a role may do, and what would end that."""
        ways: list[str] = []
        for holder, through in reached.items():
            if holder != oid and holder in self._ours | self._always | self._everything:
                ways.append(f"may act as {self._title(holder)}")
                found.remedies[self._leave(holder, through)] = None
            for schema, hold in sorted(self._holds.get(holder, {}).items()):
                by = "" if holder == oid else f" through {self._name(holder)}"
                ways.append(f"{_told(schema, hold)}{by}")
                found.remedies.update(dict.fromkeys(self._ends(schema, hold, holder, through)))
        if ways:
            found.roles.append(_short(f"{self._name(oid)} {'; '.join(ways)}"))

    def _ends(self, schema: str, hold: _Hold, holder: int, through: int) -> Iterator[str]:
        """The SQL that takes a hold away."""
        if hold.rights:
            rights = ", ".join(right for right in _RIGHTS if right in hold.rights)
            yield f"REVOKE {rights} ON ALL TABLES IN SCHEMA {quoted(schema)} FROM {self._name(holder)};"
        if hold.owned and holder != through:
            yield self._leave(holder, through)
        elif hold.owned:
            owned = sorted(hold.owned)
            more = f" (and {len(owned) - 1} more tables)" if len(owned) > 1 else ""
            yield f"ALTER TABLE {quoted(schema, owned[0])} OWNER TO {quoted(self._account)};{more}"

    def _leave(self, holder: int, through: int) -> str:
        return f"REVOKE {self._name(holder)} FROM {self._name(through)};"

    def _title(self, holder: int) -> str:
        if holder in self._ours:
            return f"{self._name(holder)}, the migration's own account"
        return f"{'superuser ' if holder in self._always else ''}{self._name(holder)}"

    def _name(self, oid: int) -> str:
        """A role as SQL names it. PUBLIC is a keyword; one that was dropped since has its number alone."""
        if oid == PUBLIC:
            return "PUBLIC"
        role = self._roles.get(oid)
        return quoted(role.name if role is not None else str(oid))

    def _later(self) -> Iterator[str]:
        """What opens no table now, but may once there are more."""
        rights: dict[tuple[str, int], set[str]] = {}
        for each in self._grants.later:
            if each.holder not in self._ours | self._always:
                rights.setdefault((each.schema, each.holder), set()).add(each.right)
        for (schema, holder), found in sorted(rights.items()):
            place = f" IN SCHEMA {quoted(schema)}" if schema else ""
            if "CREATE" in found:
                yield f"{self._name(holder)} may make tables of its own in {quoted(schema)}"
            if given := ", ".join(right for right in _RIGHTS if right in found):
                yield _short(
                    f"tables made later are open to {self._name(holder)}: ALTER DEFAULT PRIVILEGES FOR ROLE "
                    f"{quoted(self._account)}{place} REVOKE {given} ON TABLES FROM {self._name(holder)};"
                )


def quoted(*names: str) -> str:
    """A name as SQL takes it, on one line whatever it holds (PostgreSQL manual, "Identifiers with Unicode Escapes")."""
    return ".".join(_quoted(name) for name in names)


def _quoted(name: str) -> str:
    if name.isprintable():
        return sql.Identifier(name).as_string(None)
    escaped = (
        each if each.isprintable() and each not in '\\"' else {"\\": "\\\\", '"': '""'}.get(each, f"\\+{ord(each):06X}")
        for each in name
    )
    return f'U&"{"".join(escaped)}"'


def _told(schema: str, hold: _Hold) -> str:
    parts = []
    if hold.rights:
        rights = ", ".join(right for right in _RIGHTS if right in hold.rights)
        parts.append(f"holds {rights} on {_tables(hold.tables)} of {quoted(schema)}")
    if hold.owned:
        parts.append(f"owns {_tables(hold.owned)} of {quoted(schema)}")
    return ", ".join(parts)


def _tables(names: Collection[str]) -> str:
    return "1 table" if len(names) == 1 else f"{len(names)} tables"


def _short(text: str) -> str:
    return text if len(text) <= _LENGTH else f"{text[: _LENGTH - 1]}…"


def _cut(texts: Sequence[str]) -> list[str]:
    return list(texts[:WRITERS_NAMED])


def _counted(texts: Iterable[str]) -> list[str]:
    """The first of them, and how many more there are."""
    every = list(texts)
    if len(every) <= WRITERS_NAMED:
        return every
    return [*every[: WRITERS_NAMED - 1], f"and {len(every) - WRITERS_NAMED + 1} more"]
