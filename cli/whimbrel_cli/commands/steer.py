"""`whimbrel approve`, `pause`, `resume` and `cancel`: orders to a migration, which `whimbrel run` carries out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from whimbrel_api.migration import Migration
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.guidance import finished
from whimbrel_cli.store import find, open_store
from whimbrel_operator.runtime.store import Key, LocalStore


def _named(command: Callable[..., None]) -> Callable[..., None]:
    """NAME and --namespace, as all commands here take them."""
    namespaced = click.option("-n", "--namespace", default="default", show_default=True, help="Its namespace.")
    return click.argument("name")(namespaced(command))


def _migration(state: Path | None, name: str, namespace: str) -> tuple[LocalStore, Key, Migration]:
    """The migration to steer. Raises CliError where it is at its end."""
    store = open_store(state)
    key = find(store, name, namespace, "Migration")
    resource = store.get(key)
    if not isinstance(resource, Migration):
        raise CliError(f"{name} is a {resource.kind}, no Migration.", code=Exit.USAGE)
    if finished(resource):
        raise CliError(f"{name} is {resource.status.phase.value} already; nothing is left to steer.")
    return store, key, resource


@click.command(epilog=EXIT_CODES)
@_named
@click.option("--plan", metavar="HASH", help="The plan that you have read; refused when it is not the current one.")
@click.pass_obj
def approve(state: Path | None, name: str, namespace: str, plan: str | None) -> None:
    """Approves the cutover of the migration NAME.

    An approval is given for one plan: source, target, tables, mode, thresholds and cutover policy. When one of these
    changes, or a cutover has timed out, the plan has another hash and needs a new approval.

    The cutover begins as soon as the other gates are open too. Then stop the application's writes to the source: the
    last changes are applied and checked, and the migration is Completed.

    \b
    Examples:
      whimbrel status shop                         shows the gates and the plan's hash
      whimbrel approve shop --plan sha256:1f3a...  the plan that you have seen
      whimbrel approve shop                        whatever plan is current
    """
    store, key, migration = _migration(state, name, namespace)
    current = migration.status.plan.hash
    if not current:
        raise CliError(
            f"{name} has no plan yet (phase {migration.status.phase.value}).", "Run it first: whimbrel run FILE"
        )
    if plan and plan != current:
        raise CliError(
            f"{plan} is not the plan of {name} any more; it is {current}.", f"Look at it with: whimbrel status {name}"
        )
    store.patch_spec(key, {"cutover": {"approvedPlan": current}})
    click.echo(f"Approved the plan {current} of {name}.")
    click.echo("It cuts over as soon as the gates are open; then stop the application's writes to the source.")


def _order(state: Path | None, name: str, namespace: str, patch: dict[str, Any], said: str) -> None:
    store, key, _ = _migration(state, name, namespace)
    store.patch_spec(key, patch)
    click.echo(said.format(name=name))


@click.command(epilog=EXIT_CODES, short_help="Pauses the migration NAME.")
@_named
@click.pass_obj
def pause(state: Path | None, name: str, namespace: str) -> None:
    """Pauses the migration NAME: its workers finish their batch and stop, its phase stays.

    The source goes on keeping its log; do not pause for longer than it keeps it (binlog_expire_logs_seconds).

    \b
    Example:
      whimbrel pause shop
    """
    _order(state, name, namespace, {"paused": True}, "{name} pauses. To go on: whimbrel resume {name}")


@click.command(epilog=EXIT_CODES)
@_named
@click.pass_obj
def resume(state: Path | None, name: str, namespace: str) -> None:
    """Lets the paused migration NAME go on from where it was.

    \b
    Example:
      whimbrel resume shop
    """
    _order(state, name, namespace, {"paused": False}, "{name} goes on. To look: whimbrel status {name} -w")


@click.command(epilog=EXIT_CODES)
@_named
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def cancel(state: Path | None, name: str, namespace: str, yes: bool) -> None:
    """Ends the migration NAME for good, without a cutover.

    The source is never changed. What was copied stays in the target, with the control tables that say so.

    \b
    Example:
      whimbrel cancel shop --yes
    """
    _migration(state, name, namespace)
    if not yes and not click.confirm(f"{name} cannot be taken up again after this. Cancel it?"):
        raise CliError(f"{name} was not cancelled.")
    _order(state, name, namespace, {"cancel": True}, "{name} is being cancelled.")
