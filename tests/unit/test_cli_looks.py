"""`tree`, `logs`, `diff` and `report` on a folder of this machine, as a run has left it."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kept_states import KEY, keep, keep_differences, keep_validation, keep_worker
from whimbrel_api.migration import CheckResult, Differences
from whimbrel_api.validation import Validation
from whimbrel_cli.commands.diff import where_the_rest_is
from whimbrel_cli.differences import Comparison
from whimbrel_cli.exits import Exit
from whimbrel_cli.main import invoke
from whimbrel_operator.domain.decision import Event
from whimbrel_operator.domain.validation import check_id
from whimbrel_operator.runtime.store import LocalStore

Run = Callable[..., tuple[int, str, str]]
NOW = datetime.now(UTC)
DIFFERENT = {
    "name": "check-0", "result": "Different", "differences": {"missing": 1, "changed": 1}, "rowsCompared": 364_100,
    "completedAt": (NOW - timedelta(seconds=12)).isoformat(),
}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("WHIMBREL_STATE", str(tmp_path))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = invoke(arguments)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def stamped(seconds_ago: float, text: str) -> str:
    """A line as a worker of this machine writes it."""
    at = (datetime.now() - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%d %H:%M:%S,%f")[:-3]
    return f"{at} INFO MainThread whimbrel_worker.stream: {text}\n"


def working(root: Path) -> LocalStore:
    """A migration that is followed, with two workers and a Validation."""
    store = keep(root, "following")
    keep_worker(
        store, "stream", "stream", log=stamped(700, "began") + stamped(3, "at u:1-90"),
        stream={"lagSeconds": 0.42, "changesApplied": 1204},
    )  # fmt: skip
    keep_worker(
        store, "check-0", "check", log=stamped(5, "compared"), exit_code=0, state="Done",
        check={"result": "Equal", "rowsCompared": 364_100},
    )  # fmt: skip
    keep_validation(store, "weekly", phase="Completed", result="Different", differences={"extra": 3})
    return store


def test_the_tree_shows_every_worker_with_its_report_and_the_validations(tmp_path: Path, run: Run) -> None:
    working(tmp_path)
    code, shown, errors = run("tree", "shop")
    assert errors == ""
    assert code == Exit.DONE
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert lines[0] == "NAME STATE AGE SAYS"
    assert lines[1].startswith("Migration/shop Following")
    assert lines[2].startswith("├─ Process/check-0-0 ended with 0 1 h 0 m")
    assert lines[3].startswith("│ └─ WorkerReport/check-0-0 Done")
    assert lines[3].endswith("364,100 rows compared, 0 differences")
    assert lines[4].startswith(f"├─ Process/stream-0 running 1 h 0 m pid {os.getpid()}")
    assert lines[5].endswith("lag 0.4 s, 1,204 changes")
    assert lines[6].startswith("└─ Validation/weekly Completed")
    assert lines[6].endswith("Different, 3 differences")


def test_a_process_that_died_unseen_is_not_told_to_run(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "following")
    kept = keep_worker(store, "stream", "stream")
    known = kept.known()
    assert known is not None
    kept.keep(replace(known, birth="of a former one with this number"))
    line = " ".join(run("tree", "shop")[1].splitlines()[2].split())
    assert line.startswith("└─ Process/stream-0 gone 1 h 0 m nobody saw its end")


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_the_tree_for_a_script_says_what_is_well(output: str, tmp_path: Path, run: Run) -> None:
    working(tmp_path)
    root = yaml.safe_load(run("tree", "shop", "-o", output)[1])
    assert (root["kind"], root["well"]) == ("Migration", None)
    assert {each["name"]: each["well"] for each in root["children"]} == {
        "check-0-0": True, "stream-0": None, "weekly": False,
    }  # fmt: skip


def test_logs_of_all_workers_come_in_the_order_of_time(tmp_path: Path, run: Run) -> None:
    working(tmp_path)
    code, shown, errors = run("logs", "shop")
    assert (code, errors) == (Exit.DONE, "")
    said = [(line.split("] ")[0].lstrip("["), line.rsplit(": ", 1)[1]) for line in shown.splitlines()]
    assert said == [("stream-0", "began"), ("check-0-0", "compared"), ("stream-0", "at u:1-90")]


def test_logs_can_be_of_one_task_and_of_late_without_a_prefix(tmp_path: Path, run: Run) -> None:
    working(tmp_path)
    shown = run("logs", "shop", "--task", "stream", "--since", "1m", "--no-prefix")[1].splitlines()
    assert len(shown) == 1
    assert shown[0].endswith("at u:1-90")
    assert not shown[0].startswith("[")
    assert len(run("logs", "shop", "--tail", "1")[1].splitlines()) == 2


def test_logs_of_a_task_that_nobody_does_name_those_that_are_there(tmp_path: Path, run: Run) -> None:
    working(tmp_path)
    code, _, errors = run("logs", "shop", "--task", "reverse")
    assert code == Exit.USAGE
    assert "No worker of shop does 'reverse'; there are: check-0, stream." in errors
    assert "whimbrel tree shop" in errors


def test_following_logs_ends_with_the_migration_and_shows_all_of_it(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "completed")
    keep_worker(store, "stream", "stream", log=stamped(3, "the last one"), exit_code=0, state="Done")
    code, shown, _ = run("logs", "shop", "-f")
    assert code == Exit.DONE
    assert shown.rstrip().endswith("the last one")


def test_following_a_task_that_nobody_does_yet_says_that_it_waits(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "completed")
    assert "No worker of shop is there yet; waiting." in run("logs", "shop", "-f")[2]
    keep_worker(store, "stream", "stream", exit_code=0, state="Done")
    assert "No worker of shop does 'straem' yet; waiting." in run("logs", "shop", "-f", "--task", "straem")[2]
    assert run("logs", "shop", "-f", "--task", "stream")[2] == ""


def test_a_comparison_that_found_nothing_is_said_with_exit_code_0(tmp_path: Path, run: Run) -> None:
    keep(tmp_path, "following")
    code, shown, _ = run("diff", "shop")
    assert code == Exit.DONE
    assert "Equal, 364,100 rows compared, 0 differences" in shown


def test_rows_that_differ_show_what_each_side_has(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "following", validation=DIFFERENT)
    path = keep_differences(store, "check-0")
    code, shown, _ = run("diff", "shop")
    assert code == Exit.DIFFERENT
    assert shown.splitlines()[1:] == [
        "flights.flights id=7: changed",
        "  - tailnum: N14228",
        "  + tailnum: NULL",
        "flights.weather origin=EWR, hour=5: missing",
        f"Files    {path}",
    ]
    assert "2 differences (1 missing, 1 changed)" in shown.splitlines()[0]
    alone = run("diff", "shop", "--table", "flights.weather")[1]
    assert "tailnum" not in alone
    assert "and 1 more rows" in run("diff", "shop", "--limit", "1")[1]


def test_the_rows_of_a_validation_are_found_by_its_name_and_by_the_migration_that_counts_it(
    tmp_path: Path, run: Run
) -> None:
    store = keep(tmp_path, "following", validation=DIFFERENT | {"name": "weekly"})
    key = keep_validation(store, "weekly", phase="Completed", result="Different", differences={"changed": 1})
    made = store.get(key)
    assert isinstance(made, Validation)
    keep_differences(store, check_id(made.spec), key)
    for name in ("weekly", "validation/weekly", "shop"):
        code, shown, _ = run("diff", name)
        assert code == Exit.DIFFERENT
        assert "  - tailnum: N14228" in shown.splitlines()


def test_rows_that_differ_are_given_whole_to_a_script(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "following", validation=DIFFERENT)
    keep_differences(store, "check-0")
    code, shown, _ = run("diff", "shop", "-o", "json")
    assert code == Exit.DIFFERENT
    value = json.loads(shown)
    assert value["differences"] == {"missing": 1, "extra": 0, "changed": 1}
    assert value["rows"][0]["columns"]["tailnum"] == {"source": "N14228", "target": None}


def test_without_a_list_the_examples_of_the_workers_are_shown(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "following", validation=DIFFERENT)
    check = {"result": "Different", "examples": ['flights.flights {"id": "7"}: changed in tailnum']}
    keep_worker(store, "check-0", "check", state="Done", exit_code=0, check=check)
    shown = run("diff", "shop")[1]
    assert 'Examples flights.flights {"id": "7"}: changed in tailnum' in shown
    assert "with a Validation of its own" in shown


def test_examples_can_be_of_one_table(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "following", validation=DIFFERENT)
    examples = ['flights.flights {"id": "7"}: changed in tailnum', 'flights.weather {"hour": "5"}: missing']
    keep_worker(
        store, "check-0", "check", state="Done", exit_code=0, check={"result": "Different", "examples": examples}
    )
    shown = run("diff", "shop", "--table", "flights.weather")[1]
    assert examples[1] in shown
    assert examples[0] not in shown


def test_what_may_not_be_read_is_not_told_to_be_gone() -> None:
    found = Comparison("x", CheckResult.DIFFERENT, Differences(changed=1), 0, 9, "", None, hidden=("worker reports",))
    assert where_the_rest_is(found) == ["Hidden   you may not read here: worker reports"]
    assert found.document()["hidden"] == ["worker reports"]


def test_values_that_would_look_alike_are_told_apart_and_steer_no_terminal(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "following", validation=DIFFERENT)
    pairs = [("ab", "ab "), ("a b", "a  b"), ("", None), ("NULL", None), ("x\x1b[2J", "x\u2028y"), ("é ", "é")]
    columns = {f"c{number}": {"source": one, "target": other} for number, (one, other) in enumerate(pairs)}
    row = {"table": "shop.a", "kind": "changed", "key": {"id": "7 "}, "columns": columns}
    keep_differences(store, "check-0").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    code, shown, errors = run("diff", "shop")
    assert (code, errors) == (Exit.DIFFERENT, "")
    assert shown.splitlines()[1:14] == [
        'shop.a id="7 ": changed',
        "  - c0: ab", '  + c0: "ab "', "  - c1: a b", '  + c1: "a  b"', '  - c2: ""', "  + c2: NULL",
        '  - c3: "NULL"', "  + c3: NULL", '  - c4: "x\\u001b[2J"', '  + c4: "x\\u2028y"', '  - c5: "é "', "  + c5: é",
    ]  # fmt: skip


def test_what_is_not_kept_any_more_is_said(tmp_path: Path, run: Run) -> None:
    keep(tmp_path, "following", validation=DIFFERENT)
    assert "Which rows differ is not kept any more" in run("diff", "shop")[1]
    keep(tmp_path / "other", "snapshot")
    code, _, errors = run("--state", str(tmp_path / "other"), "diff", "shop")
    assert code == Exit.FAILED
    assert "shop has not been compared yet." in errors


def test_a_damaged_list_is_named_with_its_line(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "following", validation=DIFFERENT)
    keep_differences(store, "check-0").write_text('{"table": "a"}\n{"tab', encoding="utf-8")
    code, _, errors = run("diff", "shop")
    assert code == Exit.FAILED
    assert "differences-check-0-0.jsonl, line 2 is no JSON" in errors


def moments(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def cutover() -> dict[str, Any]:
    steps = [
        {"name": "Freeze", "position": "u:1-90", "by": "freeze-0@host, epoch 3", "at": moments(50), "detail": "quiet"},
        {"name": "Fence", "position": "u:1-90", "by": "fence-0@host, epoch 3", "at": moments(20)},
    ]
    times = {"startedAt": moments(60), "completedAt": moments(15)}
    return {"state": "Switched", "freezePosition": "u:1-90", "steps": steps, **times}


def test_the_record_of_a_migration_holds_who_when_and_how_long(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "completed", cutover=cutover())
    store.add_event(KEY, Event("Normal", "PreflightPassed", "Preflight → Schema"))
    keep_validation(store, "weekly", phase="Completed", result="Equal", rowsCompared=5)
    code, shown, _ = run("report", "shop", "-o", "json")
    assert code == Exit.DONE
    value = json.loads(shown)
    assert value["writePause"] == {
        "from": value["cutover"]["startedAt"], "to": value["cutover"]["completedAt"], "atMostSeconds": 45.0,
        "atLeastSeconds": 30.0,
    }  # fmt: skip
    assert [step["by"] for step in value["cutover"]["steps"]] == ["freeze-0@host, epoch 3", "fence-0@host, epoch 3"]
    assert [each["phase"] for each in value["times"]] == ["Preflight", "Schema"]
    assert [each["by"] for each in value["comparisons"]] == ["", "weekly"]
    assert value["snapshot"]["rowsCopied"] == 364_000
    assert [each["reason"] for each in value["events"]] == ["Started", "Retrying", "PreflightPassed"]
    assert value["notKnown"] == []


def test_the_record_as_markdown_has_every_section_and_no_sign_of_others_is_read(tmp_path: Path, run: Run) -> None:
    plan = "sha256:1f3a9c"
    said = {"type": "CutoverApproved", "status": "True", "reason": "Approved", "lastTransitionTime": moments(70)}
    store = keep(tmp_path, "completed", cutover=cutover(), plan={"hash": plan}, conditions=[said])
    store.patch_spec(KEY, {"cutover": {"approvedPlan": plan}})
    store.add_event(KEY, Event("Warning", "Retrying", "a | b\n# no heading"))
    _, shown, _ = run("report", "shop")
    headings = [line[3:] for line in shown.splitlines() if line.startswith("## ")]
    assert headings == ["Plan", "Times", "Rows", "Comparisons", "Cutover", "Conditions", "Events"]
    assert "- **Approved:** this plan, since 20" in shown
    assert shown.startswith("# Migration default/shop: Completed\n")
    assert "- **Write pause:** at most 45 s" in shown
    assert "at least 30 s" in shown
    assert r"a \| b \# no heading |" in shown
    rows = [line for line in shown.splitlines() if line.startswith("| Freeze")]
    assert rows[0].count("|") == 6
    assert "freeze-0@host, epoch 3" in rows[0]


def test_a_record_without_the_events_says_what_it_cannot_know(tmp_path: Path, run: Run) -> None:
    store = keep(tmp_path, "completed", cutover={"state": "Switched", "completedAt": moments(15)})
    (store.folder(KEY) / "events.jsonl").unlink()
    value = yaml.safe_load(run("report", "shop", "-o", "yaml")[1])
    assert len(value["notKnown"]) == 2
    assert value["writePause"] is None
