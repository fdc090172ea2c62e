"""Migrations in the states that views are tested on. No test stands here."""

from datetime import UTC, datetime, timedelta
from typing import Any

from whimbrel_api.migration import Migration
from whimbrel_cli.observed import Happening, Observed

NOW = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)
PLAN = "sha256:1f3a9c"


def _condition(kind: str, reason: str = "Test", message: str = "", status: str = "True") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}


def _table(name: str, state: str, total: int, copied: int, message: str = "") -> dict[str, Any]:
    return {"name": f"flights.{name}", "state": state, "rowsTotal": total, "rowsCopied": copied, "message": message}


_COPIED = {"tablesTotal": 3, "tablesDone": 3, "rowsTotal": 364_000, "rowsCopied": 364_000, "bytesCopied": 31_400_000}
_STREAM = {
    "position": "u:1-90",
    "lagSeconds": 0.42,
    "lagObservedAt": NOW - timedelta(seconds=1),
    "changesApplied": 1204,
}
_CHECKED = {"result": "Equal", "rowsCompared": 364_100, "completedAt": NOW - timedelta(seconds=12)}
_OPEN = [
    _condition("LagWithinThreshold"),
    _condition("ValidationPassed"),
    _condition("NoStoppedTable", message="no table is stopped"),
    _condition("IndexesReady", message="the secondary indexes are built"),
]

STATES: dict[str, dict[str, Any]] = {
    "pending": {},
    "snapshot": {
        "phase": "Snapshot",
        "snapshot": _COPIED | {"tablesDone": 1, "rowsCopied": 214_000, "rowsPerSecond": 41_200.4, "eta": 3.6},
        "tables": [
            _table("airports", "Copied", 1_458, 1_458),
            _table("flights", "Copying", 336_776, 200_000),
            _table("weather", "Pending", 26_115, 0),
        ],
    },
    "following": {
        "phase": "Following", "snapshot": _COPIED, "stream": _STREAM, "validation": _CHECKED, "conditions": _OPEN,
        "plan": {"hash": PLAN}, "cutover": {"state": "AwaitingApproval"},
        "tables": [_table("flights", "Following", 336_776, 336_776)],
    },
    "different": {
        "phase": "Following", "snapshot": _COPIED, "stream": _STREAM | {"lagSeconds": None},
        "validation": _CHECKED | {"result": "Different", "differences": {"missing": 1, "changed": 2}},
        "plan": {"hash": PLAN},
        "tables": [_table("flights", "Stopped", 336_776, 336_776, "the column geo has the type geometry")],
    },
    "freezing": {
        "phase": "CuttingOver", "snapshot": _COPIED, "stream": _STREAM, "validation": _CHECKED,
        "cutover": {"state": "Freezing", "message": "the source still writes"},
    },
    "stalled": {
        "phase": "Preflight",
        "conditions": [_condition("Stalled", "ConfigurationError", "MySQL at db:3306 refused the password")],
    },
    "completed": {
        "phase": "Completed", "snapshot": _COPIED, "stream": _STREAM, "validation": _CHECKED,
        "cutover": {"state": "Switched"},
    },
    "cancelled": {"phase": "Cancelled"},
}  # fmt: skip

SPEC: dict[str, Any] = {
    "source": {"mysql": {"host": "db", "credentialsSecretRef": {"name": "source"}}},
    "target": {"auroraDSQL": {"endpoint": "abc.dsql.us-east-1.on.aws", "region": "us-east-1"}},
}


def migration(state: str, **spec: Any) -> Migration:
    """A migration named shop in the state of that name."""
    return Migration.model_validate({"metadata": {"name": "shop"}, "spec": SPEC | spec, "status": STATES[state]})


def observed(state: str, rates: dict[str, float] | None = None, **spec: Any) -> Observed:
    """The same, looked at at `NOW`, with two events."""
    events = [
        Happening(NOW - timedelta(seconds=20), False, "PhaseChanged", "Pending -> Preflight"),
        Happening(
            NOW - timedelta(seconds=5), True, "WorkerFailed", "snapshot-1 ended with code 1;\nit is started again"
        ),
    ]
    return Observed(migration(state, **spec), NOW, events, rates or {})
