"""`whimbrel approve`, `pause`, `resume` and `cancel`: orders to a migration or a way back, by a change of its spec.

Who carries them out stands elsewhere: `whimbrel run` on one machine, the operator on a cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import yaml

from whimbrel_api.migration import Migration, MigrationStatus
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.guidance import finished
from whimbrel_cli.naming import name_argument
from whimbrel_cli.places import Place, Where, find
from whimbrel_operator.runtime.port import Key


def named(command: Callable[..., None]) -> Callable[..., None]:
    """NAME, --namespace and --dry-run, as all commands here take them."""
    namespaced = click.option("-n", "--namespace", help="Its namespace; by default `default`, or the context's own.")
    dry = click.option("--dry-run", is_flag=True, help="Show the change of the spec, and do not make it.")
    return name_argument("Migration", "ReverseSync")(namespaced(dry(command)))


@dataclass(frozen=True)
class Steered:
    """The resource to steer, where it is."""

    place: Place
    key: Key
    resource: Migration | ReverseSync

    def order(self, patch: dict[str, Any], *said: str, dry_run: bool) -> None:
        """Changes the spec and says so; or shows the change alone."""
        change = yaml.safe_dump({"spec": patch}, sort_keys=False).rstrip()
        if dry_run:
            click.echo(change)
            return
        self.place.store.patch_spec(self.key, patch)
        for line in said:
            click.echo(line)
        if keeper := self.place.kept_in_git(self.key):
            click.echo(f"{keeper} keeps this resource as git has it. Put this there too, or it is put back:\n{change}")

    def line(self, command: str) -> str:
        """A command on this resource, as a person would type it here."""
        return self.place.caller.line(command, self.resource)


def _steered(where: Where, name: str, namespace: str | None, kind: str | None = "Migration") -> Steered:
    """The resource to steer; without a kind a Migration or a ReverseSync. Raises CliError where it is at its end."""
    place = where.open()
    key = find(place, name, namespace, kind)
    resource = place.store.get(key)
    if not isinstance(resource, Migration | ReverseSync):
        raise CliError(f"{name} is a {resource.kind}, no Migration and no ReverseSync.", code=Exit.USAGE)
    if finished(resource):
        raise CliError(f"{name} is {resource.status.phase.value} already; nothing is left to steer.")
    return Steered(place, key, resource)


@click.command(epilog=EXIT_CODES)
@named
@click.option("--plan", metavar="HASH", help="The plan that you have read; refused when it is not the current one.")
@click.pass_obj
def approve(where: Where, name: str, namespace: str | None, plan: str | None, dry_run: bool) -> None:
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
    steered = _steered(where, name, namespace)
    status = steered.resource.status
    current = status.plan.hash if isinstance(status, MigrationStatus) else ""
    if not current:
        todo = f"It gets one when the work begins; to look: {steered.line('status')}"
        raise CliError(f"{name} has no plan yet (phase {status.phase.value}).", todo)
    if plan and plan != current:
        todo = f"Look at it with: {steered.line('status')}"
        raise CliError(f"{plan} is not the plan of {name} any more; it is {current}.", todo)
    asked = steered.resource.spec.cutover.rollback if isinstance(steered.resource, Migration) else False
    steered.order(
        {"cutover": {"approvedPlan": current, **({"rollback": False} if asked else {})}},
        f"Approved the plan {current} of {name}.",
        "It cuts over as soon as the gates are open; then stop the application's writes to the source.",
        dry_run=dry_run,
    )


@click.command(epilog=EXIT_CODES, short_help="Pauses the migration or way back NAME.")
@named
@click.pass_obj
def pause(where: Where, name: str, namespace: str | None, dry_run: bool) -> None:
    """Pauses the migration or ReverseSync NAME: its workers finish their batch and stop, its phase stays.

    The source's log goes on ageing: resume before status.stream.retentionDeadline, of which a condition warns. The
    worker of a ReverseSync stays to watch its slot, which makes PolarDB keep its log until it is resumed or deleted.
    A migration and the way back of its own have one name: write reversesync/NAME for that one.

    \b
    Examples:
      whimbrel pause shop
      whimbrel pause reversesync/shop
    """
    steered = _steered(where, name, namespace, None)
    steered.order({"paused": True}, f"{name} pauses. To go on: {steered.line('resume')}", dry_run=dry_run)


@click.command(epilog=EXIT_CODES)
@named
@click.pass_obj
def resume(where: Where, name: str, namespace: str | None, dry_run: bool) -> None:
    """Lets the paused migration or ReverseSync NAME go on from where it was.

    \b
    Example:
      whimbrel resume shop
    """
    steered = _steered(where, name, namespace, None)
    steered.order({"paused": False}, f"{name} goes on. To look: {steered.line('status')} -w", dry_run=dry_run)


@click.command(epilog=EXIT_CODES)
@named
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def cancel(where: Where, name: str, namespace: str | None, yes: bool, dry_run: bool) -> None:
    """Ends the migration NAME for good, without a cutover.

    The source's data are never changed; what a cutover has frozen is opened, streams that were enabled for it are
    disabled. What was copied stays in the target, with the control tables that say so.

    \b
    Example:
      whimbrel cancel shop --yes
    """
    steered = _steered(where, name, namespace)
    if not (yes or dry_run) and not click.confirm(f"{name} cannot be taken up again after this. Cancel it?"):
        raise CliError(f"{name} was not cancelled.")
    steered.order({"cancel": True}, f"{name} is being cancelled.", dry_run=dry_run)
