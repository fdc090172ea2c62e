"""`whimbrel run`: works on manifests until they are at their end. How work is decided and done is the operator's."""

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console

from whimbrel_api import durations
from whimbrel_api.migration import CheckResult, Migration, Phase
from whimbrel_api.validation import Validation
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.guidance import Resource, condition, finished
from whimbrel_cli.inputs import put, read_files
from whimbrel_cli.places import Where
from whimbrel_cli.screen import Screen
from whimbrel_cli.watcher import Watcher
from whimbrel_operator import loop


def length(_context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """A click callback: a duration such as 30s or 10m in seconds."""
    if value is None:
        return None
    try:
        return durations.seconds(value)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


@click.command(epilog=EXIT_CODES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--secrets", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR",
    help="Secrets as Kubernetes mounts them: DIR/NAME/KEY, such as DIR/mysql-source/password.",
)  # fmt: skip
@click.option("--timeout", metavar="DURATION", callback=length, help="Stop after this time, such as 30m; exit code 5.")
@click.option("--stop-when-stalled", is_flag=True, help="End with exit code 3 when a person has to act, do not wait.")
@click.pass_obj
def run(
    where: Where, files: tuple[str, ...], secrets: Path | None, timeout: float | None, stop_when_stalled: bool
) -> int:
    """Works on the resources in FILEs until they are at their end.

    A FILE is YAML of one or more documents: Migration, Validation, ReverseSync, and Secret (stringData or data). FILE
    may be - for the standard input. Secrets may also stand in a folder, so that no manifest holds a password. A
    ReverseSync has no end: it flows until Ctrl-C.

    Ctrl-C stops the workers after their current batch. Run the same files again to go on: what was done is read from
    the target, not from this machine. What was approved or paused before still holds.

    \b
    Examples:
      whimbrel run shop.yaml --secrets ./secrets
      whimbrel run shop.yaml secrets.yaml --timeout 2h
      whimbrel run shop.yaml --secrets ./secrets > shop.log      one line for each thing of note
    """
    store = where.folder("The operator works on what is applied: kubectl apply -f FILE")
    keys = put(store, read_files(files), secrets)

    def until(resources: Sequence[Resource]) -> bool:
        stalled = stop_when_stalled and any(condition(resource.status, "Stalled") for resource in resources)
        return stalled or all(finished(resource) for resource in resources)

    with Screen(Console(), [Watcher(store, key) for key in keys]):
        result = loop.run(store, keys, timeout=timeout, until=until)
    if result.interrupted:
        raise CliError("Interrupted; the workers have stopped.", "Run the same command to go on.", Exit.INTERRUPTED)
    return outcome(result.resources, timed_out=result.timed_out)


def outcome(resources: Sequence[Resource], *, timed_out: bool = False) -> Exit:
    """The exit code that these resources' last states amount to: the worst one."""
    codes = [_code(resource) for resource in resources]
    if Exit.STALLED in codes:
        return Exit.STALLED
    if timed_out:
        return Exit.TIMED_OUT
    return next((code for code in (Exit.FAILED, Exit.DIFFERENT) if code in codes), Exit.DONE)


def _code(resource: Resource) -> Exit:
    if not finished(resource) and condition(resource.status, "Stalled"):
        return Exit.STALLED
    if isinstance(resource, Migration):
        return Exit.FAILED if resource.status.phase is Phase.CANCELLED else Exit.DONE
    return _code_of_check(resource) if isinstance(resource, Validation) else Exit.DONE


def _code_of_check(validation: Validation) -> Exit:
    bad = validation.status.result in (CheckResult.DIFFERENT, CheckResult.INCONCLUSIVE)
    return Exit.DIFFERENT if bad else Exit.DONE
