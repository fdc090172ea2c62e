"""Which tables a manifest selects, and what it says of one of them. Pure; what a table is, endpoints know."""

from collections.abc import Sequence
from fnmatch import fnmatchcase

from whimbrel_api.migration import TableOverride, Tables


def is_wanted(full_name: str, wanted: Tables) -> bool:
    """Whether a table is selected: exclude wins, and everything is in when include is empty."""
    included = not wanted.include or any(fnmatchcase(full_name, glob) for glob in wanted.include)
    return included and not any(fnmatchcase(full_name, glob) for glob in wanted.exclude)


def override_of(full_name: str, wanted: Tables) -> TableOverride | None:
    """What is different for this table; the first override that fits counts."""
    return next((override for override in wanted.overrides if fnmatchcase(full_name, override.name)), None)


def target_place(schema: str, name: str, override: TableOverride | None) -> tuple[str, str]:
    """Schema and table on the target: the source's own unless renamed to `table` or `schema.table`."""
    if override is None or not override.rename_to:
        return schema, name
    renamed, dot, table = override.rename_to.partition(".")
    return (renamed, table) if dot else (schema, renamed)


def possible_places(full_name: str, wanted: Tables) -> set[tuple[str, str]]:
    """Where a source's table stands on the target, by its full name alone; several where a name holds a dot itself."""
    parts, override = full_name.split("."), override_of(full_name, wanted)
    splits = ((".".join(parts[:at]), ".".join(parts[at:])) for at in range(1, len(parts)))
    return {target_place(schema, name, override) for schema, name in splits}


def unmatched(names: Sequence[str], wanted: Tables) -> list[str]:
    """The globs of `include` that select none of these names."""
    return [glob for glob in wanted.include if not any(fnmatchcase(name, glob) for name in names)]
