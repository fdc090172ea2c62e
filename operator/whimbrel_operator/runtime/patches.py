"""Merge patches (RFC 7386) over specs as plain JSON objects. Where they are kept stands in store."""

from collections.abc import Mapping
from typing import Any


def merge_patch(value: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """The value with the patch applied: objects are merged, null removes, everything else replaces (RFC 7386)."""
    merged = dict(value)
    for name, new in patch.items():
        if new is None:
            merged.pop(name, None)
        elif isinstance(new, Mapping):
            old = merged.get(name)
            merged[name] = merge_patch(old if isinstance(old, Mapping) else {}, new)
        else:
            merged[name] = new
    return merged


def drop_overruled(overlay: Mapping[str, Any], old: Any, new: Any) -> dict[str, Any]:
    """The overlay without the fields that a newer manifest itself has changed."""
    kept: dict[str, Any] = {}
    for name, value in overlay.items():
        before, after = _field(old, name), _field(new, name)
        if isinstance(value, Mapping):
            if inner := drop_overruled(value, before, after):
                kept[name] = inner
        elif before == after:
            kept[name] = value
    return kept


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None
