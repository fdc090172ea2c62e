"""The demo's play: who does what when, how long the writes stopped, and what is said at the end. Servers: component."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from support.patience import eventually
from support.played import Played, Told, back, console, director, items, said
from whimbrel_cli.demo import acts
from whimbrel_cli.demo import director as people
from whimbrel_cli.demo.director import Director, estimated
from whimbrel_cli.demo.options import Options, Pair
from whimbrel_cli.demo.report import pause_row, show_figures, verdict
from whimbrel_cli.demo.stage import Side
from whimbrel_cli.demo.traveller import Pause
from whimbrel_cli.exits import Exit
from whimbrel_cli.guidance import Resource
from whimbrel_operator.domain.cutover.rehearsal import Estimate

TWO_WAYS = Options(Path("x.yaml"), Pair.DYNAMODB, rate=7, seed=5, way_back=True)
ONE_WAY = Options(Path("x.yaml"), Pair.DYNAMODB, rate=7, seed=5)
MOMENTS = ((100.0, 110.0), (131.5, 140.0), (152.25, 160.0))
THERE = [items("Following", "AwaitingApproval"), items("CuttingOver", "Freezing"), items("CuttingOver", "FinalCheck")]
ROLLING: dict[str, Any] = {"rollback": {"position": "0/2A"}}
ROLLED_BACK: dict[str, Any] = {"rolledBackAt": "2026-11-21T12:00:00Z"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody watches: nothing stays for a watcher's sake."""
    monkeypatch.setattr(people, "_FOLLOW_FOR", 0.0)
    monkeypatch.setattr(people, "_TELL_EVERY", 0.0)
    monkeypatch.setattr(acts, "_STAY", 0.0)
    monkeypatch.setattr(acts, "_COMPARE_AGAIN", 0.0)


def shown(playing: Director, *looks: Sequence[Resource]) -> bool:
    """Shows it one moment after the other, each until what it began to read is read."""
    over = False
    for look in looks:
        over = playing.look(look)
        eventually(lambda: all(each.ready() for each in playing.comparisons))
        over = playing.look(look)
    return over


def played_back(playing: Director) -> bool:
    return shown(
        playing,
        *([each] for each in THERE),
        [items("CuttingOver", "ArmingReverse"), back(0)],
        [items("Completed", "Switched"), back(0)],
        [items("Completed", "Switched", ready=True), back(31)],
        [items("Completed", "RollingBack"), back(31)],
        [items("Completed", "RollingBack", **ROLLING), back(31, drainedTo="0/2A")],
        [items("Completed", "RolledBack", **ROLLED_BACK), back(31)],
        [items("CatchUp", "RolledBack", **ROLLED_BACK)],
        [items("Following", "RolledBack", **ROLLED_BACK)],
    )


def test_there_and_back_again(tmp_path: Path) -> None:
    screen, stage = console(), Played(tmp_path, ("flights",), MOMENTS, [[], [], ["late"], []])
    with director(stage, TWO_WAYS, acts.there_and_back, screen) as playing:
        assert played_back(playing)
        assert playing.played
    assert isinstance(playing.orders, Told)
    assert playing.orders.orders == ["approve sha256:1f3a9c", "status", "rollback"]
    assert stage.told_of == [
        "source by seed 5", "compared", "target by seed 6", "compared", "source by seed 7", "compared", "compared",
    ]  # fmt: skip
    assert [(each.before, each.after, each.seconds) for each in playing.traveller.pauses()] == [
        (Side.SOURCE, Side.TARGET, 21.5), (Side.TARGET, Side.SOURCE, 12.25),
    ]  # fmt: skip
    assert [at for at, _ in playing.moments] == [
        "Following", "CuttingOver", "Completed", "RollingBack", "Completed", "CatchUp", "Following",
    ]  # fmt: skip
    show_figures(screen, playing)
    assert verdict(screen, playing) is Exit.DONE
    told = said(screen)
    assert "The application writes to there now." in told
    assert "Flowing back, there → here: lag 0.3s, 31 changes" in told
    assert "On the target's server is left: no replication slot, no publication." in told
    assert "here → there" in told
    assert "Compared at the rollback by plain reads" in told
    assert told.rstrip().endswith("No difference in 1 tables. Nothing was lost.")


@pytest.mark.parametrize(
    ("found", "left", "sentence"),
    [
        ([["flights 1: differs"], [], []], [], "The servers differ at the cutover, by plain reads of both."),
        ([[], ["flights 1: differs"], []], [], "The servers differ at the rollback, by plain reads of both."),
        ([[], [], []], ["replication slot s"], "on the target's server is left: replication slot s."),
    ],
)
def test_whatever_is_not_as_it_should_be_fails_the_demo(
    tmp_path: Path, found: list[list[str]], left: list[str], sentence: str
) -> None:
    screen, stage = console(), Played(tmp_path, ("flights",), MOMENTS, found, left)
    with director(stage, TWO_WAYS, acts.there_and_back, screen) as playing:
        assert played_back(playing)
    assert verdict(screen, playing) is Exit.FAILED
    assert sentence in said(screen)


def test_what_still_differs_when_time_is_up_fails_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acts, "_SETTLE", -1.0)
    screen, stage = console(), Played(tmp_path, ("flights",), MOMENTS, [[], [], ["flights 1: differs"]])
    with director(stage, TWO_WAYS, acts.there_and_back, screen) as playing:
        assert played_back(playing)
    assert verdict(screen, playing) is Exit.FAILED
    assert "The servers differ at the end, by plain reads of both." in said(screen)


def test_a_rollback_that_is_given_up_fails_the_demo(tmp_path: Path) -> None:
    screen, stage = console(), Played(tmp_path, ("flights",), MOMENTS, [[]])
    given_up: dict[str, Any] = {"rollback": {"givenUp": True}, "message": "the rollback was given up: the sides differ"}
    with director(stage, TWO_WAYS, acts.there_and_back, screen) as playing:
        assert shown(
            playing,
            *([each] for each in THERE),
            [items("Completed", "Switched", ready=True), back(31)],
            [items("Completed", "RollingBack"), back(31)],
            [items("Completed", "Switched", **given_up), back(31)],
        )
    assert verdict(screen, playing) is Exit.FAILED
    assert "The rollback did not come to its end: the rollback was given up: the sides differ" in said(screen)


@pytest.mark.parametrize("rests", [True, False])
def test_one_way_ends_at_the_target(tmp_path: Path, rests: bool) -> None:
    """Where a snapshot can be read it is taken before the application writes there, and read after."""
    screen, stage = console(), Played(tmp_path, ("flights",), MOMENTS, [[]], rests=rests)
    with director(stage, ONE_WAY, acts.one_way, screen) as playing:
        assert shown(playing, *([each] for each in THERE), [items("Completed", "Switched")])
    assert stage.told_of == ["source by seed 5", "compared", "target by seed 6"]
    assert [each.done.changes for each in playing.traveller.legs] == [7, 7]
    assert verdict(screen, playing) is Exit.DONE


def test_an_approval_is_given_once_for_a_plan(tmp_path: Path) -> None:
    stage = Played(tmp_path, ("flights",), MOMENTS)
    with director(stage, ONE_WAY, acts.one_way, console()) as playing:
        assert not shown(playing, [THERE[0]], [THERE[0]])
    assert isinstance(playing.orders, Told)
    assert playing.orders.orders == ["approve sha256:1f3a9c"]
    assert not playing.played


def row(tmp_path: Path, pause: Pause, estimate: Estimate | None) -> tuple[str, str, str]:
    screen: Console = console()
    with director(Played(tmp_path, (), MOMENTS), TWO_WAYS, acts.there_and_back, screen) as playing:
        playing.estimate = estimate
        return pause_row(playing, pause)


def test_a_pause_stands_beside_what_was_expected_of_it(tmp_path: Path) -> None:
    there, bounded = Pause(Side.SOURCE, Side.TARGET, 21.5, 0.2), Estimate(18.0, "measured", at_most=True)
    assert row(tmp_path, there, bounded) == ("here → there", "22 s", "at most 18 s")
    assert row(tmp_path, Pause(Side.SOURCE, Side.TARGET, None, 0.0), None)[1:] == ("–", "an unknown time")
    held = Pause(Side.TARGET, Side.SOURCE, 12.0, 4.0)
    assert row(tmp_path, held, bounded)[2] == "– (the demo's own comparison took 4.0 s of it)"


def test_an_estimate_is_worded_as_the_command_words_it() -> None:
    assert estimated(Estimate(31.0, "measured")) == "about 31 s"
    assert estimated(Estimate(None, "not measured")) == "an unknown time"
