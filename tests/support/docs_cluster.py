"""How the docs' lines of kubectl and helm are run on a cluster where each name in them exists: adapted, never replaced.

kubectl looks for real, only not for ever; what would change something is sent as `--dry-run=server`, so that the API
server judges every word of it. Helm is its own library, whose command line the tests do not have. Nothing is run here.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import helm_python

# What a reader puts in; on the test's cluster everything is called like that.
PLACEHOLDERS: Final = {
    "NAMESPACE": "flights",
    "NAME": "flights",
    "POD": "pod",
    "JOB": "job",
    "UID": "0",
    "REVISION": "1",
}
LOOKS: Final = frozenset({"auth", "completion", "describe", "events", "explain", "get", "logs", "rollout", "wait"})
CHANGES: Final = frozenset({"annotate", "apply", "create", "delete", "label", "patch"})
_ENDLESS: Final = frozenset({"-w", "--watch"})
_PLACEHOLDER: Final = re.compile(rf"\b({'|'.join(PLACEHOLDERS)})\b")


@dataclass(frozen=True)
class Kubectl:
    """Arguments for kubectl, and what its answer may say where it fails all the same."""

    arguments: tuple[str, ...]
    may_fail: str = ""


def kubectl(words: Sequence[str]) -> Kubectl:
    """A line of the docs without its program. Raises ValueError for a verb that is not known here."""
    filled = tuple(_PLACEHOLDER.sub(lambda found: PLACEHOLDERS[found[1]], word) for word in words)
    verb = _verb(filled)
    if verb in CHANGES:
        return Kubectl((*filled, "--dry-run=server"), "already exists" if verb == "create" else "")
    if verb == "edit":
        return Kubectl(filled)
    if verb not in LOOKS:
        raise ValueError(f"kubectl {verb} is not known: say in LOOKS or CHANGES how it is run")
    bounded = tuple(re.sub(r"^--timeout=\S+", "--timeout=1s", word) for word in filled if word not in _ENDLESS)
    return Kubectl(bounded, "timed out waiting for the condition" if verb == "wait" else "")


def _verb(words: Sequence[str]) -> str:
    """The first word that is neither an option nor the namespace of `-n`."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        at += 2 if words[at] == "-n" else 1
    return words[at] if at < len(words) else ""


@dataclass(frozen=True)
class Helm:
    """A line of Helm's: what is done with which release, from which chart, with which values."""

    verb: str
    release: str
    namespace: str
    chart: str = ""
    revision: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


def helm(words: Sequence[str]) -> Helm:
    """A line of the docs without its program. Raises ValueError for what is not known here."""
    parser = argparse.ArgumentParser(prog="helm", exit_on_error=False, add_help=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("install", "upgrade", "template", "uninstall", "rollback", "history", "test"):
        _options(verbs.add_parser(verb, exit_on_error=False, add_help=False), verb)
    try:
        found = parser.parse_args([_PLACEHOLDER.sub(lambda each: PLACEHOLDERS[each[1]], word) for word in words])
    except (argparse.ArgumentError, SystemExit) as error:
        raise ValueError(f"helm {' '.join(words)}: {error}") from None
    values: dict[str, Any] = {}
    for text in getattr(found, "set", []):
        values = merged(values, dict(helm_python.parse_set_string(text)))
    for text in getattr(found, "set_string", []):
        values = merged(values, dict(helm_python.parse_set_string_values(text)))
    flags = tuple(name for name in ("create_namespace", "no_hooks", "reset_then_reuse_values") if vars(found).get(name))
    told = {name: vars(found)[name] for name in ("chart", "revision") if name in vars(found)}
    return Helm(found.verb, found.release, found.namespace, values=values, flags=flags, **told)


def _options(parser: argparse.ArgumentParser, verb: str) -> None:
    parser.add_argument("release")
    parser.add_argument("-n", dest="namespace", required=True)
    if verb in ("install", "upgrade", "template"):
        parser.add_argument("chart")
        parser.add_argument("--set", action="append", default=[])
        parser.add_argument("--set-string", action="append", default=[])
    if verb == "install":
        parser.add_argument("--create-namespace", action="store_true")
    if verb == "upgrade":
        parser.add_argument("--reset-then-reuse-values", action="store_true")
    if verb in ("template", "uninstall"):
        parser.add_argument("--no-hooks", action="store_true")
    if verb == "rollback":
        parser.add_argument("revision", type=int)


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Values over values, as Helm lays them."""
    both = dict(below)
    for name, value in above.items():
        inner = both.get(name)
        both[name] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return both
