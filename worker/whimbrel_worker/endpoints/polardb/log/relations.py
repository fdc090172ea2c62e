"""Tables as the server's catalogue describes them, in the form in which its log would. No change is read here."""

from collections.abc import Iterable
from typing import Any, Final

from whimbrel_worker.endpoints.polardb.failures import guarded
from whimbrel_worker.endpoints.polardb.log.messages import Relation, RelationColumn, ReplicaIdentity
from whimbrel_worker.libpq import Connection

_DESCRIBED: Final = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relreplident::text,
  json_agg(json_build_array(a.attname, a.atttypid::bigint, a.atttypmod, c.relreplident = 'f' OR EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = c.oid AND a.attnum = ANY(i.indkey)
    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
  ) ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
WHERE c.relkind IN ('r', 'p') AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[]))
GROUP BY c.oid, n.nspname, c.relname, c.relreplident
"""


def describe(connection: Connection, places: Iterable[tuple[str, str]], where: str) -> dict[tuple[str, str], Relation]:
    """Those of these tables (schema and name) that are there."""
    wanted = list(places)
    with guarded(where):
        rows = connection.execute(_DESCRIBED, ([place[0] for place in wanted], [place[1] for place in wanted]))
        return {(row[1], row[2]): _relation(*row) for row in rows.fetchall()}


def _relation(oid: int, schema: str, name: str, identity: str, columns: list[list[Any]]) -> Relation:
    described = tuple(RelationColumn(column, key, kind, modifier) for column, kind, modifier, key in columns)
    return Relation(oid, schema, name, ReplicaIdentity(identity.encode()), described)
