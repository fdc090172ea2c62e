"""What a demo says at its end: times, write pauses, what the comparisons found, why it failed, how to look around."""

import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from whimbrel_api.migration import Phase
from whimbrel_cli.demo.director import Director, estimated
from whimbrel_cli.demo.stage import Side, Stage
from whimbrel_cli.demo.traveller import Pause
from whimbrel_cli.exits import Exit
from whimbrel_cli.figures import count, span
from whimbrel_cli.guidance import condition
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.resources import Resources


def show_figures(console: Console, director: Director) -> None:
    """How long each phase took, for how long the writes stopped, and what the application did."""
    console.print()
    console.print(_times(director))
    if pauses := director.traveller.pauses():
        console.print()
        console.print(_pauses(director, pauses))
    console.print()
    for leg in director.traveller.legs:
        where, told = director.stage.name(leg.side), director.stage.told(leg.done)
        console.print(f"Writing to {where}, the application made {told}", highlight=False, soft_wrap=True)


def _times(director: Director) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title="Times", title_justify="left")
    table.add_column("Phase")
    table.add_column("Time", justify="right")
    ends = [moment for _, moment in director.moments[1:]] + [director.ended or time.monotonic()]
    for (at, begun), end in zip(director.moments, ends, strict=True):
        traffic = f" (the application writes to {director.stage.target})"
        table.add_row(at + traffic * (at == Phase.COMPLETED.value), span(end - begun))
    if director.moments:
        table.add_row("all", span(ends[-1] - director.moments[0][1]), style="bold")
    return table


def _pauses(director: Director, pauses: Sequence[Pause]) -> Table:
    title = "Write pauses, from the last accepted write to the first accepted write, by the application's own clock"
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    table.add_column("From, to")
    table.add_column("Measured", justify="right")
    table.add_column("whimbrel cutover --dry-run had said")
    for pause in pauses:
        table.add_row(*pause_row(director, pause))
    return table


def pause_row(director: Director, pause: Pause) -> tuple[str, str, str]:
    """A pause in words: from where to where, how long, and what was expected. Nothing estimates a rollback's."""
    stage, forward = director.stage, pause.after is Side.TARGET
    expected = estimated(director.estimate) if forward else "–"
    if pause.held >= 1:
        expected += f" (the demo's own comparison took {span(pause.held)} of it)"
    return f"{stage.name(pause.before)} → {stage.name(pause.after)}", span(pause.seconds), expected


def verdict(console: Console, director: Director) -> Exit:
    """What the comparisons that share no code with the product have found, and what is left. Gives the exit code."""
    console.print()
    troubles = list(_troubles(director))
    for line in troubles:
        console.print(line, style="red", markup=False, highlight=False, soft_wrap=True)
    if troubles:
        return Exit.FAILED
    for each in director.comparisons:
        console.print(f"Compared {each.when} by plain reads, in {span(each.took)}: equal.", highlight=False)
    if director.options.way_back:
        console.print("Slot and publication of the way back are gone.", highlight=False)
    tables = count(len(director.stage.tables))
    console.print(f"No difference in {tables} tables. Nothing was lost.", style="bold green", highlight=False)
    return Exit.DONE


def _troubles(director: Director) -> Iterator[str]:
    for each in director.comparisons:
        if found := each.differences:
            yield from (f"  {line}" for line in found)
            yield f"The servers differ {each.when}, by plain reads of both."
    if director.failure:
        yield f"The rollback did not come to its end: {director.failure}"
    elif director.options.way_back and (left := director.stage.left_behind()):
        yield f"The way back is gone, and on the target's server is left: {', '.join(left)}."


def show_failure(store: Resources, director: Director, console: Console, *, timed_out: bool) -> Exit:
    """Shows what the workers said last. Gives the exit code."""
    stalled = False
    for resource in (director.migration, director.back):
        if resource is None:
            continue
        key = Key(resource.metadata.namespace, resource.kind, resource.metadata.name)
        stalled = stalled or condition(resource.status, "Stalled") is not None
        for worker, lines in store.log_tail(key, 15).items():
            console.print(f"\nlast lines of {worker}:", style="bold", highlight=False)
            for line in lines:
                console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nThe migration did not come to its end; above is what stopped it.", style="bold red")
    return Exit.STALLED if stalled else Exit.TIMED_OUT if timed_out else Exit.FAILED


def show_around(stage: Stage, console: Console, more: Sequence[tuple[str, str]]) -> None:
    """How to look at both servers and the control tables, and `more` pairs of what and command."""
    lines = (*stage.places(), *more)
    console.print("\nAll servers go on running. Look around from a second terminal:", style="bold", highlight=False)
    for what, command in lines:
        console.print(f"  # {what}\n  {command}", markup=False, highlight=False, soft_wrap=True)
    console.print("Ctrl-C ends them and removes everything.", highlight=False)
