"""`whimbrel rollback`: asks for the way back to the source, or takes that back. Who carries it out stands elsewhere."""

import click

from whimbrel_api.migration import Migration, MigrationStatus, Phase
from whimbrel_cli.commands.steer import Steered, named
from whimbrel_cli.exits import EXIT_CODES, CliError
from whimbrel_cli.places import Place, Where, find
from whimbrel_operator.runtime.port import Key


@click.command(epilog=EXIT_CODES, short_help="Goes back to the source of the migration NAME.")
@named
@click.option("--withdraw", is_flag=True, help="Take it back, as long as the target's journal does not have it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rollback(where: Where, name: str, *, namespace: str | None, withdraw: bool, yes: bool, dry_run: bool) -> None:
    """Goes back to the source of the migration NAME, which is Completed with a way back (spec.reverseSync.enabled).

    Then stop the application's writes to the target: what was written there flows back, both sides are compared, the
    way back ends, and the source is followed anew. When the state is RolledBack, point the application at the source.
    Whatever fails before that leaves the traffic at the target, and changes go on flowing back.

    \b
    Examples:
      whimbrel status shop              RollbackReady says whether it could be done now
      whimbrel rollback shop --yes
      whimbrel rollback shop --withdraw
    """
    place = where.open()
    key = find(place, name, namespace, "Migration")
    steered = Steered(place, key, _with_a_way_back(place, key))
    if withdraw:
        steered.order({"cutover": {"rollback": False}}, f"The rollback of {name} is withdrawn.", dry_run=dry_run)
        return
    ready = _rollback_ready(steered)
    if not (yes or dry_run) and not click.confirm(
        f"{ready}\nThe application's writes to the target must stop. Go back?"
    ):
        raise CliError(f"{name} was not rolled back.")
    steered.order(
        {"cutover": {"rollback": True}},
        f"{name} goes back to its source as soon as RollbackReady is True.",
        f"Stop the application's writes to the target now. To look: {steered.line('status')} -w",
        dry_run=dry_run,
    )


def _with_a_way_back(place: Place, key: Key) -> Migration:
    """The Migration. Raises CliError where there is nothing to go back from."""
    resource = place.store.get(key)
    if not isinstance(resource, Migration) or not resource.spec.reverse_sync.enabled:
        todo = "A way back is asked for by spec.reverseSync.enabled, before the cutover."
        raise CliError(f"{key.name} has no way back.", todo)
    return resource


def _rollback_ready(steered: Steered) -> str:
    """What RollbackReady says. Raises CliError where a rollback cannot be begun."""
    name, status = steered.key.name, steered.resource.status
    if not isinstance(status, MigrationStatus) or status.phase is not Phase.COMPLETED:
        raise CliError(f"{name} is in {status.phase.value}: only what is Completed can be rolled back.")
    if status.cutover.rollback.given_up:
        todo = f"Take it back first: {steered.line('rollback')} --withdraw; then give the command again."
        raise CliError(f"The last rollback of {name} was given up: {status.cutover.message}", todo)
    found = next((each for each in status.conditions if each.type == "RollbackReady"), None)
    return f"RollbackReady is {found.status}: {found.message}" if found is not None else "RollbackReady is not known."
