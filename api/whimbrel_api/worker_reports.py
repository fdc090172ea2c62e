"""The WorkerReport as a resource: one a worker pod, made by the operator. What a report says stands in reports."""

from typing import Literal

from pydantic import Field

from whimbrel_api.base import API_VERSION, Model, Moment, ObjectMeta
from whimbrel_api.reports import ReportedError, WorkerReport
from whimbrel_api.tasks import Orders


class Failures(Model):
    """How often in a row an instance has failed, over all its Jobs; kept here, as a Job that is gone tells nothing."""

    count: int = Field(default=0, ge=0, description="How often in a row.")
    last_at: Moment | None = Field(default=None, description="When it failed last.")
    last_error: ReportedError | None = Field(default=None, description="How it failed last.")


class WorkerReportSpec(Model):
    """What the operator orders the worker to do, and what it remembers of the worker's former lives."""

    orders: Orders = Orders()
    failures: Failures = Failures()


class WorkerReportResource(Model):
    """A worker's orders and its newest report. Made and read by the operator; of no use to people."""

    api_version: Literal["whimbrel.dev/v1alpha1"] = API_VERSION
    kind: Literal["WorkerReport"] = "WorkerReport"
    metadata: ObjectMeta
    spec: WorkerReportSpec = WorkerReportSpec()
    status: WorkerReport | None = None
