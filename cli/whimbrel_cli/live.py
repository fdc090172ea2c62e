"""The view of one resource in a terminal: what was observed becomes a renderable. Pure; the screen is in screen."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from whimbrel_api.cutover import CutoverStep
from whimbrel_api.migration import Migration, Phase, TableStatus
from whimbrel_api.reverse_sync import ReverseSync
from whimbrel_api.validation import Validation, ValidationPhase
from whimbrel_cli import bars
from whimbrel_cli.drawing import LABEL, Glyphs, joined, row
from whimbrel_cli.figures import (
    ago,
    clock,
    count,
    lag,
    one_line,
    percent,
    shortened,
    size,
    source_name,
    span,
    target_name,
)
from whimbrel_cli.guidance import Gate, condition, gates, next_step
from whimbrel_cli.observed import Checking, Happening, Observed
from whimbrel_cli.sparkline import sparkline

_POSITION: Final = 60
_FEWEST_BARS: Final = 2
_GATE: Final = {True: "green", False: "yellow"}
_PATH: Final = tuple(phase for phase in Phase if phase is not Phase.CANCELLED)
_NOT_HERE: Final = "done; the figures were kept elsewhere"
EVENTS: Final = 5
_IN_WORK: Final = {"Copying": 0, "Stopped": 0, "Pending": 1, "Following": 3, "Copied": 4}


def view(
    observed: Observed,
    *,
    width: int,
    tables: int = 12,
    events: int = EVENTS,
    brief: bool = False,
    glyphs: Glyphs | None = None,
) -> RenderableType:
    """The whole view for a terminal of `width` columns, with at most `tables` tables, the ones at work first.

    `events`: how many of the last ones. `brief`: open gates are counted, not named.
    """
    signs = glyphs or Glyphs()
    if isinstance(observed.resource, Validation):
        parts = _validation(observed.resource, signs, width)
    elif isinstance(observed.resource, ReverseSync):
        parts = _way_back(observed.resource, observed, signs, width, tables)
    else:
        parts = _migration(observed.resource, observed, signs, width, tables, brief=brief)
    return Group(*parts, *_next(observed, width), *_events(observed.events, width, events))


def _migration(
    migration: Migration, seen: Observed, signs: Glyphs, width: int, tables: int, *, brief: bool
) -> list[RenderableType]:
    return [
        *_title(migration, signs, width),
        _phases(migration, signs, width),
        row("Snapshot", _snapshot(migration, signs), width),
        *_tables(_known(migration), seen, width, tables),
        row("Stream", _stream(migration, seen, signs), width),
        *_lags(seen, signs, width),
        row("Check", _check(migration, seen, signs), width),
        *_gates(migration, seen, signs, width, brief=brief),
    ]


def _title(migration: Migration, signs: Glyphs, width: int) -> list[RenderableType]:
    """The name, and source → target: on one line where they fit, else each end on a line of its own."""
    name, source = migration.metadata.name, source_name(migration.spec.source)
    target = f"{signs.arrow} {target_name(migration.spec.target)}"
    whole = Text.assemble((name, "bold"), (f"  {source} {target}", "dim"))
    if whole.cell_len <= width:
        return [whole]
    return [Text(name, "bold"), row("", source, width, "dim"), row("", target, width, "dim")]


def _known(migration: Migration) -> Sequence[TableStatus]:
    """The tables, except where a finished migration was only read back from the target, which keeps no figures."""
    forgotten = migration.status.phase is Phase.COMPLETED and not migration.status.snapshot.rows_total
    return () if forgotten else migration.status.tables


def _phases(migration: Migration, signs: Glyphs, width: int) -> Text:
    """Every phase with the current one marked; on a narrow terminal the current one alone."""
    phase = migration.status.phase
    note = next((kind for kind in ("Stalled", "Paused") if condition(migration.status, kind)), "")
    mark = f" ({note})" if note else ""
    if phase is Phase.CANCELLED:
        return Text(f"{signs.shut} Cancelled", style="bold red")
    at = _PATH.index(phase)
    line = Text(no_wrap=True)
    for number, step in enumerate(_PATH):
        if number:
            line.append(" ")
        if number < at or phase is Phase.COMPLETED:
            line.append(f"{signs.done}{step.value}", style="green")
        elif number == at:
            line.append(f"{signs.now}{step.value}{mark}", style="bold red" if note else "bold yellow")
        else:
            line.append(step.value, style="dim")
    over = phase is Phase.COMPLETED
    short = Text(f"{signs.done if over else signs.now} {phase.value}{mark}, {at + 1} of {len(_PATH)}")
    short.stylize("bold green" if over else "bold red" if note else "bold yellow")
    return line if line.cell_len <= width else short


def _snapshot(migration: Migration, signs: Glyphs) -> str:
    copy = migration.status.snapshot
    if not copy.rows_total and not copy.rows_copied:
        return _NOT_HERE if migration.status.phase is Phase.COMPLETED else "not begun"
    running = migration.status.phase is Phase.SNAPSHOT
    return joined(
        (
            f"{percent(copy.rows_copied, copy.rows_total)}%",
            f"{count(copy.rows_copied)} of {count(copy.rows_total)} rows",
            f"{copy.tables_done} of {copy.tables_total} tables",
            size(copy.bytes_copied) if copy.bytes_copied else "",
            f"{count(copy.rows_per_second)} rows/s" if running else "",
            f"ETA {span(copy.eta)}" if running else "",
        ),
        signs,
    )


def _tables(tables: Sequence[TableStatus], seen: Observed, width: int, most: int) -> list[RenderableType]:
    """Up to `most` tables, those at work first, and how many more there are."""
    shown = sorted(tables, key=lambda table: (_IN_WORK.get(table.state, 2), table.name))[:most]
    left = len(tables) - len(shown)
    more = [row("", f"and {left} more", width, "dim")] if left else []
    return [bars.rows(shown, seen.rates, width), *more] if shown else []


def _stream(migration: Migration, seen: Observed, signs: Glyphs) -> str:
    stream = migration.status.stream
    if not stream.position and not stream.changes_applied:
        return _NOT_HERE if migration.status.phase is Phase.COMPLETED else "not begun"
    if migration.status.phase in (Phase.COMPLETED, Phase.CANCELLED):
        return f"ended {signs.between} {count(stream.changes_applied)} changes applied"
    age = ago(stream.lag_observed_at, seen.now)
    stale = age is not None and age > 10 and migration.status.phase in (Phase.CATCH_UP, Phase.FOLLOWING)
    return joined(
        (
            f"lag {lag(stream)}",
            f"{count(stream.changes_applied)} changes applied",
            f"seen {span(age)} ago" if stale else "",
        ),
        signs,
    )


def _lags(seen: Observed, signs: Glyphs, width: int, label: str = "Lag") -> list[RenderableType]:
    """The lag of the last looks as bars up to the longest one; nothing before there are two, or after the end."""
    over = isinstance(seen.resource, Migration) and seen.resource.status.phase in (Phase.COMPLETED, Phase.CANCELLED)
    known = [each for each in seen.lags if each is not None]
    if over or len(known) < _FEWEST_BARS:
        return []
    most = f" up to {span(max(known))}"
    bars = sparkline(seen.lags, max(1, width - LABEL - len(most)), signs.bars)
    return [Text.assemble((label.ljust(LABEL), "bold cyan"), bars, (most, "dim"), no_wrap=True, overflow="crop")]


def _check(migration: Migration, seen: Observed, signs: Glyphs) -> str:
    check = migration.status.validation
    if seen.checking:
        final = migration.status.phase is Phase.CUTTING_OVER
        return _checking(seen.checking, signs, whole=not final)
    if check.result is None:
        return "not begun"
    found = check.differences
    kinds = ", ".join(f"{n} {kind}" for kind, n in found.model_dump().items() if n)
    return joined(
        (
            check.result.value,
            f"{count(check.rows_compared)} rows compared",
            check.compared,
            f"{count(found.total)} differences" + (f" ({kinds})" if kinds else ""),
            f"{count(check.inconclusive)} inconclusive" if check.inconclusive else "",
            f"{span(ago(check.completed_at, seen.now))} ago" if check.completed_at else "",
        ),
        signs,
    )


def _checking(running: Checking, signs: Glyphs, *, whole: bool) -> str:
    """How far it is; with `whole` False it looks at changed keys alone, and nobody knows how many those are."""
    return joined(
        (
            "running",
            f"{percent(running.rows, running.rows_total)}%" if whole and running.rows_total else "",
            f"{count(running.rows)}{f' of {count(running.rows_total)}' if whole else ''} rows compared",
            f"{count(running.differences)} differences so far",
        ),
        signs,
    )


def _gates(migration: Migration, seen: Observed, signs: Glyphs, width: int, *, brief: bool) -> list[RenderableType]:
    """The gates while they matter, and where the cutover stands."""
    status = migration.status
    if status.phase not in (Phase.CATCH_UP, Phase.FOLLOWING, Phase.CUTTING_OVER, Phase.COMPLETED):
        return []
    rows: list[RenderableType] = []
    if status.phase in (Phase.CATCH_UP, Phase.FOLLOWING):
        told = _told_gates(gates(migration, seen.now), signs, brief=brief)
        rows += [row("Gates" if number == 0 else "", text, width, style) for number, (text, style) in enumerate(told)]
    message = status.cutover.message
    rows.append(row("Cutover", joined((status.cutover.state.value, message), signs), width))
    rows += [row("Proven", text, width) for text in _proven(status.cutover.steps)]
    return [*rows, *_rollback(migration, signs, width)]


def _told_gates(found: Sequence[Gate], signs: Glyphs, *, brief: bool) -> Iterator[tuple[str, str]]:
    """A line for each gate with its style; in brief the shut ones, and how many are open."""
    for gate in found:
        if not (brief and gate.open):
            yield f"{signs.done if gate.open else signs.shut} {gate.name}: {gate.figures}", _GATE[gate.open]
    if brief and (more := sum(gate.open for gate in found)):
        yield f"{signs.done} {more} more are open", _GATE[True]


def _proven(steps: Sequence[CutoverStep]) -> Iterable[str]:
    """The proven steps of a cutover, or of a rollback, with when; a line for each position."""
    for position in dict.fromkeys(step.position for step in steps):
        there = [step for step in steps if step.position == position]
        named = ", ".join(step.name if step.at is None else f"{step.name} {clock(step.at)}" for step in there)
        where = one_line(position)
        yield f"{named} at {where if len(where) <= _POSITION else where[:_POSITION] + '...'}"


def _rollback(migration: Migration, signs: Glyphs, width: int) -> list[RenderableType]:
    """Whether a migration with a way back could go back now."""
    found = next((each for each in migration.status.conditions if each.type == "RollbackReady"), None)
    if found is None or migration.status.phase is not Phase.COMPLETED or not migration.spec.reverse_sync.enabled:
        return []
    ready = found.status == "True"
    text = f"{signs.done if ready else signs.shut} RollbackReady ({found.reason}): {found.message}"
    return [row("Back", one_line(text), width, "green" if ready else "yellow")]


def _validation(validation: Validation, signs: Glyphs, width: int) -> list[RenderableType]:
    status = validation.status
    done = status.phase is ValidationPhase.COMPLETED
    found = status.differences
    figures = joined(
        (
            status.result.value if status.result else status.phase.value,
            status.progress,
            f"{count(status.rows_compared)} rows compared",
            f"{found.missing} missing, {found.extra} extra, {found.changed} changed",
            f"{count(status.inconclusive)} inconclusive" if status.inconclusive else "",
            f"{count(round(status.rows_per_second))} rows/s" if not done and status.rows_per_second else "",
            f"ETA {span(status.eta)}" if not done and status.eta is not None else "",
            status.compared,
        ),
        signs,
    )
    return [Text(validation.metadata.name, style="bold"), row("Check", figures, width)]


def _way_back(back: ReverseSync, seen: Observed, signs: Glyphs, width: int, tables: int) -> list[RenderableType]:
    status, slot = back.status, back.status.slot
    held = f"holds back {size(slot.retained_bytes)}" if slot.retained_bytes is not None else "not known now"
    flags = [kind for kind in ("Stalled", "Paused") if condition(status, kind)]
    rows: list[RenderableType] = [
        Text(back.metadata.name, style="bold"),
        row("Back", joined((status.phase.value, *flags, f"{count(status.changes_applied)} changes"), signs), width),
        row("Lag", status.lag or "–", width),
        *_lags(seen, signs, width, label=""),
    ]
    if slot.name:
        state = ("active" if slot.active else "not read", slot.wal_status) if slot.wal_status else ()
        rows.append(row("Slot", joined((slot.name, *state, held), signs), width))
    shown = [f"{table.name} {table.state}" for table in status.tables[:tables]]
    more = len(status.tables) - len(shown)
    if shown:
        rows.append(row("Tables", joined((*shown, f"and {more} more" if more else ""), signs), width))
    return rows


def _next(observed: Observed, width: int) -> list[RenderableType]:
    step = next_step(observed.resource, observed.caller)
    style = "bold red" if condition(observed.resource.status, "Stalled") else "bold"
    return [row("Next", step, width, style)] if step else []


def _events(events: Sequence[Happening], width: int, most: int) -> list[RenderableType]:
    rows: list[RenderableType] = []
    for number, event in enumerate(events[max(0, len(events) - most) :]):
        line = shortened(f"{clock(event.at)} {event.reason}: {event.message}", width - LABEL)
        rows.append(row("Events" if number == 0 else "", line, width, "yellow" if event.warning else "dim"))
    return rows
