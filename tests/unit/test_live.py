"""The live view and the lines: what a person sees in each state, on wide and narrow terminals."""

import io
import re
from datetime import timedelta

import pytest
from rich.console import Console

from support.live_states import NOW, PLAN, STATES, migration, observed
from whimbrel_api.base import Condition
from whimbrel_api.cutover import CutoverStep
from whimbrel_api.migration import Migration, TableStatus
from whimbrel_api.validation import Validation
from whimbrel_cli.drawing import PLAIN, Glyphs
from whimbrel_cli.figures import clock, count, one_line, percent, shortened, size, span
from whimbrel_cli.guidance import Caller, next_step
from whimbrel_cli.live import view
from whimbrel_cli.observed import Checking, Happening, Lags, Observed, Rates
from whimbrel_cli.plain import PlainView
from whimbrel_cli.screen import fitted
from whimbrel_cli.sparkline import ASCII_BARS, sparkline


def drawn(seen: Observed, width: int = 120, glyphs: Glyphs | None = None, tables: int = 12) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, legacy_windows=False)
    console.print(view(seen, width=width, glyphs=glyphs, tables=tables))
    assert isinstance(console.file, io.StringIO)
    # The zone of the machine does not matter here.
    return [re.sub(r"\d\d:\d\d:\d\d", "hh:mm:ss", line.rstrip()) for line in console.file.getvalue().splitlines()]


FREEZE = "Stop the application's writes to the source now. It goes on by itself once the source is quiet."
EVENTS = [
    "Events   hh:mm:ss PhaseChanged: Pending -> Preflight",
    "         hh:mm:ss WorkerFailed: snapshot-1 ended with code 1; it is started again",
]


def test_a_copy_shows_phase_tables_rates_and_time_left() -> None:
    assert drawn(observed("snapshot", {"flights.flights": 41_200.0})) == [
        "shop  mysql db:3306 → auroraDSQL abc.dsql.us-east-1.on.aws:5432",
        "✔Pending ✔Preflight ✔Schema ▶Snapshot CatchUp Following CuttingOver Completed",
        "Snapshot 58% · 214,000 of 364,000 rows · 1 of 3 tables · 31.4 MB · 41,200 rows/s · ETA 3.6 s",
        "         flights.flights  ━━━━━━━━━━━━━━━━━╸              59% 200,000/336,776  41,200/s ETA 3.3 s Copying",
        "         flights.weather                                   0%        0/26,115                     Pending",
        "         flights.airports ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ 100%           1,458                     Copied",
        "Stream   not begun",
        "Check    not begun",
        *EVENTS,
    ]


def test_following_shows_the_gates_with_figures_and_the_command_to_approve() -> None:
    lines = drawn(observed("following"))
    assert lines[1] == "✔Pending ✔Preflight ✔Schema ✔Snapshot ✔CatchUp ▶Following CuttingOver Completed"
    assert lines[4:13] == [
        "Stream   lag 0.4 s · 1,204 changes applied",
        "Check    Equal · 364,100 rows compared · 0 differences · 12 s ago",
        "Gates    ✔ lag: 0.4 s, at most 5s",
        "         ✔ check: Equal, 0 differences (at most 0), 12 s old (at most 1h)",
        "         ✔ tables: no table is stopped",
        "         ✔ indexes: the secondary indexes are built",
        "         ✘ approval: not given",
        "Cutover  AwaitingApproval",
        f"Next     To cut over: whimbrel approve shop --plan {PLAN}",
    ]


def test_a_narrow_terminal_loses_bars_not_facts() -> None:
    assert drawn(observed("snapshot", {"flights.flights": 41_200.0}), width=60)[:9] == [
        "shop",
        "         mysql db:3306",
        "         → auroraDSQL abc.dsql.us-east-1.on.aws:5432",
        "▶ Snapshot, 4 of 8",
        "Snapshot 58% · 214,000 of 364,000 rows · 1 of 3 tables ·",
        "         31.4 MB · 41,200 rows/s · ETA 3.6 s",
        "         flights.flights   59% 200,000/336,776 Copying",
        "         flights.weather    0%        0/26,115 Pending",
        "         flights.airports 100%           1,458 Copied",
    ]


def grown(most: int) -> Observed:
    """A copy of tables with long names and very many rows."""
    found = migration("snapshot")
    names = [f"shop_production.customer_order_line_items_{number}" for number in range(most)]
    tables = [
        TableStatus(name=name, state="Copying", rows_total=1_336_776_000, rows_copied=812_000_123) for name in names
    ]
    status = found.status.model_copy(update={"tables": tables})
    rates = dict.fromkeys(names, 141_200.0)
    return Observed(found.model_copy(update={"status": status}), NOW, observed("snapshot").events, rates)


@pytest.mark.parametrize(
    ("width", "bar", "rate"),
    [(60, False, False), (80, False, False), (90, False, True), (100, True, True), (140, True, True)],
)
def test_figures_are_never_cut_and_names_keep_what_tells_them_apart(width: int, bar: bool, rate: bool) -> None:
    lines = [line for line in drawn(grown(2), width=width) if "812,000,123/1,336,776,000" in line]
    assert len(lines) == 2
    for number, line in enumerate(lines):
        assert "60%" in line
        assert line.endswith("Copying")
        assert f"line_items_{number}"[-8:] in line
        assert ("━" in line, "141,200/s ETA 1 h 1 m" in line) == (bar, rate)


def higher(height: int, width: int = 80) -> list[str]:
    """A live view of thirty tables and six gates in a terminal of that height."""
    found = migration("following")
    tables = [TableStatus(name=f"shop.t{number}", state="Following") for number in range(30)]
    status = found.status.model_copy(update={"tables": tables})
    console = Console(file=io.StringIO(), width=width, height=height, legacy_windows=False)
    seen = Observed(found.model_copy(update={"status": status}), NOW, observed("following").events, lags=(1.0, 2.0))
    console.print(fitted(console, [seen]))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("height", [17, 20, 24, 30, 50])
def test_a_live_view_is_no_higher_than_the_terminal_and_says_what_to_do(height: int, width: int) -> None:
    lines = higher(height, width)
    assert len(lines) <= height
    assert any(line.startswith("Next ") for line in lines)
    assert any("approval: not given" in line for line in lines)


def test_a_live_view_loses_tables_first_then_events_then_open_gates() -> None:
    told = [" ".join(higher(height)) for height in (50, 24, 15, 14)]
    assert ["shop.t29" in each for each in told] == [True, False, False, False]
    assert ["Events" in each for each in told] == [True, True, False, False]
    assert ["lag: 0.4 s, at most 5s" in each for each in told] == [True, True, True, False]
    assert "4 more are open" in told[3]


@pytest.mark.parametrize("width", [20, 40, 60, 79, 80, 81, 100, 200])
@pytest.mark.parametrize("state", STATES)
def test_no_line_is_wider_than_the_terminal(state: str, width: int) -> None:
    lines = drawn(observed(state, {"flights.flights": 41_200.0}), width=width)
    assert max(len(line) for line in lines) <= max(width, 29)


@pytest.mark.parametrize("state", STATES)
def test_an_ascii_terminal_gets_ascii(state: str) -> None:
    console = Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii"), width=100, force_terminal=False)
    console.print(view(observed(state), width=100, glyphs=PLAIN))
    console.file.flush()


def test_a_comparison_that_runs_shows_how_far_it_is() -> None:
    seen = Observed(migration("following"), NOW, checking=Checking(120_000, 368_000, 2))
    assert "Check    running · 32% · 120,000 of 368,000 rows compared · 2 differences so far" in drawn(seen)


def test_the_proven_steps_of_a_cutover_stand_with_their_time_and_position() -> None:
    found = observed("completed").resource
    assert isinstance(found, Migration)
    told = [("Freeze", "p1"), ("Drain", "p1"), ("CheckBack", "0/1" * 40)]
    steps = [CutoverStep(name=name, position=position, at=NOW) for name, position in told]
    cutover = found.status.cutover.model_copy(update={"steps": steps})
    status = found.status.model_copy(update={"cutover": cutover})
    lines = drawn(Observed(found.model_copy(update={"status": status}), NOW), glyphs=PLAIN)
    assert "Proven   Freeze hh:mm:ss, Drain hh:mm:ss at p1" in lines
    assert f"Proven   CheckBack hh:mm:ss at {'0/1' * 20}..." in lines
    assert not any(line.startswith("Proven") for line in drawn(observed("completed")))


def test_a_completed_migration_has_no_lag_any_more() -> None:
    assert "Stream   ended · 1,204 changes applied" in drawn(observed("completed"))
    assert "lag" not in PlainView().lines(observed("completed"), 0.0)[-2]


@pytest.mark.parametrize(("status", "sign"), [("True", "✔"), ("False", "✘")])
def test_a_completed_migration_with_a_way_back_says_whether_it_could_go_back(status: str, sign: str) -> None:
    said = {"type": "RollbackReady", "status": status, "reason": "Why", "message": "what ends it"}
    server = {"host": "polardb", "credentialsSecretRef": {"name": "log"}}
    made = migration("completed", reverseSync={"enabled": True, "polardb": server})
    condition = Condition.model_validate({**said, "lastTransitionTime": NOW})
    shown = made.model_copy(update={"status": made.status.model_copy(update={"conditions": [condition]})})
    assert f"Back     {sign} RollbackReady (Why): what ends it" in drawn(Observed(shown, NOW))
    assert not any("RollbackReady" in line for line in drawn(observed("completed")))


def test_a_stall_is_marked_in_the_phase_and_says_what_to_do() -> None:
    lines = drawn(observed("stalled"))
    assert "▶Preflight (Stalled)" in lines[1]
    assert "Next     Stalled (ConfigurationError): MySQL at db:3306 refused the password" in lines


def test_many_tables_show_the_ones_at_work_and_count_the_rest() -> None:
    lines = drawn(observed("snapshot"), tables=1)
    assert any("flights.flights" in line for line in lines)
    assert "         and 2 more" in lines
    assert not any("flights.weather" in line for line in lines)


@pytest.mark.parametrize(
    ("state", "spec", "step"),
    [
        ("pending", {}, ""),
        ("following", {}, f"To cut over: whimbrel approve shop --plan {PLAN}"),
        ("following", {"cutover": {"approvedPlan": PLAN}}, ""),
        ("following", {"paused": True}, "It is paused. To go on: whimbrel resume shop"),
        ("different", {}, "flights.flights has stopped: the column geo has the type geometry"),
        ("freezing", {}, FREEZE),
        ("completed", {}, "The target has everything. Point the application at it."),
        ("cancelled", {}, "Cancelled. The source was not changed; what was copied is still in the target."),
    ],
)  # fmt: skip
def test_what_to_do_next(state: str, spec: dict[str, object], step: str) -> None:
    assert next_step(migration(state, **spec)) == step


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    hostile = Happening(NOW, False, "Reason", "a\x1b[2Jb\r\nc\u202e")
    seen = Observed(migration("pending"), NOW, [hostile])
    said = {
        "type": "IndexesReady",
        "status": "False",
        "reason": "Why",
        "message": "d\x1b[2Je\nf",
        "lastTransitionTime": NOW,
    }
    found = migration("following")
    status = found.status.model_copy(update={"conditions": [Condition.model_validate(said)]})
    gate = drawn(Observed(found.model_copy(update={"status": status}), NOW))
    text = "\n".join([*drawn(seen), *PlainView().lines(seen, 0.0), *gate])
    assert "a [2Jb c" in text
    assert "d [2Je f" in text
    assert not any(char in text for char in "\x1b\r\u202e")


def test_a_comparison_shows_its_result_by_kind() -> None:
    spec = {"migrationRef": {"name": "shop"}}
    status = {
        "phase": "Completed",
        "result": "Different",
        "rowsCompared": 5,
        "differences": {"missing": 1},
        "report": "d.jsonl",
    }
    seen = Observed(Validation.model_validate({"metadata": {"name": "v"}, "spec": spec, "status": status}), NOW)
    assert drawn(seen) == [
        "v",
        "Check    Different · 5 rows compared · 1 missing, 0 extra, 0 changed",
        "Next     Source and target differ. All differences found: d.jsonl",
    ]
    told = next_step(seen.resource, Caller("kubectl whimbrel"))
    assert "d.jsonl" not in told, "the file was in a pod that is gone"
    assert "whimbrel run" in told
    assert "kubectl whimbrel diff v" in told


def test_a_comparison_that_keeps_the_cutover_from_beginning_leads_to_what_differs() -> None:
    found = migration("different")
    status = found.status.model_copy(update={"tables": []})
    step = next_step(found.model_copy(update={"status": status}))
    assert step == "Source and target differ. To see in what: whimbrel diff shop"


def test_a_comparison_shows_how_fast_it_is_and_what_is_left() -> None:
    spec = {"migrationRef": {"name": "shop"}}
    status = {
        "phase": "Running", "progress": "40%", "rowsCompared": 400, "rowsPerSecond": 51.6, "eta": 12.0, "sampled": True,
        "compared": "a sample: 400 of about 5,000 items (8 %)",
    }  # fmt: skip
    seen = Observed(Validation.model_validate({"metadata": {"name": "v"}, "spec": spec, "status": status}), NOW)
    lines = " ".join(line.strip() for line in drawn(seen))
    assert "40% · 400 rows compared" in lines
    assert "52 rows/s · ETA 12 s" in lines
    assert "a sample: 400 of about 5,000 items" in lines
    assert "40% 400 rows, 0 differences, a sample: 400 of about 5,000 items (8 %), 52 rows/s, ETA 12 s" in "\n".join(
        PlainView().lines(seen, 0.0)
    )


def test_lines_come_at_once_for_what_is_of_note_and_seldom_for_figures() -> None:
    plain = PlainView()
    first = [line.split("  ", 1)[1] for line in plain.lines(observed("snapshot"), 0.0)]
    assert first == [
        "PhaseChanged: Pending -> Preflight",
        "Warning WorkerFailed: snapshot-1 ended with code 1; it is started again",
        "Snapshot  58% 214,000 of 364,000 rows, 41,200 rows/s, ETA 3.6 s",
    ]
    assert plain.lines(observed("snapshot"), 10.0) == []
    following = [line.split("  ", 1)[1] for line in plain.lines(observed("following"), 10.1)]
    assert following == [
        "Following/AwaitingApproval  lag 0.4 s, 1,204 changes, check Equal, 0 differences",
        f"Next: To cut over: whimbrel approve shop --plan {PLAN}",
    ]
    moved = migration("following")
    stream = moved.status.stream.model_copy(update={"changes_applied": 9})
    status = moved.status.model_copy(update={"stream": stream})
    later = Observed(moved.model_copy(update={"status": status}), NOW, observed("following").events)
    assert plain.lines(later, 11.0) == []
    assert len(plain.lines(later, 12.2)) == 1


def test_rates_follow_the_last_seconds_and_start_anew() -> None:
    rates = Rates()
    assert rates.update(0.0, {"a": 0}) == {"a": 0.0}
    assert rates.update(1.0, {"a": 100}) == {"a": 100.0}
    assert rates.update(20.0, {"a": 100}) == {"a": 0.0}
    assert rates.update(21.0, {"a": 5}) == {"a": 0.0}


def test_figures() -> None:
    assert [span(value) for value in (None, 0.42, 12, 59.7, 200, 7500, 356_400)] == [
        "–", "0.4 s", "12 s", "1 m 0 s", "3 m 20 s", "2 h 5 m", "4 d 3 h",
    ]  # fmt: skip
    assert [size(value) for value in (0, 999, 1000, 28_400_000, 999_999)] == [
        "0 B",
        "999 B",
        "1.0 KB",
        "28.4 MB",
        "1.0 MB",
    ]
    assert (percent(999, 1000), percent(1000, 1000), percent(5, 0), percent(7, 5)) == (99, 100, 0, 100)
    assert (count(336_776), shortened("abcdef", 4), one_line(" a\n\tb ")) == ("336,776", "abc…", "a b")


def test_an_event_stands_under_its_own_time() -> None:
    lines = PlainView().lines(observed("snapshot"), 0.0)
    events = observed("snapshot").events
    assert events
    assert [line[:8] for line in lines[: len(events)]] == [clock(event.at) for event in events]


def test_the_final_check_gives_no_share_of_rows_that_it_does_not_read() -> None:
    seen = Observed(migration("freezing"), NOW, [], {}, Checking(1_200, 364_000, 0))
    assert any(line.startswith("Check    running · 1,200 rows compared · 0 differences") for line in drawn(seen))


def followed(*lags: float | None) -> Observed:
    return Observed(migration("following"), NOW, lags=lags)


def test_the_lag_of_the_last_looks_stands_below_the_stream_as_bars() -> None:
    lines = drawn(followed(0.0, 1.0, None, 3.5, 7.0))
    assert lines[lines.index("Stream   lag 0.4 s · 1,204 changes applied") + 1] == "Lag      ▁▂ ▅█ up to 7.0 s"
    assert any(
        line.startswith("Lag      _.") and line.isascii() for line in drawn(followed(0.0, 1.0, 7.0), glyphs=PLAIN)
    )


@pytest.mark.parametrize("seen", [followed(), followed(1.0), followed(None, 1.0)])
def test_one_look_makes_no_bars(seen: Observed) -> None:
    assert not any(line.startswith("Lag ") for line in drawn(seen))


def test_a_migration_that_is_over_has_no_bars() -> None:
    assert not any(line.startswith("Lag ") for line in drawn(Observed(migration("completed"), NOW, lags=(1.0, 2.0))))


@pytest.mark.parametrize("width", [20, 30, 60])
def test_bars_that_do_not_fit_are_the_newest(width: int) -> None:
    (line,) = [line for line in drawn(followed(*range(1, 100)), width=width) if line.startswith("Lag ")]
    assert len(line) <= max(width, 29)
    assert "█" in line


@pytest.mark.parametrize(
    ("values", "width", "bars"),
    [((), 5, ""), ((0.0, 0.0), 5, "__"), ((None, 2.0), 5, " #"), ((1.0, 0.0, 2.0), 2, "_#"), ((1.0,), 0, "")],
)
def test_a_sparkline(values: tuple[float | None, ...], width: int, bars: str) -> None:
    assert sparkline(values, width, ASCII_BARS) == bars


def test_a_negative_value_has_no_bar() -> None:
    with pytest.raises(ValueError, match="at least nothing"):
        sparkline([-1.0], 1)


def test_a_lag_counts_once_for_each_observation() -> None:
    lags, later = Lags(), NOW + timedelta(seconds=1)
    assert lags.update(None, None) == ()
    assert lags.update(NOW, 0.4) == (0.4,)
    assert lags.update(NOW, 0.4) == (0.4,)
    assert lags.update(later, None) == (0.4, None)
