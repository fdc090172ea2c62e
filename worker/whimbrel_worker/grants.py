"""Reads from a PostgreSQL-speaking catalogue who holds which rights to write to tables. What follows: see writers.

Only catalogues that Aurora DSQL has, too ("System tables and commands in Aurora DSQL": no pg_authid, no pg_database),
and the same few statements however many tables there are. PostgreSQL manual, "Privileges", "Role Membership",
"pg_auth_members": an edge counts where it lets its member use or take on the role; before version 16 each does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import sql

from whimbrel_worker.libpq import Connection

PUBLIC: Final = 0
"""The grantee that stands for every role."""
OWNER: Final = "OWNER"
"""Among the rights: the table's owner, who may give itself every other."""
_OPTIONS_SINCE: Final = 160_000

_ROLES: Final = """
SELECT oid::bigint, rolname::text, rolsuper, rolcanlogin, rolname IN (current_user, session_user) FROM pg_roles
"""
_MEMBERS: Final = "SELECT member::bigint, roleid::bigint FROM pg_auth_members"
_USABLE: Final = " WHERE inherit_option OR set_option"
_WRITING: Final = "a.privilege_type IN ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')"
_TABLES: Final = "pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
_HELD: Final = f"""
SELECT n.nspname::text, c.relname::text, c.relowner::bigint, '{OWNER}'
FROM {_TABLES} WHERE c.relkind IN ('r', 'p') AND n.nspname IN ({{schemas}})
UNION
SELECT n.nspname::text, c.relname::text, a.grantee::bigint, a.privilege_type::text
FROM {_TABLES} CROSS JOIN LATERAL aclexplode(c.relacl) AS a
WHERE c.relkind IN ('r', 'p') AND n.nspname IN ({{schemas}}) AND {_WRITING}
UNION
SELECT n.nspname::text, c.relname::text, a.grantee::bigint, a.privilege_type::text
FROM {_TABLES} JOIN pg_attribute AS t ON t.attrelid = c.oid CROSS JOIN LATERAL aclexplode(t.attacl) AS a
WHERE c.relkind IN ('r', 'p') AND n.nspname IN ({{schemas}}) AND {_WRITING} AND NOT t.attisdropped
"""
_LATER: Final = f"""
SELECT coalesce(n.nspname::text, ''), a.grantee::bigint, a.privilege_type::text
FROM pg_default_acl AS d JOIN pg_roles AS r ON r.oid = d.defaclrole AND r.rolname = current_user
LEFT JOIN pg_namespace AS n ON n.oid = d.defaclnamespace CROSS JOIN LATERAL aclexplode(d.defaclacl) AS a
WHERE d.defaclobjtype = 'r' AND {_WRITING} AND a.grantee <> d.defaclrole
  AND (d.defaclnamespace = 0 OR n.nspname IN ({{schemas}}))
UNION
SELECT n.nspname::text, a.grantee::bigint, a.privilege_type::text
FROM pg_namespace AS n CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
WHERE n.nspname IN ({{schemas}}) AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner
"""


@dataclass(frozen=True, slots=True)
class Role:
    """`ours`: the account that asks."""

    name: str
    superuser: bool = False
    can_login: bool = True
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """A right to a table: INSERT, UPDATE (of a column at least), DELETE, TRUNCATE or OWNER. `holder`: a role's oid."""

    schema: str
    table: str
    holder: int
    right: str


@dataclass(frozen=True, slots=True)
class Later:
    """A right that is no right to a table yet: to those that our account makes later, or CREATE in the schema.

    `schema` is empty for all of them.
    """

    schema: str
    holder: int
    right: str


@dataclass(frozen=True, slots=True)
class Grants:
    """What the catalogue says. `roles` by oid; `members`: whose rights a role may use directly, by oid."""

    roles: Mapping[int, Role]
    members: Mapping[int, Sequence[int]]
    held: Sequence[Held]
    later: Sequence[Later]


def read_grants(connection: Connection, schemas: Sequence[str]) -> Grants:
    """All rights to write to tables of these schemas. Raises psycopg.Error."""
    roles = {oid: Role(*told) for oid, *told in connection.execute(_ROLES).fetchall()}
    usable = _USABLE if connection.info.server_version >= _OPTIONS_SINCE else ""
    members: dict[int, list[int]] = {}
    for member, role in connection.execute(f"{_MEMBERS}{usable}".encode()).fetchall():
        members.setdefault(member, []).append(role)
    held = [Held(*row) for row in _asked(connection, _HELD, schemas, times=3)]
    later = [Later(*row) for row in _asked(connection, _LATER, schemas, times=2)]
    return Grants(roles, members, held, later)


def _asked(connection: Connection, statement: str, schemas: Sequence[str], *, times: int) -> list[tuple[Any, ...]]:
    """The rows of a statement that names the schemas so many times. No array: not every server takes one."""
    names = list(schemas) or [""]
    places = sql.SQL(", ").join(sql.Placeholder() * len(names))
    composed = sql.SQL(statement).format(schemas=places)
    return connection.execute(composed, names * times).fetchall()
