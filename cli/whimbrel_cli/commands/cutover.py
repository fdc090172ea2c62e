"""`whimbrel cutover --dry-run`: shows what a cutover would do now, and changes nothing. The domain judges it."""

from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from whimbrel_api.migration import Migration
from whimbrel_cli.exits import EXIT_CODES, CliError, Exit
from whimbrel_cli.figures import one_line, span
from whimbrel_cli.naming import name_argument
from whimbrel_cli.output import SCRIPTS, dump
from whimbrel_cli.places import Place, Where, find
from whimbrel_operator.domain.cutover.gate import Gate
from whimbrel_operator.domain.cutover.rehearsal import Estimate, Rehearsal, rehearse
from whimbrel_operator.domain.migration.phases import ENDS
from whimbrel_operator.runtime.port import Key

_LABEL = 11


@click.command(epilog=EXIT_CODES)
@name_argument("Migration")
@click.option("-n", "--namespace", help="Its namespace; by default `default`, or the context's own.")
@click.option("--dry-run", is_flag=True, help="Show what would happen. Without it nothing is done: see approve.")
@click.option("-o", "--output", type=click.Choice(["text", *SCRIPTS]), default="text", show_default=True)
@click.pass_obj
def cutover(where: Where, *, name: str, namespace: str | None, dry_run: bool, output: str) -> int:
    """Shows what a cutover of the migration NAME would do now: every gate with its figures, the steps, the pause.

    Nothing is changed and no server is asked: it is read from the resource. Exit code 0 when only the approval is
    missing, else 1. A cutover itself is begun by an approval: whimbrel approve.

    \b
    Examples:
      whimbrel cutover --dry-run shop
      whimbrel cutover --dry-run shop -o json | jq .pause.seconds
    """
    place = where.open()
    key = find(place, name, namespace, "Migration")
    resource = place.store.get(key)
    if not isinstance(resource, Migration):
        raise CliError(f"{name} is a {resource.kind}, no Migration.", code=Exit.USAGE)
    if not dry_run:
        todo = f"To look first: {place.caller.line('cutover', resource)} --dry-run; to let it begin: "
        raise CliError(
            "A cutover begins by an approval of its plan, not by this command.",
            todo + place.caller.line("approve", resource),
            Exit.USAGE,
        )
    if resource.status.phase in ENDS:
        raise CliError(f"{name} is {resource.status.phase.value} already; no cutover is left.")
    now = datetime.now(UTC)
    found = rehearse(resource, now)
    if output in SCRIPTS:
        dump(document(found), output)
    else:
        for line in _lines(place, key, resource, found, now):
            click.echo(line)
    return Exit.DONE if found.ready else Exit.FAILED


def _lines(place: Place, key: Key, resource: Migration, found: Rehearsal, now: datetime) -> Iterator[str]:
    yield f"{resource.metadata.name}: what a cutover would do now; nothing is changed"
    yield ""
    yield from _row("Plan", f"{found.plan} (attempt {found.attempt})")
    for number, gate in enumerate(found.gates):
        yield from _row("Gates" if number == 0 else "", _gate(gate))
    yield from _row("Approval", _gate(found.approval))
    for number, notice in enumerate(found.notices):
        yield from _row("Notice" if number == 0 else "", f"{notice.type} ({notice.reason}): {notice.message}")
    for number, obstacle in enumerate(found.obstacles):
        yield from _row("Obstacles" if number == 0 else "", obstacle)
    yield from _row("Begins", _begins(found, now))
    yield from _row("Freeze by", found.freezes)
    for number, stage in enumerate(found.stages, start=1):
        yield from _row("Steps" if number == 1 else "", f"{number} {stage.state.value}/{stage.name}: {stage.says}")
        yield from _row("", f"  {_length(stage.takes)}: {stage.takes.basis}")
    yield from _row("Pause", f"{_length(found.pause)} without writes ({found.pause.basis})")
    if found.too_long:
        yield from _row("", f"that is longer than spec.cutover.timeout, {found.timeout}: it would be given up")
    yield from _row("Way back", found.way_back)
    for line in place.whereabouts(key):
        if line.startswith(("Idle", "Hidden")):
            yield from _row(*line.split(None, 1))
    yield ""
    yield _verdict(place, resource, found)


def _row(label: str, text: str) -> Iterator[str]:
    lead = " " * (len(text) - len(text.lstrip()))
    yield f"{label:<{_LABEL}}{lead}{one_line(text)}".rstrip()


def _gate(gate: Gate) -> str:
    return f"{'open' if gate.open else 'shut'} {gate.type} ({gate.reason}): {gate.message}"


def _length(estimate: Estimate) -> str:
    if estimate.seconds is None:
        return "unknown"
    return f"{'at most' if estimate.at_most else 'about'} {span(estimate.seconds)}"


def _begins(found: Rehearsal, now: datetime) -> str:
    if found.begins is None:
        return "never: no window opens"
    when = "as soon as the gates are open and the plan is approved"
    return when if found.begins <= now else f"{when}, and not before {found.begins.isoformat(timespec='seconds')}"


def _verdict(place: Place, resource: Migration, found: Rehearsal) -> str:
    if not found.ready:
        shut = [gate.type for gate in found.gates if not gate.open]
        held = [f"Shut: {', '.join(shut)}"] if shut else []
        return "Not ready. " + "; ".join([*held, *(["see the obstacles above"] if found.obstacles else [])])
    if found.approval.open:
        return "Ready, and approved: it begins by itself."
    return f"Ready. To let it begin: {place.caller.line('approve', resource)} --plan {found.plan}"


def document(found: Rehearsal) -> dict[str, Any]:
    """What the rehearsal found, for scripts: in camelCase, times in ISO 8601, lengths in seconds."""
    return {
        "ready": found.ready,
        "plan": {"hash": found.plan, "attempt": found.attempt},
        "gates": [_gate_document(gate) for gate in found.gates],
        "approval": _gate_document(found.approval),
        "notices": [asdict(notice) for notice in found.notices],
        "obstacles": list(found.obstacles),
        "begins": found.begins.isoformat(timespec="seconds") if found.begins is not None else None,
        "freeze": found.freezes,
        "steps": [
            {"name": stage.name, "state": stage.state.value, "does": stage.says, "takes": _estimate(stage.takes)}
            for stage in found.stages
        ],
        "pause": _estimate(found.pause) | {"longerThanTimeout": found.too_long},
        "wayBack": found.way_back,
    }


def _gate_document(gate: Gate) -> dict[str, Any]:
    return {**asdict(gate), "open": gate.open}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    length = round(estimate.seconds, 1) if estimate.seconds is not None else None
    return {"seconds": length, "atMost": estimate.at_most, "basis": estimate.basis}
