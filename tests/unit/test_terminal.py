"""What the command line draws on a terminal of a given size, held against pictures of it in screens/."""

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.kept_states import KEY, keep, keep_differences, keep_validation, keep_worker
from support.live_states import STATES
from support.patience import eventually
from support.terminal import Screen, Terminal, run
from whimbrel_api.migration import MigrationStatus, Phase
from whimbrel_operator.runtime.store import LocalStore

SCREENS = Path(__file__).parent / "screens"
REGENERATE = "if the change is meant: UPDATE_GOLDEN=1 make unit PYTEST='-k terminal', then look at them and commit them"
WHIMBREL = [sys.executable, "-m", "whimbrel_cli"]
_HALF_A_MINUTE = 30
"""So far from the next minute is an age that is shown to the minute; a slow machine does not change it."""
DIFFERENT = {"name": "check-0", "result": "Different", "differences": {"missing": 1, "changed": 1}, "rowsCompared": 9}


def environment(root: Path, **more: str) -> dict[str, str]:
    """This process's own, without what tells a program about its terminal."""
    told = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
    terminal = {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    return told | terminal | {"WHIMBREL_STATE": str(root)} | more


def recent(state: str) -> dict[str, Any]:
    """What of a state's status must be of just now, for its ages not to grow."""
    now = datetime.now(UTC)
    stream, check = STATES[state].get("stream"), STATES[state].get("validation")
    fresh: dict[str, Any] = {}
    if stream:
        # Ahead, since a slow machine would draw it late enough to be called old.
        fresh["stream"] = stream | {"lagObservedAt": (now + timedelta(minutes=1)).isoformat()}
    if check:
        fresh["validation"] = check | {"completedAt": (now - timedelta(seconds=12)).isoformat()}
    return fresh


def worked_on(root: Path, state: str) -> None:
    """A migration in that state, with what its workers have left."""
    store = keep(root, state, **recent(state))
    said = datetime.now(UTC) - timedelta(hours=2, seconds=_HALF_A_MINUTE)
    begun = timedelta(hours=3, seconds=_HALF_A_MINUTE).total_seconds()
    keep_worker(store, "snapshot", "snapshot", ago=begun, observedAt=said, rowsTotal=364_000, rowsDone=214_000)
    error = {"category": "Incompatible", "what": "the column geo has the type geometry", "where": "flights.airports"}
    keep_worker(store, "schema", "schema", ago=begun, observedAt=said, exit_code=2, state="Failed", lastError=error)
    keep_validation(store, "weekly", phase="Completed", result="Different", differences={"extra": 3})


def compared(root: Path) -> None:
    """A migration whose last comparison has listed two rows."""
    keep_differences(keep(root, "following", validation=DIFFERENT), "check-0")


def picture(screen: Screen) -> str:
    """The screen without what differs at each run: times of the day, seconds, pids, and lines with the folder's path.

    A path has another length at each run, and so another place at which its line breaks; it comes last.
    """
    text = re.split(r"^(?:Logs|Files) ", "\n".join(screen.lines) + "\n", maxsplit=1, flags=re.MULTILINE)[0]
    for pattern, instead in (
        (r"\d\d:\d\d:\d\d", "hh:mm:ss"), (r"\d+(\.\d)? s (ago|old)", r"N s \2"), (r"pid \d+", "pid N"),
    ):  # fmt: skip
        text = re.sub(pattern, instead, text)
    return text


def hold(name: str, found: str) -> None:
    """Hold a picture against the one that is kept."""
    path = SCREENS / f"{name}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), REGENERATE


@pytest.mark.parametrize("columns", [80, 120, 200])
@pytest.mark.parametrize("state", ["snapshot", "following"])
def test_the_status_on_a_terminal(state: str, columns: int, tmp_path: Path) -> None:
    worked_on(tmp_path, state)
    screen, code = run([*WHIMBREL, "status", "shop"], columns, 40, environment(tmp_path))
    assert code == 0
    assert screen.coloured
    hold(f"status-{state}-{columns}", picture(screen))


@pytest.mark.parametrize("columns", [60, 120])
def test_the_tree_on_a_terminal(columns: int, tmp_path: Path) -> None:
    worked_on(tmp_path, "snapshot")
    screen, code = run([*WHIMBREL, "tree", "shop"], columns, 40, environment(tmp_path))
    assert (code, screen.above) == (0, [])
    hold(f"tree-{columns}", picture(screen))


def test_the_rows_that_differ_on_a_terminal(tmp_path: Path) -> None:
    compared(tmp_path)
    screen, code = run([*WHIMBREL, "diff", "shop", "--table", "flights.flights"], 120, 24, environment(tmp_path))
    assert code == 4
    hold("diff-120", picture(screen))


def test_a_live_view_leaves_one_picture_and_the_cursor(tmp_path: Path) -> None:
    worked_on(tmp_path, "completed")
    screen, code = run([*WHIMBREL, "status", "shop", "-w"], 100, 30, environment(tmp_path))
    assert (code, screen.cursor_shown) == (0, True)
    assert screen.lines[0].startswith("shop  mysql db:3306")
    assert sum(line.startswith("shop  ") for line in screen.lines) == 1


def test_a_tree_that_cuts_nothing_off_has_no_blanks_to_wrap(tmp_path: Path) -> None:
    store = keep(tmp_path, "snapshot")
    error = {"category": "Incompatible", "what": "the column geo " + "is odd, " * 200 + "at its end"}
    keep_worker(store, "schema", "schema", exit_code=2, state="Failed", lastError=error)
    screen, code = run([*WHIMBREL, "tree", "shop", "-o", "wide"], 100, 40, environment(tmp_path))
    assert code == 0
    assert screen.lines[1].startswith("Migration/shop")
    assert screen.lines[2].startswith("└─ Process/schema-0"), "one line each, where nothing is long"
    assert "at its end" in "".join(screen.lines)


@pytest.mark.parametrize("columns", [60, 80])
def test_the_list_on_a_narrow_terminal_has_fewer_columns_and_none_cut(columns: int, tmp_path: Path) -> None:
    worked_on(tmp_path, "following")
    screen, _ = run([*WHIMBREL, "status"], columns, 40, environment(tmp_path))
    told = [line.split() for line in screen.lines]
    assert told[0] == ["NAMESPACE", "NAME", "KIND", "PHASE", *(["PROGRESS", "LAG"] if columns == 80 else []), "STATE"]
    assert told[1][:4] == ["default", "shop", "Migration", "Following"]
    assert told[1][-1] == "AwaitingApproval"


@pytest.mark.parametrize("command", [["status"], ["status", "shop"], ["tree", "shop"], ["report", "shop"]])
def test_an_encoding_without_the_signs_stops_no_command(command: list[str], tmp_path: Path) -> None:
    worked_on(tmp_path, "snapshot")
    told = environment(tmp_path, PYTHONIOENCODING="ascii")
    screen, code = run([*WHIMBREL, *command], 40, 60, told)
    assert (code, "UnicodeEncodeError" in "\n".join(screen.lines)) == (0, False)


def lagging(store: LocalStore, seconds: float) -> None:
    """The operator has observed another lag."""
    status, version = store.read_status(KEY)
    assert isinstance(status, MigrationStatus)
    update = {"lag_seconds": seconds, "lag_observed_at": datetime.now(UTC)}
    stream = status.stream.model_copy(update=update)
    store.write_status(KEY, status.model_copy(update={"stream": stream}), version)


def shows(terminal: Terminal, words: str) -> bool:
    """Whether the stream's line has these words by now."""
    return any(line.startswith("Stream") and words in line for line in terminal.look())


def test_a_live_view_draws_the_lag_of_its_looks_and_stays_one_picture(tmp_path: Path) -> None:
    store = keep(tmp_path, "following", **recent("following"))
    lagging(store, 1.0)
    with Terminal([*WHIMBREL, "status", "shop", "-w"], 100, 30, environment(tmp_path)) as terminal:
        eventually(lambda: shows(terminal, "lag 1.0 s"), terminal.look)
        for lag in (4.0, 2.0):
            lagging(store, lag)
            eventually(partial(shows, terminal, f"lag {lag} s"), terminal.look)
        assert [line for line in terminal.look() if line.startswith("Lag ")] == ["Lag      ▃█▅ up to 4.0 s"]
        status, version = store.read_status(KEY)
        store.write_status(KEY, status.model_copy(update={"phase": Phase.COMPLETED}), version)
        assert terminal.end() == 0
        assert [line for line in terminal.screen.lines if line.startswith("shop  ")] == terminal.screen.lines[:1]


def heads(terminal: Terminal) -> list[str]:
    """The first words of the lines that a picture has one of."""
    return [line.split()[0] for line in terminal.look() if line.startswith(("shop  ", "Next "))]


def test_a_live_view_on_a_low_terminal_keeps_what_to_do_next_and_stays_one_picture(tmp_path: Path) -> None:
    tables = [{"name": f"shop.t{number}", "state": "Following"} for number in range(30)]
    store = keep(tmp_path, "following", tables=tables, **recent("following"))
    lagging(store, 1.0)
    with Terminal([*WHIMBREL, "status", "shop", "-w"], 100, 16, environment(tmp_path)) as terminal:
        for lag in (1.0, 4.0, 2.0):
            lagging(store, lag)
            eventually(partial(shows, terminal, f"lag {lag} s"), terminal.look)
        eventually(lambda: heads(terminal) == ["shop", "Next"], terminal.look)
        assert terminal.screen.above == []


def test_a_live_view_of_what_is_deleted_ends_and_says_so(tmp_path: Path) -> None:
    store = keep(tmp_path, "following", **recent("following"))
    with Terminal([*WHIMBREL, "status", "shop", "-w"], 100, 30, environment(tmp_path)) as terminal:
        eventually(lambda: heads(terminal) == ["shop", "Next"], terminal.look)
        store.delete(KEY)
        assert terminal.end() == 1
        assert terminal.screen.lines[-1] == "whimbrel: Migration shop is gone: it was deleted."


@pytest.mark.parametrize("command", [["status", "shop"], ["diff", "shop"]])
def test_no_color_is_obeyed(command: list[str], tmp_path: Path) -> None:
    compared(tmp_path)
    screen, _ = run([*WHIMBREL, *command], 100, 30, environment(tmp_path, NO_COLOR="1"))
    assert screen.lines
    assert not screen.coloured


@pytest.mark.parametrize("command", [["status", "shop"], ["tree", "shop"], ["logs", "shop"]])
def test_a_pipe_gets_text_alone(command: list[str], tmp_path: Path) -> None:
    worked_on(tmp_path, "following")
    compared(tmp_path)
    done = subprocess.run([*WHIMBREL, *command], capture_output=True, env=environment(tmp_path), check=False)
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", [["status"], ["status", "shop"], ["tree", "shop"]])
def test_a_pipe_gets_all_of_it_unless_columns_says_how_wide(command: list[str], tmp_path: Path) -> None:
    name = "shop_production.customer_order_line_items_archive"
    table = {"name": name, "state": "Following", "rowsTotal": 9, "rowsCopied": 9}
    store = keep(tmp_path, "following", tables=[table, *({**table, "name": f"{name}{n}"} for n in range(60))])
    keep_validation(store, f"{'long-' * 20}name", phase="Completed", result="Equal")

    def piped(**more: str) -> str:
        told = environment(tmp_path, **more)
        done = subprocess.run([*WHIMBREL, *command], capture_output=True, env=told, check=True, encoding="utf-8")
        return done.stdout

    whole = piped()
    assert "…" not in whole
    assert (f"{name}59" if "shop" in command and "status" in command else f"{'long-' * 20}name") in whole
    assert all(len(line) <= 60 for line in piped(COLUMNS="60").splitlines() if not line.startswith(("Logs", "Idle")))


def test_every_picture_is_of_a_test() -> None:
    states = [f"status-{state}-{columns}" for state in ("snapshot", "following") for columns in (80, 120, 200)]
    assert {path.stem for path in SCREENS.iterdir()} == {*states, "tree-60", "tree-120", "diff-120"}
