"""The NAME of a command: one argument, which a shell completes from the resources that there are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from whimbrel_cli.places import KINDS, Where
from whimbrel_operator.errors import OperatorError

PLUGIN: Final = "kubectl whimbrel"
Command = Callable[..., Any]


def name_argument(*kinds: str, required: bool = True) -> Callable[[Command], Command]:
    """The argument NAME of a command for resources of these kinds; without a kind, of all."""

    def names(context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem[str]]:
        return completions(context, begun, kinds or KINDS)

    return click.argument("name", required=required, shell_complete=names)


def completions(context: click.Context, begun: str, kinds: tuple[str, ...]) -> list[CompletionItem[str]]:
    """The resources of these kinds whose names begin so, in the namespace that the line names so far.

    One that shares its name with another kind carries its own kind before it, unless it is the first that is found.
    """
    found: dict[str, str] = {}
    for kind in kinds:
        for name in _names(context, kind):
            found.setdefault(f"{kind.lower()}/{name}" if name in found else name, kind)
    return [CompletionItem(name, help=kind) for name, kind in sorted(found.items()) if name.startswith(begun)]


def _names(context: click.Context, kind: str) -> list[str]:
    try:
        place = _where(context).open()
        namespace = context.params.get("namespace") or place.caller.namespace
        return [key.name for key in place.store.list(kind, namespace)]
    except (OperatorError, OSError):
        # A shell shows what is written while it completes in the midst of the line; the command itself will say it.
        return []


def _where(context: click.Context) -> Where:
    """The place that the options before the command name. While a line is completed, no command has run to say it."""
    root = context.find_root()
    said = root.params
    return Where(
        _path(said.get("state")),
        bool(said.get("cluster")),
        said.get("kube_context"),
        _path(said.get("kubeconfig")),
        plugin=root.info_name == PLUGIN,
    )


def _path(given: object) -> Path | None:
    return Path(str(given)) if given else None
