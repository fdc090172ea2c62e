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


def unmatched(names: Sequence[str], wanted: Tables) -> list[str]:
    """The globs of `include` that select none of these names."""
    return [glob for glob in wanted.include if not any(fnmatchcase(name, glob) for name in names)]
