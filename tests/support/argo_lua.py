"""Argo CD's evaluation of health checks and actions, on Lua 5.1 with what Argo CD opens of it. No script stands here.

What it opens by default: the base library, `table`, and `os.time` and `os.date`; no string, math, io, debug or require
(util/lua/lua.go and oslib_safe.go in argoproj/argo-cd). Here are none of `os` and no loaders either: a script that gets
on with this gets on there. Argo CD gives a script one second; here it has a number of instructions.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lupa import lua51

Json = dict[str, Any]
ROOT: Final = Path(__file__).resolve().parents[2]
ARGOCD: Final = ROOT / "charts" / "argocd"
SCRIPTS: Final = ARGOCD / "resource_customizations" / "whimbrel.dev"
STATUSES: Final = ("Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown")

_INSTRUCTIONS: Final = 1_000_000
_ALLOWED: Final = (
    "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "print", "rawequal", "rawget", "rawset",
    "select", "setmetatable", "table", "tonumber", "tostring", "type", "unpack", "xpcall", "_G", "_VERSION",
)  # fmt: skip
_PRISON: Final = """
local allowed, most = ...
local words, hook = {}, debug.sethook
for word in allowed:gmatch("%S+") do words[word] = true end
getmetatable("").__index = nil
for name in pairs(_G) do if not words[name] then _G[name] = nil end end
hook(function() error("it takes too long", 0) end, "", most)
"""


class ScriptFailed(Exception):
    """A script raised an error; its message is what Argo CD shows."""


def run(script: str, obj: Mapping[str, Any]) -> Any:
    """What a script makes of an object, as JSON. Raises ScriptFailed."""
    lua = lua51.LuaRuntime(unpack_returned_tuples=True)
    lua.execute(_PRISON, " ".join(_ALLOWED), _INSTRUCTIONS)
    lua.globals()["obj"] = _to_lua(lua, dict(obj))
    try:
        return _to_json(lua.execute(script))
    except lua51.LuaError as error:
        raise ScriptFailed(str(error)) from None


def _to_lua(lua: Any, value: Any) -> Any:
    """As Argo CD decodes: a null is no entry."""
    if isinstance(value, dict):
        table = lua.table()
        for key, item in value.items():
            table[key] = _to_lua(lua, item)
        return table
    if isinstance(value, list):
        table = lua.table()
        for number, item in enumerate(value, start=1):
            table[number] = _to_lua(lua, item)
        return table
    return value


def _to_json(value: Any) -> Any:
    """As gopher-json encodes: an empty table is an empty list, and a sparse list is refused."""
    if lua51.lua_type(value) != "table":
        return int(value) if isinstance(value, float) and value.is_integer() else value
    keys = list(value)
    if not keys:
        return []
    if all(isinstance(key, str) for key in keys):
        return {key: _to_json(value[key]) for key in sorted(keys)}
    if keys != list(range(1, len(keys) + 1)):
        raise ScriptFailed(f"it returns a table with the keys {keys}")
    return [_to_json(value[key]) for key in keys]


def script(kind: str, path: str = "health.lua") -> str:
    """A script of a kind, by its path below the kind's folder."""
    return (SCRIPTS / kind / path).read_text(encoding="utf-8")


def health(obj: Mapping[str, Any]) -> tuple[str, str]:
    """The health that Argo CD shows for an object, and its message. Raises ScriptFailed for what it would refuse."""
    found = run(script(obj["kind"]), obj)
    if not isinstance(found, dict) or found.get("status") not in STATUSES:
        raise ScriptFailed(f"no health: {found!r}")
    return found["status"], found.get("message", "")


def actions(obj: Mapping[str, Any]) -> dict[str, tuple[bool, dict[str, str]]]:
    """The actions that Argo CD lists for an object: whether each is enabled, and how it is shown."""
    found = run(script(obj["kind"], "actions/discovery.lua"), obj)
    shown = ("displayName", "iconClass")
    return {
        name: (not about.get("disabled", False), {key: about[key] for key in shown if key in about})
        for name, about in found.items()
    }


def offered(obj: Mapping[str, Any]) -> set[str]:
    """The actions that a person can click."""
    return {name for name, (enabled, _) in actions(obj).items() if enabled}


def act(name: str, obj: Mapping[str, Any]) -> Json:
    """The merge patch that Argo CD sends for an action. Raises ScriptFailed where the action refuses."""
    found = run(script(obj["kind"], f"actions/{name}/action.lua"), obj)
    return merge_patch(json.loads(json.dumps(obj)), _mended(found, dict(obj)))


def _mended(new: Any, old: Any) -> Any:
    """As Argo CD cleans what a script returns: an empty list that was an empty object is one again."""
    if new == [] and isinstance(old, dict):
        return old
    if isinstance(new, dict) and isinstance(old, dict):
        return {key: _mended(item, old.get(key)) for key, item in new.items()}
    if isinstance(new, list) and isinstance(old, list):
        return [_mended(item, was) for item, was in zip(new, old, strict=False)] + new[len(old) :]
    return new


def merge_patch(old: Json, new: Json) -> Json:
    """The JSON merge patch (RFC 7396) that leads from one object to another."""
    patch: Json = {key: None for key in old if key not in new}
    for key, item in new.items():
        was = old.get(key)
        if isinstance(item, dict) and isinstance(was, dict):
            if inner := merge_patch(was, item):
                patch[key] = inner
        elif key not in old or item != was:
            patch[key] = item
    return patch


def merged(obj: Any, patch: Any) -> Any:
    """What an API server makes of an object by a merge patch."""
    if not isinstance(patch, dict):
        return patch
    found = dict(obj) if isinstance(obj, dict) else {}
    for key, item in patch.items():
        if item is None:
            found.pop(key, None)
        else:
            found[key] = merged(found.get(key), item)
    return found
