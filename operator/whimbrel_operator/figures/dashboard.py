"""The Grafana dashboard as code: panels and their queries, rendered to JSON. Which figures there are: see catalogue."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from whimbrel_operator.domain.migration.gate_news import GATES

UID: Final = "whimbrel"
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24
_HEIGHT: Final = 8
# A Migration by its name; what belongs to it (a ReverseSync, a Validation) has a name of its own.
_ONE: Final = 'namespace=~"$namespace", name=~"$name"'
_ALL: Final = 'namespace=~"$namespace"'
_BY: Final = "max by (namespace, name)"
_GATE: Final = "|".join(GATES)


@dataclass(frozen=True)
class Query:
    """A PromQL expression; `legend` is Grafana's, with {{label}}."""

    expr: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One panel. `type` and `unit` are Grafana's; `width` of 24."""

    title: str
    help: str
    queries: tuple[Query, ...]
    unit: str = "short"
    type: str = "timeseries"
    width: int = 8


@dataclass(frozen=True)
class Row:
    """Panels under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _of(figure: str, legend: str, *more: str, labels: str = _ONE, by: str = _BY) -> Query:
    chosen = ", ".join([labels, *more])
    return Query(f"{by} (whimbrel_{figure}{{{chosen}}})", legend)


def _rate(figure: str, legend: str, by: str) -> Query:
    return Query(
        f"sum by (namespace, name, {by}) (rate(whimbrel_{figure}{{{_ALL}}}[$__rate_interval]))", legend
    )  # fmt: skip


_NAME: Final = "{{namespace}}/{{name}}"
_TASK: Final = f"{_NAME} {{{{task}}}}"
_MIGRATIONS: Final = Row(
    "Migrations",
    (
        Panel(
            "Phase", "How far each migration is.",
            (_of("migration_phase", f"{_NAME}: {{{{phase}}}}", by="max by (namespace, name, phase)"),), type="stat",
        ),
        Panel(
            "A person must act", "Resources whose condition Stalled is True; the condition says what to do.",
            (Query(
                'max by (namespace, name, kind) (whimbrel_resource_condition{condition="Stalled", '
                f"{_ALL}}}) == 1", f"{{{{kind}}}} {_NAME}",
            ),), type="stat",
        ),
        Panel(
            "Tables that stopped", "Their changes are not applied any more; the status names them.",
            (_of("migration_tables_stopped", _NAME),), type="stat",
        ),
        Panel(
            "Copied", "Rows in the target, of those that there are by the source's estimate.",
            (Query(
                f"{_BY} (whimbrel_migration_rows_copied{{{_ONE}}}) "
                f"/ ({_BY} (whimbrel_migration_rows{{{_ONE}}}) > 0)", _NAME,
            ),), unit="percentunit",
        ),
        Panel("Time left of the copy", "At the rate of the last 15 s.", (_of("migration_eta_seconds", _NAME),), "s"),
        Panel("Rows copied a second", "As the status has it.", (_of("migration_rows_per_second", _NAME),), "rowsps"),
    ),
)  # fmt: skip
_STREAMS: Final = Row(
    "Streams",
    (
        Panel(
            "Lag", "How old the oldest commit is that is not in the target (apply), or not yet read (fetch).",
            (
                _of("migration_lag_seconds", f"{_NAME} apply"), _of("migration_fetch_lag_seconds", f"{_NAME} fetch"),
                _of("migration_lag_threshold_seconds", f"{_NAME} allowed"),
            ), "s",
        ),
        Panel("Changes applied", "As the stream counts them.", (_of("migration_changes_applied", _NAME),)),
        Panel(
            "Time until the source's log ends", "What is read next is certainly kept for so long.",
            (Query(
                f"{_BY} (whimbrel_migration_retention_deadline_timestamp_seconds{{{_ONE}}}) - time()", _NAME
            ),), "s",
        ),
    ),
)  # fmt: skip
_CUTOVERS: Final = Row(
    "Cutover and comparison",
    (
        Panel(
            "Gates", "1 is open, 0 is closed, -1 is not known, which closes it too.",
            (Query(
                f'max by (namespace, name, condition) (whimbrel_resource_condition{{kind="Migration", '
                f'condition=~"{_GATE}", {_ONE}}})', f"{_NAME} {{{{condition}}}}",
            ),), type="state-timeline", width=12,
        ),
        Panel(
            "Age of the last comparison", "And how old it may be for a cutover.",
            (
                Query(f"time() - {_BY} (whimbrel_migration_validation_timestamp_seconds{{{_ONE}}})", _NAME),
                _of("migration_validation_max_age_seconds", f"{_NAME} allowed"),
            ), "s", width=6,
        ),
        Panel(
            "Differences", "Rows that differ: by the last comparison of a migration, and by each Validation.",
            (
                _of("migration_validation_differences", f"{_NAME} {{{{difference}}}}",
                    by="max by (namespace, name, difference)"),
                _of("validation_differences", f"{_NAME} {{{{difference}}}}", labels=_ALL,
                    by="max by (namespace, name, difference)"),
            ), width=6,
        ),
        Panel(
            "Rows compared a second", "By Validations that run.",
            (_of("validation_rows_per_second", _NAME, labels=_ALL),), "rowsps", width=12,
        ),
        Panel(
            "Time left of comparisons", "Of Validations that run.",
            (_of("validation_eta_seconds", _NAME, labels=_ALL),), "s", width=12,
        ),
    ),
)  # fmt: skip
_WAYS_BACK: Final = Row(
    "Ways back",
    (
        Panel(
            "Log held back by the slot", "With the guard's warning and limit.",
            (
                _of("reversesync_slot_retained_bytes", _NAME, labels=_ALL),
                _of("reversesync_slot_warning_bytes", f"{_NAME} warning", labels=_ALL),
                _of("reversesync_slot_limit_bytes", f"{_NAME} limit", labels=_ALL),
            ), "bytes",
        ),
        Panel(
            "Lag of the way back", "Age of the oldest change not yet in DynamoDB.",
            (_of("reversesync_lag_seconds", _NAME, labels=_ALL),), "s",
        ),
        Panel(
            "Can be gone back", "The condition RollbackReady: 1 is True, 0 is False, -1 is Unknown.",
            (_of("resource_condition", _NAME, 'condition="RollbackReady"'),), type="state-timeline",
        ),
    ),
)  # fmt: skip
_WORKERS: Final = Row(
    "Workers",
    (
        Panel("Rows written", "By all workers.", (_rate("worker_rows_written_total", _TASK, "task"),), "rowsps"),
        Panel("Bytes written", "Of rows.", (_rate("worker_written_bytes_total", _TASK, "task"),), "Bps"),
        Panel("Transactions", "Committed.", (_rate("worker_transactions_total", _TASK, "task"),), "ops"),
        Panel(
            "Retries", "conflict: optimistic concurrency; throttled: the server asked for less.",
            (_rate("worker_retries_total", f"{_NAME} {{{{side}}}} {{{{reason}}}}", "side, reason"),), "ops",
        ),
        Panel(
            "Connections opened", "To the target.",
            (_rate("worker_connections_opened_total", _TASK, "task"),), "ops",
        ),
        Panel(
            "Silence", "Since the last report of the running worker that has been silent for longest.",
            (Query(
                "time() - min by (namespace, name, kind, task) "
                f"(whimbrel_worker_last_report_timestamp_seconds{{{_ALL}}})", _TASK,
            ),), "s",
        ),
        Panel(
            "Running", "By task.", (_of("worker_running", _TASK, labels=_ALL, by="max by (namespace, name, task)"),),
        ),
        Panel(
            "Failures in a row", "Of the worse one of a task.",
            (_of("worker_failures_in_a_row", _TASK, labels=_ALL, by="max by (namespace, name, task)"),),
        ),
    ),
)  # fmt: skip
_OPERATOR: Final = Row(
    "Operator",
    (
        Panel(
            "Time of a pass", "95 of 100 are quicker.",
            (Query(
                "histogram_quantile(0.95, sum by (kind, le) "
                "(rate(whimbrel_reconcile_seconds_bucket[$__rate_interval])))",
                "{{kind}}",
            ),), "s",
        ),
        Panel(
            "Passes that failed", "By kind of error.",
            (Query(
                "sum by (kind, error) (rate(whimbrel_reconcile_errors_total[$__rate_interval]))", "{{kind}} {{error}}"
            ),), "ops",
        ),
        Panel("Leaders", "One, if all is well.", (Query("sum(whimbrel_leader)", "leaders"),), type="stat", width=4),
        Panel(
            "Oldest pass", "Since the resource that waited longest was looked at; one that has ended waits 5 minutes.",
            (Query("time() - min(whimbrel_resource_reconciled_timestamp_seconds)", "longest"),), "s", "stat", 4,
        ),
    ),
)  # fmt: skip
ROWS: Final = (_MIGRATIONS, _STREAMS, _CUTOVERS, _WAYS_BACK, _WORKERS, _OPERATOR)


def queries() -> Iterator[tuple[str, str]]:
    """The title of each panel with each of its expressions, as Grafana has them: with its variables."""
    for row in ROWS:
        for panel in row.panels:
            yield from ((panel.title, query.expr) for query in panel.queries)


def render() -> str:
    """The dashboard as Grafana's JSON."""
    return json.dumps(_dashboard(), indent=1) + "\n"


def _dashboard() -> dict[str, Any]:
    return {
        "uid": UID,
        "title": "Whimbrel",
        "description": "Live database migrations. Generated from operator/whimbrel_operator/figures/dashboard.py.",
        "tags": ["whimbrel"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": list(_laid_out()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    yield _variable("namespace", "label_values(whimbrel_resource_condition, namespace)")
    yield _variable("name", 'label_values(whimbrel_migration_phase{namespace=~"$namespace"}, name)')


def _variable(name: str, query: str) -> dict[str, Any]:
    return {
        "name": name, "label": name, "type": "query", "datasource": _SOURCE, "query": query, "refresh": 2, "sort": 1,
        "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


def _laid_out() -> Iterator[dict[str, Any]]:
    """Rows one below the other; a row's panels from left to right, and on the next line where they do not fit."""
    number = y = 0
    for row in ROWS:
        number, x = number + 1, 0
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [],
               "gridPos": {"x": 0, "y": y, "w": _WIDTH, "h": 1}}  # fmt: skip
        y += 1
        for panel in row.panels:
            if x + panel.width > _WIDTH:
                x, y = 0, y + _HEIGHT
            number += 1
            yield _panel(panel, number, {"x": x, "y": y, "w": panel.width, "h": _HEIGHT})
            x += panel.width
        y += _HEIGHT


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    instant = panel.type == "stat"
    return {
        "id": number, "type": panel.type, "title": panel.title, "description": panel.help, "datasource": _SOURCE,
        "gridPos": place, "targets": list(_targets(panel.queries, instant=instant)),
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []}, "options": _options(panel.type),
    }  # fmt: skip


def _targets(found: Iterable[Query], *, instant: bool) -> Iterator[dict[str, Any]]:
    for number, query in enumerate(found):
        yield {
            "refId": chr(ord("A") + number), "datasource": _SOURCE, "expr": query.expr, "legendFormat": query.legend,
            "instant": instant, "range": not instant,
        }  # fmt: skip


def _options(kind: str) -> dict[str, Any]:
    if kind == "stat":
        return {
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": "value_and_name",
        }
    if kind == "state-timeline":
        return {"showValue": "auto", "legend": {"displayMode": "list", "placement": "bottom"}}
    return {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]}}
