"""The WorkerReport as a resource: one a worker pod, made by the operator. What a report says stands in reports."""

from typing import Literal

from whimbrel_api.base import API_VERSION, Model, ObjectMeta
from whimbrel_api.reports import WorkerReport
from whimbrel_api.tasks import Orders


class WorkerReportSpec(Model):
    """What the operator orders the worker to do."""

    orders: Orders = Orders()


class WorkerReportResource(Model):
    """A worker's orders and its newest report. Made and read by the operator; of no use to people."""

    api_version: Literal["whimbrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["WorkerReport"] = "WorkerReport"
    metadata: ObjectMeta
    spec: WorkerReportSpec = WorkerReportSpec()
    status: WorkerReport | None = None
