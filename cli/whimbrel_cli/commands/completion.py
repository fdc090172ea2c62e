"""`whimbrel completion`, and what kubectl asks when its user presses TAB behind `kubectl whimbrel`."""

from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.naming import PLUGIN

_SHELLS: Final = ("bash", "zsh", "fish")
_VARIABLE: Final = "_WHIMBREL_COMPLETE"
_FILES, _NO_FILES = ":0", ":4"
"""What the last line tells kubectl: the shell's own completion of files, or none (cobra's ShellCompDirective)."""


@click.command(epilog=EXIT_CODES)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> int:
    """Writes the script that lets SHELL complete the commands of `whimbrel`, their options and the names of resources.

    kubectl completes `kubectl whimbrel` by itself, as soon as it completes its own commands and finds
    kubectl_complete-whimbrel on PATH, which is installed beside whimbrel.

    \b
    Examples:
      whimbrel completion bash > ~/.local/share/bash-completion/completions/whimbrel
      whimbrel completion zsh > ~/.zfunc/_whimbrel
      whimbrel completion fish > ~/.config/fish/completions/whimbrel.fish
    """
    found = get_completion_class(shell)
    if found is None:
        raise CliError(f"The library that reads the command line knows no {shell}.")
    # The base class's own way: that of bash starts a bash first, to look at its version.
    click.echo(ShellComplete.source(found(context.find_root().command, {}, "whimbrel", _VARIABLE)))
    return Exit.DONE


def for_kubectl(group: click.Command, words: Sequence[str]) -> str:
    """What may stand in place of the last of the words behind `kubectl whimbrel`, as kubectl wants it told.

    One proposal a line, a tab, what it means; then the directive. The protocol: kubernetes/kubernetes, pull 105867.
    """
    *before, begun = words or [""]
    found = ShellComplete(group, {}, PLUGIN, _VARIABLE).get_completions(list(before), begun)
    plain = [_proposal(each) for each in found if each.type == "plain"]
    return "\n".join([*plain, _FILES if any(each.type in ("file", "dir") for each in found) else _NO_FILES])


def _proposal(item: CompletionItem[str]) -> str:
    return f"{item.value}\t{item.help}" if item.help else item.value
