"""WorkerReports as the operator makes them: orders and remembered failures. What a worker says is its own to write.

Orders and failures are applied apart, under two field managers. Server-side apply takes away only what the same
manager no longer names, so that new orders leave the failures alone and the other way round; both forms name the same
owner and labels, so that whichever comes first makes the whole resource. A worker writes `status` alone, which neither
form names.
"""

from typing import Any, Final

from whimbrel_api.base import API_VERSION
from whimbrel_api.tasks import TaskKind
from whimbrel_api.worker_reports import Failures
from whimbrel_operator.domain.decision import WantedTask
from whimbrel_operator.domain.observed import TaskRef
from whimbrel_operator.specs import names
from whimbrel_operator.specs.names import Owner

FAILURES_MANAGER: Final = "whimbrel-failures"


def orders_report(owner: Owner, wanted: WantedTask) -> dict[str, Any]:
    """One instance's orders, to be applied as `names.FIELD_MANAGER`."""
    orders = wanted.orders.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _report(owner, wanted.kind, wanted.ref, {"orders": orders})


def failures_report(owner: Owner, kind: TaskKind, ref: TaskRef, failures: Failures) -> dict[str, Any]:
    """One instance's failures in a row, to be applied as FAILURES_MANAGER. `Failures()` forgets them."""
    told = failures.model_dump(mode="json", by_alias=True, exclude_none=True)
    return _report(owner, kind, ref, {"failures": told})


def _report(owner: Owner, kind: TaskKind, ref: TaskRef, spec: dict[str, Any]) -> dict[str, Any]:
    name = names.report_name(names.job_name(owner, ref.task_id), ref.index)
    annotated = {names.RESOURCE: owner.name}
    return {
        "apiVersion": API_VERSION,
        "kind": "WorkerReport",
        "metadata": names.metadata(owner, name, names.labels(owner, ref.task_id, kind), annotated),
        "spec": spec,
    }
