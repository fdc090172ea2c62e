"""The entry of `whimbrel`: the group of commands, and how every failure becomes an exit code and a few lines."""

import io
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NoReturn

import click

from whimbrel_api.errors import ManifestError
from whimbrel_cli.commands.assess import assess
from whimbrel_cli.commands.completion import completion, for_kubectl
from whimbrel_cli.commands.cutover import cutover
from whimbrel_cli.commands.delete import delete
from whimbrel_cli.commands.demo import demo
from whimbrel_cli.commands.diff import diff
from whimbrel_cli.commands.logs import logs
from whimbrel_cli.commands.report import report
from whimbrel_cli.commands.rollback import rollback
from whimbrel_cli.commands.run import run
from whimbrel_cli.commands.status import status
from whimbrel_cli.commands.steer import approve, cancel, pause, resume
from whimbrel_cli.commands.testbed import testbed, traffic
from whimbrel_cli.commands.tree import tree
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.naming import PLUGIN
from whimbrel_cli.places import Where
from whimbrel_operator.errors import NoCluster, NotAllowed, NotFound, OperatorError


def _version() -> str:
    """The installed version; from a source tree that is not installed there is none."""
    try:
        return version("whimbrel")
    except PackageNotFoundError:
        return "from the source tree"


@click.group(epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version=_version(), message="whimbrel %(version)s")
@click.option(
    "--state", type=click.Path(file_okay=False, path_type=Path), envvar="WHIMBREL_STATE", show_envvar=True,
    help="Where resources and their state are kept; by default a folder in your home.",
)  # fmt: skip
@click.option("--cluster", is_flag=True, help="Look at and steer what is on the cluster that kubectl would use.")
@click.option("--context", "kube_context", metavar="NAME", help="The kubeconfig's context to use; implies --cluster.")
@click.option(
    "--kubeconfig", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Instead of $KUBECONFIG or ~/.kube/config; implies --cluster.",
)  # fmt: skip
@click.pass_context
def whimbrel(
    context: click.Context, state: Path | None, cluster: bool, kube_context: str | None, kubeconfig: Path | None
) -> None:
    """Moves a live database to another system while the application goes on writing.

    A migration is described in a file (kind: Migration). `run` works on it on this machine until it is done; at any
    moment it can be stopped and run again, and goes on from what the target holds. The other commands look at it and
    steer it from a second terminal.

    \b
    Start here:
      whimbrel demo                        a MySQL server moves to Aurora DSQL, on this machine
      whimbrel assess shop.yaml --secrets ./secrets
      whimbrel run shop.yaml --secrets ./secrets
      whimbrel status shop -w              in a second terminal
      whimbrel tree shop                   what belongs to it, and how each part is
      whimbrel logs shop -f                what its workers write
      whimbrel cutover --dry-run shop      what a cutover would do, before it is approved
      whimbrel approve shop                when it awaits approval
      whimbrel report shop > shop.md       the record of it, when it is done

    On a cluster the operator works on what is applied. `kubectl whimbrel` looks at and steers it, as `whimbrel
    --cluster` does; both use the cluster that kubectl would use.

    \b
    On a cluster:
      kubectl apply -f shop.yaml
      kubectl whimbrel status shop -w
      kubectl whimbrel approve shop
    """
    context.obj = Where(state, cluster, kube_context, kubeconfig, plugin=context.info_name == PLUGIN)


for _command in (
    assess,
    run,
    status,
    tree,
    logs,
    diff,
    report,
    cutover,
    approve,
    rollback,
    pause,
    resume,
    cancel,
    delete,
    traffic,
    testbed,
    demo,
    completion,
):
    whimbrel.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and ends the process with one of the exit codes of `Exit`.

    Under the name kubectl-whimbrel, by which kubectl finds it, the cluster is where the commands look. A character
    that the terminal's encoding lacks becomes a question mark.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(invoke(arguments, PLUGIN if Path(sys.argv[0]).stem == "kubectl-whimbrel" else "whimbrel"))


def kubectl_complete() -> None:
    """The entry of kubectl_complete-whimbrel, which kubectl asks when its user presses TAB."""
    click.echo(for_kubectl(whimbrel, sys.argv[1:]))


def invoke(arguments: Sequence[str] | None = None, called: str = "whimbrel") -> int:
    """Runs the command line and gives the exit code. A failure becomes a few lines on stderr, never a traceback;
    only with WHIMBREL_TRACEBACK set, errors that nobody foresaw are raised.
    """
    try:
        given = None if arguments is None else list(arguments)
        result = whimbrel.main(args=given, prog_name=called, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return Exit.USAGE
    except BrokenPipeError:
        # Whoever read the output has gone; the interpreter must not complain while it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except (Exception, KeyboardInterrupt) as error:
        known = _foreseen(error)
        if known is None and os.environ.get("WHIMBREL_TRACEBACK"):
            raise
        return _told(known or _unforeseen(error))
    return result if isinstance(result, int) else Exit.DONE


_USAGE: Final = (NotFound, NotAllowed, NoCluster)


def _of_the_operator(error: OperatorError) -> CliError:
    """What happened, where and why on one line, what to do on the next."""
    what = str(OperatorError(error.what, where=error.where, why=error.why))
    return CliError(what, error.todo, Exit.USAGE if isinstance(error, _USAGE) else Exit.FAILED)


_TESTBED: Final = ("whimbrel_testbed", "helm_python", "pymysql", "psycopg", "botocore", "cryptography")


def _foreseen(error: BaseException) -> CliError | None:
    """An error as the lines that a person reads; None for one that nobody foresaw."""
    match error:
        case CliError():
            return error
        case ManifestError():
            return CliError(str(error), "Correct the manifest and run it again; nothing was started.", Exit.USAGE)
        case OperatorError():
            return _of_the_operator(error)
        case click.Abort() | KeyboardInterrupt():
            return CliError("Interrupted.", code=Exit.INTERRUPTED)
        case _:
            return _from_outside(error)


def _from_outside(error: BaseException) -> CliError | None:
    """An error of the interpreter or the operating system that has a meaning here."""
    match error:
        case ModuleNotFoundError() if (error.name or "").split(".")[0] in _TESTBED:
            todo = "Install it with its extras: pip install 'whimbrel[chart,cli,operator,testbed,worker]'"
            return CliError(f"This command needs the test bed, which is not installed ({error.name}).", todo)
        case OSError():
            where = f" ({error.filename})" if error.filename else ""
            return CliError(f"The operating system refused: {error.strerror or type(error).__name__}{where}.")
        case _:
            return None


def _unforeseen(error: BaseException) -> CliError:
    """Its type alone: its text may hold what must not be shown."""
    todo = "Set WHIMBREL_TRACEBACK=1 and run it again to see where it comes from, then report it."
    return CliError(f"An error that whimbrel does not know: {type(error).__name__}.", todo)


def _told(error: CliError) -> Exit:
    click.echo(f"whimbrel: {error.what}", err=True)
    if error.todo:
        click.echo(error.todo, err=True)
    return error.code
