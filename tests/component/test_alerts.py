"""The alerts by promtool: each fires on series that deserve it and on no others; and the panels' queries are PromQL.

The series are those of the operator, by their names in the catalogue; times are Prometheus' own, from 0 on.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.panels import as_grafana
from whimbrel_operator.figures import catalogue, dashboard
from whimbrel_testbed.prometheus import promtool

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "charts" / "whimbrel" / "files" / "alerts.yaml"
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
ONE = {"namespace": "flights", "name": "shop"}
MIGRATION = ONE | {"kind": "Migration"}
BACK = ONE | {"kind": "ReverseSync"}
STREAM = MIGRATION | {"task": "stream"}
HOUR = 3600


def series(figure: catalogue.Figure, values: str, **labels: str) -> dict[str, str]:
    """One series; labels that are not given are those of ONE, or those of every scrape."""
    told = {name: value for name, value in MIGRATION.items() if name in figure.labels} | labels
    assert set(told) == set(figure.labels), f"{figure.name} has the labels {figure.labels}"
    text = ", ".join(f'{name}="{value}"' for name, value in (told | {"job": "whimbrel", "instance": "a:1"}).items())
    return {"series": f"{figure.name}{{{text}}}", "values": values}


def always(figure: catalogue.Figure, value: float, **labels: str) -> dict[str, str]:
    return series(figure, f"{value:f}+0x240", **labels)


def condition(name: str, value: int, **labels: str) -> dict[str, str]:
    return always(catalogue.CONDITION, value, condition=name, **labels)


def phase(name: str) -> dict[str, str]:
    return always(catalogue.PHASE, 1, phase=name)


@dataclass(frozen=True)
class Case:
    """Series, and the labels of the alert that they raise at `minute`; None where they raise none."""

    why: str
    alert: str
    given: Sequence[dict[str, str]]
    raises: dict[str, str] | None
    minute: int = 30


def _lag(value: float) -> list[dict[str, str]]:
    return [always(catalogue.LAG, value), always(catalogue.LAG_THRESHOLD, 5)]


def _kept(left: float) -> list[dict[str, str]]:
    deadline = series(catalogue.DEADLINE, f"{left + 30 * 60:f}+0x240")
    return [deadline, always(catalogue.RETENTION, 24 * HOUR)]


def _slot(values: str) -> list[dict[str, str]]:
    held = series(catalogue.SLOT_BYTES, values)
    return [held, always(catalogue.SLOT_WARNING, 1 << 30), always(catalogue.SLOT_LIMIT, 10 << 30)]


def _ready(value: int) -> dict[str, str]:
    return condition("RollbackReady", value)


GONE = always(catalogue.BACK_PHASE, 1, phase="Streaming")
VALIDATED_AT_0 = [always(catalogue.VALIDATED_AT, 0), always(catalogue.VALIDATION_MAX_AGE, 600)]
FOUND = always(catalogue.FOUND, 2, difference="missing")
CASES = [
    Case("behind", "WhimbrelLagHigh", [*_lag(30), phase("Following")], ONE),
    Case("behind for 3 minutes", "WhimbrelLagHigh", [*_lag(30), phase("Following")], None, minute=3),
    Case("within twice the threshold", "WhimbrelLagHigh", [*_lag(9), phase("Following")], None),
    Case("still catching up", "WhimbrelLagHigh", [*_lag(900), phase("CatchUp")], None),
    Case("no reading", "WhimbrelLagUnknown", [phase("Following"), condition("Paused", 0)], ONE),
    Case("no reading of another", "WhimbrelLagUnknown", [phase("CatchUp"), always(catalogue.LAG, 1, name="b")], ONE),
    Case("a reading", "WhimbrelLagUnknown", [phase("Following"), always(catalogue.LAG, 1)], None),
    Case("quiet", "WhimbrelLagUnknown", [phase("Following"), always(catalogue.QUIET, 1)], None),
    Case("paused", "WhimbrelLagUnknown", [phase("Following"), condition("Paused", 1)], None),
    Case("not there yet", "WhimbrelLagUnknown", [phase("Snapshot")], None),
    Case("the stream has ended", "WhimbrelLagUnknown", [phase("CuttingOver")], None),
    Case("stalled", "WhimbrelStalled", [condition("Stalled", 1)], MIGRATION),
    Case("a way back", "WhimbrelStalled", [condition("Stalled", 1, kind="ReverseSync")], BACK),
    Case("stalled for a moment", "WhimbrelStalled", [condition("Stalled", 1)], None, minute=2),
    Case("goes on", "WhimbrelStalled", [condition("Stalled", 0), condition("Reconciling", 1)], None),
    Case("a table", "WhimbrelTableStopped", [always(catalogue.TABLES_STOPPED, 2)], ONE),
    Case("none", "WhimbrelTableStopped", [always(catalogue.TABLES_STOPPED, 0)], None),
    Case("an hour left", "WhimbrelRetentionClose", [*_kept(HOUR), phase("Following")], ONE),
    Case("by the guard", "WhimbrelRetentionClose",
         [*_kept(10 * HOUR), phase("Following"), condition("RetentionNear", 1)], ONE),
    Case("enough left", "WhimbrelRetentionClose",
         [*_kept(10 * HOUR), phase("Following"), condition("RetentionNear", 0)], None),
    Case("over", "WhimbrelRetentionClose", [*_kept(HOUR), phase("Completed")], None),
    Case("over the warning", "WhimbrelSlotGrowing", _slot("2000000000+0x240"), ONE),
    Case("over the limit soon", "WhimbrelSlotGrowing", _slot("0+42000000x240"), ONE, minute=25),
    Case("unhealthy", "WhimbrelSlotGrowing", [
        *_slot("1000+0x240"), condition("SlotHealthy", 0, kind="ReverseSync")], ONE),
    Case("grows slowly", "WhimbrelSlotGrowing", [
        *_slot("0+1000000x240"), condition("SlotHealthy", 1, kind="ReverseSync")], None, minute=35),
    Case("twice as old", "WhimbrelValidationStale", [*VALIDATED_AT_0, phase("Following")], ONE, minute=35),
    Case("twice as old, paused", "WhimbrelValidationStale",
         [*VALIDATED_AT_0, phase("Following"), condition("Paused", 1)], None, minute=35),
    Case("old, and no longer asked for", "WhimbrelValidationStale",
         [*VALIDATED_AT_0, phase("Completed")], None, minute=35),
    Case("young", "WhimbrelValidationStale", [*VALIDATED_AT_0, phase("Following")], None, minute=15),
    Case("the last comparison", "WhimbrelDifferences", [FOUND, phase("Following")], MIGRATION),
    Case("one that is over", "WhimbrelDifferences", [FOUND, phase("Cancelled")], None),
    Case("none are there", "WhimbrelDifferences", [
        always(catalogue.FOUND, 0, difference="missing"), phase("Following")], None),
    Case("put right in 10 minutes", "WhimbrelDifferences", [
        series(catalogue.FOUND, "2+0x10 0+0x240", difference="extra"), phase("Following")], None),
    Case("a Validation's", "WhimbrelDifferences", [
        always(catalogue.DIFFERENCES, 1, difference="changed"),
        always(catalogue.VALIDATION_PHASE, 1, phase="Completed")], ONE | {"kind": "Validation"}),
    Case("a Validation's that still runs", "WhimbrelDifferences", [
        always(catalogue.DIFFERENCES, 1, difference="changed"),
        always(catalogue.VALIDATION_PHASE, 1, phase="Running")], None),
    Case("silent", "WhimbrelWorkerDead", [always(catalogue.HEARTBEAT, 0, task="stream")], STREAM, minute=10),
    Case("silent at the last look", "WhimbrelWorkerDead", [
        always(catalogue.HEARTBEAT, 0, task="stream"), series(catalogue.RECONCILED_AT, "0+60x240")], STREAM, minute=10),
    Case("nobody has looked", "WhimbrelWorkerDead", [
        always(catalogue.HEARTBEAT, 0, task="stream"), always(catalogue.RECONCILED_AT, 0)], None, minute=10),
    Case("reports", "WhimbrelWorkerDead", [series(catalogue.HEARTBEAT, "0+60x240", task="stream")], None),
    Case("fails", "WhimbrelWorkerFailing", [always(catalogue.FAILURES, 5, task="stream")], STREAM),
    Case("failed once", "WhimbrelWorkerFailing", [always(catalogue.FAILURES, 1, task="stream")], None),
    Case("nobody leads", "WhimbrelOperatorDown", [always(catalogue.LEADER, 0)], {"job": "whimbrel"}),
    Case("nobody is there", "WhimbrelOperatorDown", [], {}),
    Case("one leads, one waits", "WhimbrelOperatorDown", [
        always(catalogue.LEADER, 1),
        {"series": 'whimbrel_leader{job="whimbrel", instance="b:1"}', "values": "0+0x240"}], None),
    Case("not looked at", "WhimbrelOperatorNotReconciling", [always(catalogue.RECONCILED_AT, 0)], MIGRATION),
    Case("looked at", "WhimbrelOperatorNotReconciling", [series(catalogue.RECONCILED_AT, "0+60x240")], None),
    Case("ended, looked at each 5 minutes", "WhimbrelOperatorNotReconciling", [
        series(catalogue.RECONCILED_AT, "0+0x5 300+0x5 600+0x5 900+0x5 1200+0x5 1500+0x5 1800+0x60")], None),
    Case("fails often", "WhimbrelReconcileErrors", [
        series(catalogue.ERRORS, "0+30x240", error="Api403")], {"kind": "Migration", "error": "Api403"}),
    Case("failed now and then", "WhimbrelReconcileErrors", [series(catalogue.ERRORS, "0+1x240", error="Api500")], None),
    Case("the operator restarted", "WhimbrelReconcileErrors", [
        series(catalogue.ERRORS, "500+0x29 0+0x240", error="Api500")], None, minute=32),
    Case("not ready", "WhimbrelWayBackNotReady", [_ready(0), phase("Completed"), GONE], ONE),
    Case("nobody knows", "WhimbrelWayBackNotReady", [_ready(-1), phase("Completed"), GONE], ONE),
    Case("ready", "WhimbrelWayBackNotReady", [_ready(1), phase("Completed"), GONE], None),
    Case("none is asked for, or it was ended", "WhimbrelWayBackNotReady", [_ready(0), phase("Completed")], None),
    Case("before the cutover", "WhimbrelWayBackNotReady", [_ready(0), phase("Following"), GONE], None),
]  # fmt: skip


def in_promtool(case: Case) -> dict[str, Any]:
    """One test of promtool's: whether the alert fires, with all of its labels."""
    (severity,) = {rule["labels"]["severity"] for rule in RULES if rule["alert"] == case.alert}
    labels = {"alertname": case.alert, "alertstate": "firing", "severity": severity, **(case.raises or {})}
    text = ", ".join(f'{name}="{value}"' for name, value in labels.items())
    expected = [] if case.raises is None else [{"labels": f"ALERTS{{{text}}}", "value": 1}]
    query = f'ALERTS{{alertname="{case.alert}", alertstate="firing"}}'
    return {
        "name": case.why,
        "interval": "1m",
        "input_series": list(case.given),
        "promql_expr_test": [{"expr": query, "eval_time": f"{case.minute}m", "exp_samples": expected}],
    }


def run_promtool(path: Path, cases: Sequence[Case]) -> None:
    tests = [in_promtool(case) for case in cases]
    path.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", str(path))


@pytest.mark.parametrize("alert", sorted({rule["alert"] for rule in RULES}))
def test_an_alert_fires_when_it_should_and_only_then(alert: str, tmp_path: Path) -> None:
    cases = [case for case in CASES if case.alert == alert]
    assert {case.raises is None for case in cases} == {True, False}, "one case that fires and one that does not"
    run_promtool(tmp_path / "cases.yaml", cases)


def test_the_rules_are_well_formed_and_no_name_is_there_twice() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(ALERTS))
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))
    assert {case.alert for case in CASES} == set(names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_to_run_and_leads_to_its_section(rule: dict[str, Any]) -> None:
    told = rule["annotations"]
    assert set(told) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert re.search(r"Run: kubectl \S", told["description"])
    assert told["runbook_url"] == f"docs/runbook.md#{rule['alert'].lower()}"
    assert len(told["summary"]) < 200


def test_each_section_of_the_run_book_is_an_alerts() -> None:
    assert re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE) == [rule["alert"] for rule in RULES]


def test_every_query_of_the_dashboard_is_promql(tmp_path: Path) -> None:
    rules = [
        {"record": f"panel:{number}", "expr": as_grafana(expr)} for number, (_, expr) in enumerate(dashboard.queries())
    ]
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", str(path))
