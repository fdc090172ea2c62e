"""What a demo says at its end: times, the independent comparison, why it failed, how to look around."""

import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from whimbrel_api.migration import Phase
from whimbrel_cli.demo.director import Director
from whimbrel_cli.demo.stage import Stage, step
from whimbrel_cli.exits import Exit
from whimbrel_cli.figures import span
from whimbrel_cli.guidance import condition
from whimbrel_operator.runtime.port import Key
from whimbrel_operator.runtime.resources import Resources


def show_times(stage: Stage, console: Console, director: Director) -> None:
    """How long each phase took."""
    moments = sorted(director.entered.items(), key=lambda item: item[1])
    table = Table(box=None, pad_edge=False, header_style="bold", title="Times", title_justify="left")
    table.add_column("Phase")
    table.add_column("Time", justify="right")
    ends = [moment for _, moment in moments[1:]] + [director.ended or time.monotonic()]
    for (phase, begun), end in zip(moments, ends, strict=True):
        if phase != Phase.COMPLETED.value:
            table.add_row(phase, span(end - begun))
    if moments:
        table.add_row("all", span(ends[-1] - moments[0][1]), style="bold")
    console.print()
    console.print(table)
    if done := director.counts:
        console.print(f"Meanwhile the application made {stage.told(done)}", highlight=False)


def compare(stage: Stage, console: Console) -> Exit:
    """The comparison that shares no code with the product."""
    console.print()
    with step(console, "Comparing all of both servers by other means than Whimbrel's"):
        found = stage.compare()
    if found:
        for line in found:
            console.print(f"  {line}", style="red", markup=False, highlight=False, soft_wrap=True)
        console.print("The servers differ.", style="bold red")
        return Exit.FAILED
    console.print(
        f"No difference in {len(stage.tables)} tables. Nothing was lost.", style="bold green", highlight=False
    )
    return Exit.DONE


def show_failure(store: Resources, key: Key, console: Console, *, timed_out: bool) -> Exit:
    """Shows what the workers said last. Gives the exit code."""
    for worker, lines in store.log_tail(key, 15).items():
        console.print(f"\nlast lines of {worker}:", style="bold", highlight=False)
        for line in lines:
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print("\nThe migration did not come to its end; above is what stopped it.", style="bold red")
    stalled = condition(store.get(key).status, "Stalled")
    return Exit.STALLED if stalled else Exit.TIMED_OUT if timed_out else Exit.FAILED


def show_around(stage: Stage, console: Console, more: Sequence[tuple[str, str]]) -> None:
    """How to look at both servers and the control tables, and `more` pairs of what and command."""
    lines = (*stage.places(), *more)
    console.print("\nAll servers go on running. Look around from a second terminal:", style="bold", highlight=False)
    for what, command in lines:
        console.print(f"  # {what}\n  {command}", markup=False, highlight=False, soft_wrap=True)
    console.print("Ctrl-C ends them and removes everything.", highlight=False)
